"""A data socket that the client brings along: it is connected to us where it is, in whatever processes share it.

So a program whose socket exists before it joins keeps that very socket: copies, flags and polls of it included. Our end
is nobody else's, which matters, as who shares it could make us wait on it. The two meet at a socket file in a directory
that is only ours: nobody can come between them, and unlike an abstract address it is there in all network namespaces.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile

from ipn.rendezvous import short_address


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
    """Connect ``theirs`` to us and return our end. Neither side waits. Errors: those of mkdtemp(3) and connect(2)."""
    with (
        tempfile.TemporaryDirectory(prefix="ipnd-") as directory,
        short_address(f"{directory}/meet") as address,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        listener.bind(address)
        listener.listen(1)
        theirs.connect(address)
        return listener.accept()[0]
