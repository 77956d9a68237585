"""A data socket that the client brings along: it is connected to us where it is, in whatever processes share it.

So a program whose socket exists before it joins keeps that very socket: copies, flags and polls of it included. Our end
is nobody else's, which matters, as who shares it could make us wait on it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

UCRED: Final = struct.Struct("@iII")
"""``struct ucred`` (unix(7)): process, user, group."""
STRANGERS: Final = 8
"""Connections of others that are turned away before we give up. The address is a random one, and short-lived."""


def take_socket(fd: int) -> socket.socket:
    """Return ``fd``, which is taken over, as a socket that can be joined. EINVAL unless it is a fresh SEQPACKET one."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise OSError(errno.EINVAL, "connect: the descriptor must be a socket") from None
    try:
        if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET) or _is_connected(sock):
            raise OSError(errno.EINVAL, "connect: the descriptor must be a unix SEQPACKET socket that is not connected")
    except BaseException:
        sock.close()
        raise
    return sock


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def meet(theirs: socket.socket) -> socket.socket:
    """Connect ``theirs`` to us and return our end. Neither side waits; errors are those of connect(2)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")
        listener.listen(STRANGERS)
        listener.setblocking(False)
        theirs.connect(listener.getsockname())
        for _ in range(STRANGERS):
            ours, _ = listener.accept()
            # Whoever called connect is the other end's process to the kernel; here that was us, and nobody else can be.
            if UCRED.unpack(ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[0] == os.getpid():
                return ours
            ours.close()
    raise OSError(errno.ECONNREFUSED, "connect: somebody keeps coming between us and the socket")
