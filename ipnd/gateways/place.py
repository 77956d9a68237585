"""Socket files that gateways make: as the user who asked for them, never over what is somebody else's.

A root daemon acts as that user while it touches the file system, so that a directory swapped for a symbolic link
leads nowhere the user could not go. What was made is removed only while it still is the same file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Iterator
from typing import Final

import attrs

from ipn.rendezvous import short_address
from ipnd.access import Peer
from ipnd.ownership import acting_as

log = logging.getLogger("ipnd.gateways")

BACKLOG: Final = 128
LONGEST: Final = 107
"""Longest path that a sockaddr_un holds (unix(7)), in bytes."""


@attrs.frozen
class Place:
    """A socket file that was made for ``peer``; ``key`` is its device and inode."""

    path: str
    peer: Peer
    key: tuple[int, int]

    def remove(self) -> None:
        """Remove it, if it still is the one that was made."""
        remove_file(self.path, self.key, self.peer)


def check_path(path: str, longest: int = LONGEST) -> str:
    """Return an absolute path of a socket, as it is; EINVAL or ENAMETOOLONG for what cannot be one."""
    if not path.startswith("/"):
        raise OSError(errno.EINVAL, f"the path of a socket must be absolute, not {path!r}")
    if len(os.fsencode(path)) > longest:
        text = f"{path} is too long: programs give such a path at most {longest} bytes (unix(7))"
        raise OSError(errno.ENAMETOOLONG, text)
    return os.path.normpath(path)


def require_identity(peer: Peer) -> None:
    """EACCES when files for ``peer`` would be made with the rights of our own user, which are not those of ``peer``."""
    if os.geteuid() not in (0, peer.uid) and peer.uid != 0:
        text = f"ipnd runs as user {os.geteuid()}, so it cannot make sockets for user {peer.uid}; that user must do it"
        raise PermissionError(errno.EACCES, text)


def bind_at(path: str, kind: socket.SocketKind, peer: Peer, mode: int, gid: int = -1) -> tuple[socket.socket, Place]:
    """Bind a socket of a ``kind`` to a new file at ``path``, made as ``peer``; a stale one of that user's is replaced.

    EADDRINUSE when somebody uses it, EEXIST when something else is there (a symbolic link, too), and what the user
    may not.
    """
    require_identity(peer)
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        os.fchmod(sock.fileno(), mode)  # of the socket, which is ours; its file will have no more rights than it
        with acting_as(peer.uid, peer.gid):
            _clear(path, peer)
            with _readable(path), short_address(path) as address:
                sock.bind(address)
            info = os.lstat(path)
            os.chmod(path, mode)  # the umask took some
            if gid >= 0 and gid != info.st_gid:
                with contextlib.suppress(PermissionError):
                    os.chown(path, -1, gid)  # only a member of the group may give it to the group
    except BaseException:
        sock.close()
        raise
    return sock, Place(path, peer, (info.st_dev, info.st_ino))


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Give the errors of binding a sentence."""
    try:
        yield
    except FileNotFoundError:
        text = f"cannot make the socket {path}: its directory does not exist"
        raise FileNotFoundError(errno.ENOENT, text) from None
    except PermissionError:
        raise PermissionError(errno.EACCES, f"cannot make the socket {path}: permission denied") from None


def _clear(path: str, peer: Peer) -> None:
    """Remove a stale socket of the user's from ``path``."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    except PermissionError:
        raise PermissionError(errno.EACCES, f"cannot look at {path}: permission denied") from None
    if not stat.S_ISSOCK(info.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "something else"
        raise FileExistsError(errno.EEXIST, f"{path} is in the way: it is {what}, not a socket")
    if is_alive(path):
        raise OSError(errno.EADDRINUSE, f"somebody serves {path} already")
    if peer.uid not in (0, info.st_uid):
        raise FileExistsError(errno.EEXIST, f"{path} is a stale socket of user {info.st_uid}, who must remove it")
    os.unlink(path)


def is_alive(path: str) -> bool:
    """Return whether a socket of whatever type has the address ``path`` now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            with short_address(path) as address:
                probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # EPROTOTYPE: of another type; EPERM, EACCES: not for everybody
    return True


def remove_file(path: str, key: tuple[int, int], peer: Peer) -> None:
    """Remove ``path`` as ``peer`` would, if it is the socket whose device and inode are ``key``."""
    try:
        with acting_as(peer.uid, peer.gid):
            there = os.lstat(path)
            if (there.st_dev, there.st_ino) == key and stat.S_ISSOCK(there.st_mode):
                os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("cannot remove the socket %s: %s", path, error.strerror)
