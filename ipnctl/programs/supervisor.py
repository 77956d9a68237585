"""The supervisor of a program: told of calls on sockets, it answers those that are about AF_IPN.

It knows a program's sockets by their inodes, whatever the number, process or copy a call comes by, and asks of every
call in turn; a call on anything else goes on in the kernel as if nobody had been asked. Messages do not come by here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
import traceback
from collections.abc import Sequence
from typing import Final

import attrs

from ipn.unixdiag import is_there

from . import messages, seccomp
from .calls import CALLS
from .identity import acting_as, in_network_of
from .machine import Machine
from .messages import Receiving
from .outcome import Outcome, Untold
from .seccomp import Call
from .sockets import ProgramSocket

WATCH_SECONDS: Final = 0.2
"""How often to look whether the program has closed a socket that only we know of."""
SWEEP_SECONDS: Final = 2.0
"""How often to forget those that are closed."""
NEED_A_COPY: Final = frozenset({"connect", "shutdown"})
"""Calls that change the socket itself."""
ONLY_ONCE: Final = frozenset({"bind", "connect", "ioctl", "recvmsg"})
"""Calls that come to something else when they are made again."""
INODE: Final = "socket:["


class Supervisor:
    """Answers the calls that ``listener`` tells of; it is taken over. ``families``: what AF_IPN is to the program."""

    def __init__(self, machine: Machine, listener: int, families: Sequence[int]) -> None:
        self.families = tuple(families)
        self._machine = machine
        self._listener = listener
        self._names = {number: name for name, number in machine.calls.items()}
        self._sockets: dict[int, ProgramSocket] = {}
        self._receiving: list[Receiving] = []
        self._untold: dict[int, Untold] = {}
        self._swept = time.monotonic()

    def serve(self) -> None:
        """Answer calls until nobody is left who could make any."""
        try:
            while self._wait():
                pass
        finally:
            for sock in self._sockets.values():
                sock.close()
            for receiving in self._receiving:
                receiving.close()
            os.close(self._listener)

    def _wait(self) -> bool:
        """Wait for a call, or for what a call waits for; return whether anybody is left."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        for receiving in self._receiving:
            poll.register(receiving, select.POLLIN)
        ready = dict(poll.poll(self._patience()))
        if ready.get(self._listener, 0) & select.POLLIN:
            call = seccomp.receive(self._listener)
            if call is not None:
                self._answer(call)
        elif ready.get(self._listener, 0):
            return False
        self._receive_on()
        if self._must_watch() or (self._sockets and time.monotonic() - self._swept >= SWEEP_SECONDS):
            self._sweep()
        return True

    def _must_watch(self) -> bool:
        return any(sock.must_be_watched for sock in self._sockets.values())

    def _patience(self) -> float | None:
        """Return how long to wait at most, in milliseconds."""
        if self._receiving or self._must_watch():
            return WATCH_SECONDS * 1000
        return SWEEP_SECONDS * 1000 if self._sockets else None

    def _receive_on(self) -> None:
        for receiving in list(self._receiving):
            if (outcome := messages.attempt(self._listener, receiving)) is not None:
                self._receiving.remove(receiving)
                receiving.close()
                self._finish(receiving.call, outcome, receiving.inode)

    def _sweep(self) -> None:
        """Forget the sockets that the program has closed: their networks lose them."""
        self._swept = time.monotonic()
        for inode in [inode for inode in self._sockets if not is_there(inode)]:
            self._sockets.pop(inode).close()
        self._untold = {thread: untold for thread, untold in self._untold.items() if untold.inode in self._sockets}

    # -- calls -----------------------------------------------------------------------------------------------------

    def _answer(self, call: Call) -> None:
        name = self._names[call.number]
        untold = self._untold.pop(call.thread, None)
        try:
            if name in ("socket", "socketpair"):
                self._make(call, name)
                return
            sock = self._socket_of(call)
            if sock is None:
                seccomp.answer(self._listener, call, go_on=True)
            elif untold is not None and untold.is_repeated(call, sock.inode):
                self._finish(call, untold.outcome, sock.inode)
            elif name in CALLS:
                self._carry_out(call, name, sock)
            elif name == "recvmsg":
                self._receive(call, sock)
            else:
                self._send(call, sock)
        except OSError as error:
            seccomp.answer(self._listener, call, error=error.errno or errno.EIO)
        except Exception:  # noqa: BLE001 - the border where blame is decided
            # A fault of ours ends this call; the program's others, and its other processes, need us.
            seccomp.answer(self._listener, call, error=errno.EIO)
            traceback.print_exc()

    def _make(self, call: Call, name: str) -> None:
        """Answer socket(2)."""
        family, type_, proto = (_as_int(argument) for argument in call.arguments[:3])
        if name == "socketpair":
            raise OSError(errno.EOPNOTSUPP, "an AF_IPN socket has no pair")
        self._sweep()
        sock = ProgramSocket(family, type_, proto)
        with sock.make() as own:
            flags = os.O_CLOEXEC if type_ & socket.SOCK_CLOEXEC else 0
            self._sockets[sock.inode] = sock
            seccomp.answer_with(self._listener, call, own.fileno(), flags)

    def _socket_of(self, call: Call) -> ProgramSocket | None:
        """Return the AF_IPN socket that a call is on; None for anything else."""
        if not self._sockets:
            return None
        try:
            name = os.readlink(f"/proc/{call.thread}/fd/{_as_int(call.arguments[0])}")
        except OSError:
            return None
        return self._sockets.get(int(name[len(INODE) : -1])) if name.startswith(INODE) else None

    def _carry_out(self, call: Call, name: str, sock: ProgramSocket) -> None:
        """Do what a call says, as whoever made it."""
        if name in ("bind", "connect"):
            self._sweep()
        caller = _Thread(self._listener, call, self.families)
        process = int(seccomp.status_of(call.thread)["Tgid"]) if name == "connect" else 0
        fd = self._copy(call, sock) if name in NEED_A_COPY else -1
        try:
            with sock.with_copy(fd, process):
                value = CALLS[name](caller, sock)
        finally:
            if fd >= 0:
                os.close(fd)
        self._finish(call, Outcome(value, writes=tuple(caller.writes)), sock.inode)

    def _finish(self, call: Call, outcome: Outcome, inode: int) -> None:
        """Give a call what it came to. Where a signal has ended it before, keep that until it is made again."""
        told = False
        if seccomp.is_valid(self._listener, call):
            value, error = outcome.value, outcome.error
            try:
                for address, data in outcome.writes:
                    seccomp.write_memory(call.thread, address, data)
            except OSError as fault:
                value, error = 0, fault.errno or errno.EFAULT
            told = seccomp.expects_answer(self._listener, call) and seccomp.answer(self._listener, call, value, error)
        if not told and not outcome.error and self._names[call.number] in ONLY_ONCE:
            self._untold[call.thread] = Untold(call, inode, outcome)

    def _copy(self, call: Call, sock: ProgramSocket) -> int:
        """Return a copy of the socket that a call is on. EBADF when another thread has put something else there."""
        fd = seccomp.copy_descriptor(self._machine, call.thread, _as_int(call.arguments[0]))
        if os.fstat(fd).st_ino != sock.inode:
            os.close(fd)
            raise OSError(errno.EBADF, "the descriptor is another one by now")
        return fd

    def _receive(self, call: Call, sock: ProgramSocket) -> None:
        """Answer recvmsg(2), here only where there may be notices."""
        if not sock.handles_notices:
            seccomp.answer(self._listener, call, go_on=True)
            return
        receiving = messages.begin(call, self._copy(call, sock), sock.inode)
        if (outcome := messages.attempt(self._listener, receiving)) is None:
            self._receiving.append(receiving)
            return
        receiving.close()
        self._finish(call, outcome, sock.inode)

    def _send(self, call: Call, sock: ProgramSocket) -> None:
        """Let a long message go on to the kernel unless it is too long for the network."""
        if sock.sends and call.arguments[2] > sock.mtu:
            raise OSError(errno.EOVERFLOW, "a message is longer than the MTU")
        seccomp.answer(self._listener, call, go_on=True)


def _as_int(argument: int) -> int:
    """Return the lower half of a register as a C int."""
    return (argument & 0xFFFF_FFFF) - (argument >> 31 & 1) * (1 << 32)


@attrs.frozen
class _Thread:
    """The thread that made a call, for ``calls``. ``writes``: what is to be changed in its memory."""

    listener: int
    call: Call
    families: tuple[int, ...]
    writes: list[tuple[int, bytes]] = attrs.field(factory=list)

    def integer(self, number: int) -> int:
        """Return an argument as a C int."""
        return _as_int(self.call.arguments[number])

    def pointer(self, number: int) -> int:
        """Return an argument as it is."""
        return self.call.arguments[number]

    def read(self, address: int, size: int) -> bytes:
        """Return memory that was the thread's own when it was read. EFAULT; EINTR when the call waits no more."""
        data = seccomp.read_memory(self.call.thread, address, size)
        if not seccomp.is_valid(self.listener, self.call):
            raise OSError(errno.EINTR, "the call does not wait any more")
        return data

    def write(self, address: int, data: bytes) -> None:
        """Have the thread's memory changed when the call is answered."""
        self.writes.append((address, data))

    def whole_path(self, path: str) -> str:
        """Return where a path of the program's is: its directory, and its root, may be others than ours."""
        root, here = (os.readlink(f"/proc/{self.call.thread}/{name}") for name in ("root", "cwd"))
        return root.rstrip("/") + path if path.startswith("/") else os.path.join(here, path)

    def as_itself(self) -> contextlib.AbstractContextManager[None]:
        """Act with the thread's umask and no more rights than it has."""
        return acting_as(self.call.thread)

    def in_its_network(self) -> contextlib.AbstractContextManager[None]:
        """Be in the thread's network namespace. EPERM where we may not."""
        return in_network_of(self.call.thread)
