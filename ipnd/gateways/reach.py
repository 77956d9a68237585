"""Connecting a datagram socket to one that a client has bound: whose it is, and whether we may write to it.

The client says where its socket is, so that the daemon must not be led elsewhere: the file is opened once, seen to be
a socket of that very user, and connected to through the descriptor. Symbolic links are not followed.
An abstract address has no file; whose the socket is that was connected to is asked of the kernel.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from typing import Final

from ipn.unixdiag import owner_of_peer
from ipnd.access import Peer
from ipnd.ownership import acting_as

log = logging.getLogger("ipnd.gateways")

REASONS: Final = {
    errno.ECONNREFUSED: "is there no more: nobody has it open",
    errno.EPROTOTYPE: "takes no datagrams: it is of another type",
    errno.EPERM: "is connected to another one and takes datagrams from that only",
}
"""Why a datagram socket cannot be connected to another, for people."""


def shown(name: bytes) -> str:
    """Return the address of a socket as text without what could forge lines of a log."""
    text = name.replace(b"\0", b"@", 1).rstrip(b"\0").decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def pin(path: bytes, peer: Peer) -> int:
    """Return an O_PATH descriptor of the socket that ``peer`` has bound at ``path``, which the caller must close.

    A path that is relative is so to where the process is. Errors: ENOENT, ENOTSOCK, EPERM for somebody else's.
    """
    name = os.fsdecode(path if path.startswith(b"/") else b"/proc/%d/cwd/%b" % (peer.pid, path))
    with acting_as(peer.uid, peer.gid):
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            why = f"its data socket {shown(path)} cannot be reached: {error.strerror}"
            raise OSError(error.errno, why) from None
    info = os.fstat(fd)
    if stat.S_ISSOCK(info.st_mode) and (info.st_uid == peer.uid or peer.uid == 0):
        return fd
    os.close(fd)
    if not stat.S_ISSOCK(info.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no socket"
        raise OSError(errno.ENOTSOCK, f"what it calls its data socket, {shown(path)}, is {what}")
    raise PermissionError(errno.EPERM, f"its data socket {shown(path)} belongs to user {info.st_uid}")


def pinned(fd: int) -> str:
    """Return the address of a pinned socket."""
    return f"/proc/self/fd/{fd}"


def connect_datagrams(sock: socket.socket, path: bytes, peer: Peer) -> None:
    """Connect a datagram socket to the one that ``peer`` has bound at ``path`` (abstract when it begins with NUL).

    One of our own user's that forbids us to write is opened for it, with a line in the log. Errors: those of ``pin``;
    EACCES when we may not write, or when it is at an abstract address and not that user's; ECONNREFUSED when nobody
    has it any more; EPROTOTYPE when it takes no datagrams; EPERM when it only takes those of another.
    """
    fd = -1 if path.startswith(b"\0") else pin(path, peer)
    try:
        _connect(sock, path, fd, peer)
    except OSError as error:
        if error.errno not in REASONS:
            raise
        text = f"its data socket {shown(path)} {REASONS[error.errno]}"
        raise OSError(error.errno, text) from None
    finally:
        if fd >= 0:
            os.close(fd)
    if fd < 0:
        _require_owner(sock, path, peer)


def _require_owner(sock: socket.socket, path: bytes, peer: Peer) -> None:
    """EACCES when ``sock`` has been connected to somebody else's socket: anybody can name an abstract address."""
    if peer.uid in (0, os.geteuid()):
        return  # who could write to it as well
    owner = owner_of_peer(sock)
    if owner != peer.uid:
        whose = "cannot be seen whose it is" if owner is None else f"belongs to user {owner}"
        raise PermissionError(errno.EACCES, f"its data socket {shown(path)} {whose}")


def _connect(sock: socket.socket, path: bytes, fd: int, peer: Peer) -> None:
    address = path if fd < 0 else pinned(fd)
    try:
        sock.connect(address)
    except PermissionError as error:
        if error.errno != errno.EACCES or fd < 0:
            raise
        _open_up(fd, path, peer)
        sock.connect(address)


def _open_up(fd: int, path: bytes, peer: Peer) -> None:
    """Make a client's socket writable for its owner, if that is us; EACCES otherwise."""
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.geteuid():
        text = (
            f"its data socket {shown(path)} of user {info.st_uid} has the mode {mode:04o}, so that ipnd (user"
            f" {os.geteuid()}) may not write to it; have the program open it (libvdeplug: group or mode)"
        )
        raise PermissionError(errno.EACCES, text)
    os.chmod(pinned(fd), mode | stat.S_IRUSR | stat.S_IWUSR)
    log.warning(
        "the data socket %s of %s has the mode %04o, so that no switch could write to it"
        " (SIMH and 86Box do so: they ask libvdeplug for mode 0); it has been given u+rw",
        shown(path), peer, mode,
    )
