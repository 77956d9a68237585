"""Connecting a datagram socket to one that a client has bound: whose it is, and whether we may write to it.

The client says where its socket is, so that the daemon must not be led elsewhere: the file is opened once, seen to be
a socket of that very user, and connected to through the descriptor. Symbolic links are not followed.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat

from ipnd.access import Peer
from ipnd.ownership import acting_as

log = logging.getLogger("ipnd.gateways")


def pin(path: bytes, peer: Peer) -> int:
    """Return an O_PATH descriptor of the socket that ``peer`` has bound at ``path``, which the caller must close.

    A path that is relative is so to where the process is. Errors: ENOENT, ENOTSOCK, EPERM for somebody else's.
    """
    shown = os.fsdecode(path)
    name = shown if path.startswith(b"/") else f"/proc/{peer.pid}/cwd/{shown}"
    with acting_as(peer.uid, peer.gid):
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            why = f"its data socket {shown} cannot be reached: {error.strerror}"
            raise OSError(error.errno, why) from None
    info = os.fstat(fd)
    if stat.S_ISSOCK(info.st_mode) and (info.st_uid == peer.uid or peer.uid == 0):
        return fd
    os.close(fd)
    if not stat.S_ISSOCK(info.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no socket"
        raise OSError(errno.ENOTSOCK, f"what it calls its data socket, {shown}, is {what}")
    raise PermissionError(errno.EPERM, f"its data socket {shown} belongs to user {info.st_uid}")


def pinned(fd: int) -> str:
    """Return the address of a pinned socket."""
    return f"/proc/self/fd/{fd}"


def connect_datagrams(sock: socket.socket, path: bytes, peer: Peer) -> None:
    """Connect a datagram socket to the one that ``peer`` has bound at ``path`` (abstract when it begins with NUL).

    One of our own user's that forbids us to write is opened for it, with a line in the log. Errors: those of ``pin``;
    EACCES when we may not write; ECONNREFUSED when nobody has it any more; EPERM when it only takes from another.
    """
    if path.startswith(b"\0"):
        sock.connect(path)
        return
    fd = pin(path, peer)
    try:
        try:
            sock.connect(pinned(fd))
        except PermissionError as error:
            if error.errno != errno.EACCES:
                raise
            _open_up(fd, os.fsdecode(path), peer)
            sock.connect(pinned(fd))
    except ConnectionRefusedError:
        text = f"nobody has the data socket {os.fsdecode(path)} any more"
        raise ConnectionRefusedError(errno.ECONNREFUSED, text) from None
    finally:
        os.close(fd)


def _open_up(fd: int, shown: str, peer: Peer) -> None:
    """Make a client's socket writable for its owner, if that is us; EACCES otherwise."""
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.geteuid():
        text = (
            f"its data socket {shown} of user {info.st_uid} has the mode {mode:04o}, so that ipnd (user"
            f" {os.geteuid()}) may not write to it; have the program open it (libvdeplug: group or mode)"
        )
        raise PermissionError(errno.EACCES, text)
    os.chmod(pinned(fd), mode | stat.S_IRUSR | stat.S_IWUSR)
    log.warning(
        "the data socket %s of %s has the mode %04o, so that no switch could write to it"
        " (SIMH and 86Box do so: they ask libvdeplug for mode 0); it has been given u+rw",
        shown, peer, mode,
    )
