"""recvmsg(2) of a program that has asked for out-of-band messages: with MSG_OOB in its flags, which the kernel has not.

ipnd sends such a message with a descriptor beside it. The supervisor receives in the program's place, from the very
socket; a call that has to wait does so here, and is taken up again when there is something.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

import attrs

from . import seccomp
from .outcome import Outcome
from .seccomp import Call

HEADER: Final = struct.Struct("@PI4xPNPNi4x")
"""``struct msghdr`` of 64-bit machines: name and length, vectors and count, control and length, flags."""
VECTOR: Final = struct.Struct("@PN")
MAX_VECTORS: Final = 1024
"""UIO_MAXIOV: more is EMSGSIZE to the kernel, too."""
MAX_MESSAGE: Final = 17 * 1024 * 1024
"""Bytes of a message: the largest MTU there is, and some more."""
TIMEVAL: Final = struct.Struct("@ll")
SPACE: Final = socket.CMSG_SPACE(4)
"""Bytes for the descriptor beside a notice."""
FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_PEEK | socket.MSG_WAITALL | socket.MSG_TRUNC | socket.MSG_CMSG_CLOEXEC


@attrs.define
class Receiving:
    """A call that receives, and the copy ``fd`` of the socket ``inode`` that it does so from, which it owns."""

    call: Call
    fd: int
    inode: int
    deadline: float | None

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something."""
        return self.fd

    def close(self) -> None:
        """Close the copy."""
        os.close(self.fd)


def begin(call: Call, fd: int, inode: int) -> Receiving:
    """Take the socket ``fd`` for a call: how long it may wait is the program's and the socket's business."""
    flags = call.arguments[2]
    if flags & socket.MSG_DONTWAIT or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK:
        return Receiving(call, fd, inode, 0.0)
    with _borrowed(fd) as sock:
        seconds, microseconds = TIMEVAL.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.size))
    patience = seconds + microseconds / 1e6
    return Receiving(call, fd, inode, time.monotonic() + patience if patience else None)


def attempt(listener: int, receiving: Receiving) -> Outcome | None:
    """Return what the call comes to if there is something, or it has waited long enough; None: it goes on waiting."""
    if not seccomp.is_valid(listener, receiving.call):
        return Outcome(error=errno.EINTR)
    try:
        return _receive(listener, receiving)
    except BlockingIOError as error:
        if receiving.deadline is None or time.monotonic() < receiving.deadline:
            return None
        return Outcome(error=error.errno or errno.EAGAIN)
    except OSError as error:
        return Outcome(error=error.errno or errno.EIO)


def _receive(listener: int, receiving: Receiving) -> Outcome:
    """Receive a message for the program."""
    call = receiving.call
    thread, at = call.thread, call.arguments[1]
    flags = call.arguments[2] & FLAGS
    name, room, vectors, count, control, _, _ = HEADER.unpack(seccomp.read_memory(thread, at, HEADER.size))
    if count > MAX_VECTORS:
        raise OSError(errno.EMSGSIZE, "too many vectors")
    places = list(VECTOR.iter_unpack(seccomp.read_memory(thread, vectors, VECTOR.size * count)))
    size = min(sum(length for _, length in places), MAX_MESSAGE)
    if not seccomp.is_valid(listener, call):
        raise OSError(errno.EINTR, "the call does not wait any more")
    with _borrowed(receiving.fd) as sock:
        data = bytearray(size)
        flags |= socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        got, beside, out, _ = sock.recvmsg_into([data], SPACE, flags)
    out &= socket.MSG_TRUNC
    if close_all(beside):
        out |= socket.MSG_OOB
    rest = memoryview(data)[:got]
    writes = []
    for base, length in places:
        writes.append((base, bytes(rest[:length])))
        rest = rest[length:]
    writes.append((at, HEADER.pack(name, 0 if name else room, vectors, count, control, 0, out)))
    return Outcome(got, writes=tuple(writes))  # which MSG_TRUNC makes more than there was room for


def close_all(beside: list[tuple[int, int, bytes]]) -> bool:
    """Close the descriptors that came with a message; return whether there were any."""
    found = [number for _, _, data in beside for (number,) in struct.iter_unpack("@i", data)]
    for fd in found:
        os.close(fd)
    return bool(found)


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """Give a socket object for a descriptor that stays ours."""
    sock = socket.socket(fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()
