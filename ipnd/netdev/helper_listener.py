"""The helper's listening socket: the service manager's (sd_listen_fds(3)), or one of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import Final

from ipn.rendezvous import short_address
from ipnd.systemd import activated_listener

BACKLOG: Final = 128


class AlreadyServed(Exception):
    """Another helper listens on the socket."""


@dataclass
class Listener:
    """A listening socket; ``path`` is empty when it is the service manager's."""

    sock: socket.socket
    path: str
    identity: tuple[int, int] = (0, 0)

    def close(self) -> None:
        """Stop listening, and remove the socket file if it is still the one made here."""
        self.sock.close()
        with contextlib.suppress(OSError):
            if self.path and _identity(self.path) == self.identity:
                os.unlink(self.path)


def open_listener(path: str) -> Listener:
    """Return the service manager's socket, or else one made at ``path``, which everybody may connect to.

    Errors: ``ValueError`` when the service manager passed something else, ``AlreadyServed`` when another helper listens
    there, ``OSError`` when the socket cannot be made.
    """
    if (activated := activated_listener(socket.SOCK_SEQPACKET)) is not None:
        activated.setblocking(False)
        return Listener(activated, "")
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        with short_address(path) as address:
            sock.bind(address)
        os.chmod(path, 0o666)
        sock.listen(BACKLOG)
        return Listener(sock, path, _identity(path))
    except BaseException:
        sock.close()
        raise


def _remove_stale(path: str) -> None:
    """Remove the socket that a helper which was killed left behind."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "something that is no socket is there", path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
            try:
                with short_address(path) as address:
                    probe.connect(address)
            except ConnectionRefusedError:
                os.unlink(path)
                return
            except BlockingIOError:
                pass  # its backlog is full: it is alive
        raise AlreadyServed(path)


def _identity(path: str) -> tuple[int, int]:
    info = os.lstat(path)
    return info.st_dev, info.st_ino
