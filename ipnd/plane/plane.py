"""The loop of the data plane: one epoll over all data sockets and listeners, driven by one trio task.

trio waits for the epoll descriptor itself; inside one wake-up the plane works synchronously until all is quiet
or ``TURN_NS`` have passed, then gives way to the control plane. While traffic flows it lingers in ``epoll_wait``
for a millisecond instead of going back to trio at once, which halves the round trip.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import time
from collections.abc import Callable, Iterable
from typing import Final

import trio

from .links import Link
from .mmsg import Receiver, Sender
from .nearness import Nearness

EventHandler = Callable[[int], None]

TURN_NS: Final = 2_000_000
"""Longest time the plane works before other tasks get their turn."""
LINGER: Final = 0.001
"""Seconds to stay in ``epoll_wait`` for more traffic (its finest unit), once there was some."""
SPIN_NS: Final = 100_000
"""Nanoseconds to look again and again rather than sleep, when the last answer came within that time: putting a
processor to sleep and waking it costs a round trip more than anything the daemon does."""
SPIN_FRAMES: Final = 8
"""Only conversations are worth that; batches of more frames than this are bulk traffic, which can wait."""
EVENTS: Final = 256
"""Events taken from the kernel at once."""
SCRATCH: Final = 256 * 1024
"""Bytes read from one member at once: the batch."""


class Plane:
    """Owns the epoll descriptor and the scratch buffer. ``fault`` is told of a handler's exception and decides."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, EventHandler] = {}
        self._later: list[Callable[[], None]] = []
        self._holds: dict[Link, int] = {}
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._working = False
        self.nearness = Nearness()
        self.bulk_receiver = 0
        self.traffic = 0
        self.depth = 0  # hops over cables that the frames being delivered have come
        self._spin_ns = 0
        self.scratch = bytearray(SCRATCH)
        self.scratch_view = memoryview(self.scratch)
        self.scratch_size = SCRATCH
        self.receiver, self.sender = Receiver(self.scratch), Sender()
        self.on_fault: Callable[[EventHandler, Exception], None] = _raise_it
        self.register(self._nudge, select.EPOLLIN, self._nudged)

    # -- registration ----------------------------------------------------------------------------------------------

    def register(self, fd: int, mask: int, handler: EventHandler) -> None:
        """Call ``handler(events)`` when ``fd`` is ready for ``mask`` (EPOLLHUP and EPOLLERR always)."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def modify(self, fd: int, mask: int) -> None:
        """Change what ``fd`` waits for."""
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Forget ``fd``; before it is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def later(self, function: Callable[[], None]) -> None:
        """Call ``function`` after the current events."""
        self._later.append(function)
        self._wake()

    def call_at(self, when_ns: int, function: Callable[[], None]) -> None:
        """Call ``function`` at ``when_ns`` of ``time.monotonic_ns`` or soon after."""
        heapq.heappush(self._timers, (when_ns, next(self._sequence), function))
        self._wake()

    def _wake(self) -> None:
        """End the wait of the loop's task when another task gave it something to do."""
        if not self._working:
            os.eventfd_write(self._nudge, 1)

    def _nudged(self, mask: int) -> None:
        os.eventfd_read(self._nudge)

    def hold(self, link: Link, until_ns: int) -> None:
        """Tell ``link``'s delivery when its hold expires, unless it is released before."""
        self._holds[link] = until_ns

    def holders(self) -> Iterable[Link]:
        """Return the links that senders are held for."""
        return list(self._holds)

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work for ever. Cancel to stop."""
        fd = self._epoll.fileno()
        while True:
            await self._wait(fd)
            self._working = True
            try:
                self._turn()
            finally:
                self._working = False
            self._stay_near()

    def _stay_near(self) -> None:
        """Look after the placement, and once more when the traffic has ended."""
        if self.nearness.consider(time.monotonic_ns(), self.bulk_receiver):
            self.bulk_receiver = 0
            if self.nearness.near:
                self._working = True  # no need to wake a loop that is about to look at its timers
                self.call_at(self.nearness.next_ns, _nothing)
                self._working = False

    async def _wait(self, fd: int) -> None:
        if self._later or self._holds:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope() as scope:
            if self._timers:
                scope.relative_deadline = max(0.0, (self._timers[0][0] - time.monotonic_ns()) / 1e9)
            await trio.lowlevel.wait_readable(fd)

    def _turn(self) -> None:
        """Work until all is quiet, and after traffic for ``LINGER`` more, or until the turn is over."""
        last = now = time.monotonic_ns()
        end = now + TURN_NS
        self.traffic = 0
        poll = self._epoll.poll
        handlers = self._handlers
        timeout = 0.0
        while True:
            events = poll(timeout, EVENTS)
            for fd, mask in events:
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler(mask)
                    except Exception as error:  # noqa: BLE001 - the border where blame is decided
                        self.on_fault(handler, error)
            if self._later:
                self._run_later()
            now = time.monotonic_ns()
            if self._holds:
                self._expire(now)
            if self._timers and self._timers[0][0] <= now:
                self._run_timers(now)
            if now >= end:
                return
            if events:
                timeout = 0.0
                if now - last < SPIN_NS and self.traffic <= SPIN_FRAMES:
                    self._spin_ns = SPIN_NS
                last = now
            elif self._later:
                timeout = 0.0
            elif self._holds:
                timeout = LINGER
            elif timeout or not self.traffic:
                return
            elif now - last >= self._spin_ns or self.traffic > SPIN_FRAMES:
                self._spin_ns = 0
                timeout = LINGER
            else:
                os.sched_yield()  # to whom we just woke, if the kernel put it on our own core

    def _run_later(self) -> None:
        """Do what was put off until now; what that puts off has its turn after who has waited meanwhile."""
        work, self._later = self._later, []
        for function in work:
            function()

    def _expire(self, now: int) -> None:
        for link, until in list(self._holds.items()):
            if not link.hold_since:
                del self._holds[link]
            elif until <= now:
                del self._holds[link]
                link.delivery.hold_expired(link)

    def _run_timers(self, now: int) -> None:
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        """Close the descriptors."""
        self._epoll.close()
        os.close(self._nudge)


def _nothing() -> None:
    """A timer's function when waking the loop is all it is for."""


def _raise_it(handler: EventHandler, error: Exception) -> None:
    raise error
