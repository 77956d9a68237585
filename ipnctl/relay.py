"""Moving bytes both ways between two ends, turned on the way, by one loop that never waits for one of them alone.

Each direction is a ``Way``: it reads only when all it had read is passed on, so what it holds is one read, and a sink
that takes nothing holds up its own direction only. Nothing is changed on descriptors that others may share:
sockets are asked not to wait call by call, and into anything else goes, when poll(2) says so, what surely fits.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

READ_SIZE: Final = 256 * 1024
"""Bytes read at once."""
PIECE: Final = select.PIPE_BUF
"""Bytes that a pipe surely takes at once when poll(2) calls it writable (pipe(7))."""

GONE: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


class End:
    """One end: what is read from ``fd``, or what is written to it. Borrows the descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def read(self) -> bytes:
        """Return what is there, nothing at the end. May wait unless poll(2) called it readable."""
        return os.read(self._fd, READ_SIZE)

    def write(self, data: bytes | memoryview) -> int:
        """Write what surely fits when poll(2) called it writable; return how much."""
        return os.write(self._fd, data[:PIECE])


class SocketEnd(End):
    """An end that is a stream socket. Holds a copy of its descriptor, as a socket object owns its own."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._sock = socket.socket(fileno=os.dup(fd))

    def read(self) -> bytes:
        """Return what is there; BlockingIOError when nothing is."""
        return self._sock.recv(READ_SIZE, socket.MSG_DONTWAIT)

    def write(self, data: bytes | memoryview) -> int:
        """Write as much as fits now; BlockingIOError when nothing does."""
        return self._sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def end_of(fd: int) -> End:
    """Return the end that a descriptor is."""
    return SocketEnd(fd) if stat.S_ISSOCK(os.fstat(fd).st_mode) else End(fd)


class Way:
    """From ``source`` to ``sink``; ``turn`` makes of what was read what is written, in pieces that are kept apart.

    ``ended``: the source has no more, and all of it is written. ``deaf``: the sink takes no more; what comes is then
    thrown away.
    """

    def __init__(self, source: End, sink: End, turn: Callable[[bytes], Iterable[bytes]], first: bytes = b"") -> None:
        self.source = source
        self.sink = sink
        self.ended = self.deaf = False
        self._turn = turn
        self._waiting: deque[bytes | memoryview] = deque([first] if first else [])

    def wish(self) -> tuple[int, int]:
        """Return the descriptor that this way waits for, and what for, as poll(2) has it."""
        return (self.sink.fileno(), select.POLLOUT) if self._waiting else (self.source.fileno(), select.POLLIN)

    def step(self) -> None:
        """Do what ``wish`` waited for."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            if self._waiting:
                self._write()
            else:
                self._read()

    def _read(self) -> None:
        try:
            data = self.source.read()
        except ConnectionError:
            data = b""
        if not data:
            self.ended = True
        elif not self.deaf:
            self._waiting.extend(piece for piece in self._turn(data) if piece)

    def _write(self) -> None:
        piece = self._waiting[0]
        try:
            written = self.sink.write(piece)
        except ConnectionError:  # EPIPE, too
            self.deaf = True
            self._waiting.clear()
            return
        if written == len(piece):
            self._waiting.popleft()
        else:
            self._waiting[0] = memoryview(piece)[written:]


def relay(*ways: Way) -> Way:
    """Move bytes along all ``ways`` until one has ended, with all that its source gave written; return that one."""
    while True:
        for way in ways:
            if way.ended:
                return way
        _wait_and_step(ways)


def _wait_and_step(ways: Iterable[Way]) -> None:
    """Wait until some of ``ways`` can go on, and let them."""
    poll = select.poll()
    wishes = [(way, *way.wish()) for way in ways]
    for fd in {fd for _, fd, _ in wishes}:
        poll.register(fd, sum({wish for _, wished, wish in wishes if wished == fd}))
    ready = dict(poll.poll())
    for way, fd, wish in wishes:
        if ready.get(fd, 0) & (wish | GONE):
            way.step()
