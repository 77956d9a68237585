"""The door of a listening socket: accepts, looks at the first bytes, and decides who has come.

On a network's path, whoever starts with ``IPN1`` gets a control session; whoever starts with anything else, or says
nothing for ``SILENCE_NS``, is a *raw* member that speaks QEMU's stream framing. On the daemon's control socket only
``IPN1`` is welcome. No task and no buffer is spent before that is known.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from ipn.control import MAGIC
from ipnd.access import Peer
from ipnd.plane.plane import Plane

from .acceptor import Acceptor

log = logging.getLogger("ipnd.door")

SILENCE_NS: Final = 100_000_000
"""A connection silent for so long on a network's path is a raw member: it must hear traffic too."""
GREETING_NS: Final = 10_000_000_000
"""A connection that has begun with ``I``, or any on the control socket, has so long for the rest of ``IPN1``."""


class Door:
    """Watches one listening socket (borrowed). ``on_control`` and ``on_raw`` take over the connections' sockets;
    without ``on_raw`` only control clients are let in.
    """

    def __init__(
        self,
        plane: Plane,
        listener: socket.socket,
        name: str,
        on_control: Callable[[socket.socket, Peer], None],
        on_raw: Callable[[socket.socket, Peer], None] | None,
    ) -> None:
        self.plane = plane
        self.name = name
        self.on_control = on_control
        self.on_raw = on_raw
        self.waiting: set[Caller] = set()
        self._acceptor = Acceptor(plane, listener, name, self._take)

    def _take(self, sock: socket.socket, peer: Peer) -> None:
        Caller(self, sock, peer)

    def close(self) -> None:
        """Stop accepting; callers not yet let in are closed. The listener stays its owner's."""
        self._acceptor.close()
        for caller in list(self.waiting):
            caller.turn_away()


class Caller:
    """A connection whose kind is not known yet. Owns ``sock`` until it hands it on."""

    __slots__ = ("_done", "_door", "_peer", "_sock")

    def __init__(self, door: Door, sock: socket.socket, peer: Peer) -> None:
        self._door = door
        self._sock = sock
        self._peer = peer
        self._done = False
        sock.setblocking(False)
        door.plane.register(sock.fileno(), select.EPOLLIN | select.EPOLLRDHUP, self._look)
        door.waiting.add(self)
        patience = SILENCE_NS if door.on_raw else GREETING_NS
        door.plane.call_at(time.monotonic_ns() + patience, self._silent)

    def _look(self, mask: int) -> None:
        """Something has come, or the caller has gone."""
        try:
            start = self._sock.recv(len(MAGIC), socket.MSG_PEEK)
        except OSError:
            start = b""
        if start == MAGIC:
            with contextlib.suppress(OSError):
                self._sock.recv(len(MAGIC))
            self._hand_on(self._door.on_control)
        elif not start:
            # End of input before a word: gone, or a listener that only closed its sending half (nc -N, socat -u).
            if mask & (select.EPOLLHUP | select.EPOLLERR):
                self.turn_away()
            else:
                self._not_control()
        elif not MAGIC.startswith(start):
            self._not_control()
        elif mask & (select.EPOLLRDHUP | select.EPOLLHUP):
            self.turn_away()
        else:
            # Part of the word: look again when its time is over rather than spin on what is already there.
            self._door.plane.modify(self._sock.fileno(), select.EPOLLRDHUP)
            self._door.plane.call_at(time.monotonic_ns() + SILENCE_NS // 10, self._look_again)

    def _look_again(self) -> None:
        if not self._done:
            self._door.plane.modify(self._sock.fileno(), select.EPOLLIN | select.EPOLLRDHUP)

    def _silent(self) -> None:
        if self._done:
            return
        try:
            begun = bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            begun = False
        if begun:
            self._door.plane.call_at(time.monotonic_ns() + GREETING_NS, self._late)
        else:
            self._not_control()

    def _late(self) -> None:
        if not self._done:
            log.info("%s: %s began a greeting and never ended it", self._door.name, self._peer)
            self.turn_away()

    def _not_control(self) -> None:
        if self._door.on_raw is not None:
            self._hand_on(self._door.on_raw)
        else:
            log.info("%s: %s does not speak IPN", self._door.name, self._peer)
            self.turn_away()

    def _hand_on(self, taker: Callable[[socket.socket, Peer], None]) -> None:
        self._forget()
        taker(self._sock, self._peer)

    def turn_away(self) -> None:
        """Close the connection."""
        if not self._done:
            self._forget()
            self._sock.close()

    def _forget(self) -> None:
        self._done = True
        self._door.waiting.discard(self)
        self._door.plane.unregister(self._sock.fileno())
