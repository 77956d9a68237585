"""Accepting connections: all who knock, many at a time, and a pause when descriptors run out."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from ipnd.access import Peer
from ipnd.gateways import acceptor
from ipnd.gateways.acceptor import ACCEPTS, Acceptor
from ipnd.plane.plane import Plane


class Taker:
    """Takes connections, or refuses them with ``refusal``."""

    def __init__(self) -> None:
        self.taken: list[socket.socket] = []
        self.peers: list[Peer] = []
        self.refusal: OSError | None = None
        self._wanted = 0
        self._enough = trio.Event()

    def __call__(self, sock: socket.socket, peer: Peer) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.taken.append(sock)
        self.peers.append(peer)
        if len(self.taken) >= self._wanted:
            self._enough.set()

    async def wait_for(self, count: int) -> None:
        """Wait until ``count`` have been taken."""
        self._wanted, self._enough = count, trio.Event()
        if len(self.taken) < count:
            await self._enough.wait()


@pytest.fixture
def taker() -> Iterator[Taker]:
    """Give somebody who takes connections; they are closed at the end."""
    taker = Taker()
    yield taker
    for sock in taker.taken:
        sock.close()


@contextlib.asynccontextmanager
async def accepting(directory: Path, taker: Taker) -> AsyncIterator[tuple[Acceptor, Plane]]:
    """Accept on ``directory``/s for as long as it is open; give what does, and its loop."""
    plane = Plane()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(directory / "s"))
        listener.listen(4096)
        opened = Acceptor(plane, listener, "the door", taker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plane.run)
            with trio.fail_after(10):
                yield opened, plane
            nursery.cancel_scope.cancel()
        opened.close()
        opened.close()
    plane.close()


def call(directory: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    sock.connect(str(directory / "s"))
    return sock


async def wait_for_log(caplog: pytest.LogCaptureFixture, text: str) -> None:
    while text not in caplog.text:  # noqa: ASYNC110 - nobody tells of a line in the log
        await trio.sleep(0.001)


@contextlib.contextmanager
def no_descriptor_beyond(fd: int) -> Iterator[None]:
    """Let this process open none with a higher number."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_all_who_call_are_taken_with_their_credentials(short_directory: Path, taker: Taker) -> None:
    async with accepting(short_directory, taker):
        with contextlib.ExitStack() as stack:
            for _ in range(2 * ACCEPTS + 1):
                stack.enter_context(call(short_directory))
            await taker.wait_for(2 * ACCEPTS + 1)
    assert {(peer.pid, peer.uid) for peer in taker.peers} == {(os.getpid(), os.geteuid())}


async def test_who_is_refused_is_closed_and_the_next_is_taken(
    short_directory: Path, taker: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    async with accepting(short_directory, taker):
        taker.refusal = OSError(errno.ENOSPC, "no room")
        with call(short_directory) as refused:
            await trio.lowlevel.wait_readable(refused)
            assert refused.recv(1) == b""
        assert "the door: a connection could not be taken" in caplog.text
        taker.refusal = None
        with call(short_directory):
            await taker.wait_for(1)


async def test_without_descriptors_it_pauses_and_takes_all_later(
    short_directory: Path, taker: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        async with accepting(short_directory, taker):
            callers = [stack.enter_context(call(short_directory)) for _ in range(10)]
            with no_descriptor_beyond(max(caller.fileno() for caller in callers)):
                await wait_for_log(caplog, "the door: not accepting for a moment")
                assert len(taker.taken) < 10
            await taker.wait_for(10)
    assert caplog.text.count("not accepting") <= 3  # it paused, and did not try again and again


async def test_a_pause_that_ends_after_the_close_begins_nothing_anew(
    short_directory: Path, taker: Taker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "EXHAUSTED_NS", 10_000_000)
    over = trio.Event()
    async with accepting(short_directory, taker) as (opened, plane):
        with call(short_directory) as caller:
            with no_descriptor_beyond(caller.fileno()):
                await wait_for_log(caplog, "not accepting")
                opened.close()
            plane.call_at(time.monotonic_ns() + acceptor.EXHAUSTED_NS, over.set)
            await over.wait()
    assert taker.taken == []
