"""Accepting connections on a listening unix socket: so many at a time, and pausing when descriptors run out."""

from __future__ import annotations

import errno
import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from ipnd.access import Peer
from ipnd.identity import peer_of
from ipnd.plane.plane import Plane

log = logging.getLogger("ipnd.door")

ACCEPTS: Final = 64
"""Connections accepted in one go."""
EXHAUSTED_NS: Final = 100_000_000
"""Pause in accepting when the process or the system is out of descriptors or memory."""


class Acceptor:
    """Watches one listening socket (borrowed); ``take`` owns each connection's socket, and may refuse with OSError."""

    def __init__(
        self, plane: Plane, listener: socket.socket, name: str, take: Callable[[socket.socket, Peer], None]
    ) -> None:
        self._plane = plane
        self._listener = listener
        self._name = name
        self._take = take
        self._open = True
        listener.setblocking(False)
        plane.register(listener.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, mask: int) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(error)
                return
            try:
                self._take(sock, peer_of(sock))
            except OSError as error:
                log.warning("%s: a connection could not be taken: %s", self._name, error)
                sock.close()

    def _pause(self, error: OSError) -> None:
        log.warning("%s: not accepting for a moment: %s", self._name, error.strerror)
        self._plane.modify(self._listener.fileno(), 0)
        self._plane.call_at(time.monotonic_ns() + EXHAUSTED_NS, self._resume)

    def _resume(self) -> None:
        if self._open:
            self._plane.modify(self._listener.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Stop accepting. The listener stays its owner's. May be called twice."""
        if self._open:
            self._open = False
            self._plane.unregister(self._listener.fileno())
