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
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

READ_SIZE: Final = 256 * 1024
"""Bytes read at once."""
LINGER: Final = 5.0
"""Seconds that a sink may take nothing of what is left for it once the source is at its end."""
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

    ``ended``: the source has no more. ``deaf``: the sink takes no more; what comes is then thrown away.
    """

    def __init__(self, source: End, sink: End, turn: Callable[[bytes], Iterable[bytes]], first: bytes = b"") -> None:
        self.source = source
        self.sink = sink
        self.ended = self.deaf = False
        self._turn = turn
        self._waiting: deque[bytes | memoryview] = deque([first] if first else [])

    @property
    def waiting(self) -> bool:
        """Whether something read is not written yet."""
        return bool(self._waiting)

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

    def give_up_sink(self) -> None:
        """Throw away what is there and what comes."""
        self.deaf = True
        self._waiting.clear()

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
            self.give_up_sink()
            return
        if written == len(piece):
            self._waiting.popleft()
        else:
            self._waiting[0] = memoryview(piece)[written:]


def relay(*ways: Way) -> Way:
    """Move bytes along all ``ways`` until the source of one is at its end and what it gave is written; return that way.

    A sink that then takes nothing for ``LINGER`` seconds loses the rest.
    """
    while not any(way.ended for way in ways):
        _wait_and_step(ways, None)
    ended = next(way for way in ways if way.ended)
    deadline = time.monotonic() + LINGER
    while ended.waiting and (left := deadline - time.monotonic()) > 0:
        if _wait_and_step((ended,), left):
            deadline = time.monotonic() + LINGER
    return ended


def _wait_and_step(ways: Iterable[Way], timeout: float | None) -> bool:
    """Wait up to ``timeout`` seconds until some of ``ways`` can go on, and let them; return whether any could."""
    poll = select.poll()
    wishes = [(way, *way.wish()) for way in ways]
    for fd in {fd for _, fd, _ in wishes}:
        poll.register(fd, sum({wish for _, wished, wish in wishes if wished == fd}))
    ready = dict(poll.poll(None if timeout is None else timeout * 1000))
    for way, fd, wish in wishes:
        if ready.get(fd, 0) & (wish | GONE):
            way.step()
    return bool(ready)
