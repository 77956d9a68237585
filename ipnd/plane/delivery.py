"""Who gets a run of frames, and what happens when a receiver is full: the rules of one network's data plane.

*Lossy*: a receiver has at most ``pool`` frames queued beyond what its socket holds, the newest are dropped and
counted. Since a healthy receiver may simply not have been scheduled, the sender is first held back for up to
``HOLD_NS``, as long as the receiver has credit: what it takes earns credit, being waited for costs it, so that a
slow or stuck member cannot hold the others for more than a few per cent of the time.

*Lossless*: at most ``pool`` frames wait in the whole network, each counted once however many receive it. When the
pool is full, what a sender has sent stays where it is: in its backlog (the rest of the last read) and its socket.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final

from ipn.framing import PREFIX

from .batch import Ends
from .links import ATOMIC, Claim, Link
from .port import Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plane import Plane

HOLD_NS: Final = 2_000_000
"""Longest that a sender is held back for one full receiver, before frames are dropped."""
CREDIT_NS: Final = 40_000_000
"""Most credit a receiver can have: in all its life a stuck one holds the others no longer than this."""
EARN_PER_BYTE: Final = 1
"""Nanoseconds of waiting that a receiver earns by each byte it takes: who drains 1 GB/s is always waited for."""
EARN_PER_FRAME: Final = 200
"""The same for each frame: a program that only counts 64-byte frames takes some 5 million a second."""
EARN_BY_TIME: Final = 64
"""A receiver that takes anything at all earns one part in so many of the time that passes."""
HELD_BYTES: Final = 1024 * 1024
"""Most bytes beyond the pool that may wait in one queue while senders are held for it."""


class Delivery:
    """The data plane of one network. ``route_of`` gives a port's receivers, ``leave`` takes a port out."""

    def __init__(
        self,
        plane: Plane,
        *,
        mtu: int,
        pool: int,
        lossless: bool,
        route_of: Callable[[Port], tuple[Link, ...]],
        leave: Callable[[Port, str], None],
        half_closed: Callable[[Port], None],
    ) -> None:
        self.plane = plane
        self.mtu = mtu
        self.pool = pool
        self.lossless = lossless
        self.pending = 0
        self._route_of = route_of
        self._leave = leave
        self._half_closed = half_closed
        self._blocked: deque[Link] = deque()
        self._dead: list[Link] = []
        self._resuming = False

    def forward(self, source: Link, view: memoryview, ends: Ends) -> None:
        """Deliver a run of frames from ``source``."""
        port = source.port
        route = port.route
        if route is None:
            route = port.route = self._route_of(port)
        count = len(ends)
        port.rx_frames += count
        port.rx_bytes += len(view) - count * PREFIX
        self.plane.traffic = count
        if not self.lossless:
            for link in route:
                taken = 0 if link.queue else link.write(view, ends)
                if taken < count:
                    self._overflow(source, link, view, ends, taken)
        elif source.backlog is not None:
            data, old = source.backlog
            shift = len(data)
            source.backlog = data + bytes(view), [*old, *(end + shift for end in ends)]
        elif route:
            self._forward_lossless(source, route, view, ends)
        if self._dead:
            self.bury()

    # -- lossy -----------------------------------------------------------------------------------------------------

    def _overflow(self, source: Link, link: Link, view: memoryview, ends: Ends, taken: int) -> None:
        """``link`` took only ``taken`` frames: queue the rest, wait for it a moment, or drop."""
        count = len(ends)
        room = self.pool - link.queued
        keep = count
        if count - taken > room:
            if self._may_hold(link):
                self._hold(source, link)
            else:
                keep = taken + max(room, 0)
                link.port.dropped += count - keep
        if keep > taken:
            base = ends[taken - 1] if taken else 0
            data = bytes(view[base : ends[keep - 1]])
            link.enqueue(data, [end - base for end in ends[taken:keep]] if base else ends[taken:keep])

    def _may_hold(self, link: Link) -> bool:
        return link.queued_bytes < HELD_BYTES and (link.hold_since != 0 or link.credit_ns > 0)

    def _hold(self, source: Link, link: Link) -> None:
        if source in link.held:
            return
        link.held.append(source)
        source.holds += 1
        source.update_interest()
        if not link.hold_since:
            link.hold_since = time.monotonic_ns()
            self.plane.hold(link, link.hold_since + HOLD_NS)

    def hold_expired(self, link: Link) -> None:
        """The time to wait for ``link`` is over: what does not fit is dropped and its senders go on."""
        if link.hold_since and link.sock.fileno() >= 0:
            before = link.port.tx_bytes
            link.flush()
            if link.hold_since and link.port.tx_bytes > before and self._charge(link) > 0:
                link.hold_since = time.monotonic_ns()
                self.plane.hold(link, link.hold_since + HOLD_NS)
                return
            link.port.dropped += link.trim(self.pool)
        self._release(link)
        self.bury()

    def flushed(self, link: Link) -> None:
        """``link`` took some of its queue: its senders may go on once it is within the pool."""
        if link.hold_since and link.queued <= self.pool:
            self._release(link)
        if not self.lossless:
            return
        if not link.queue and link.port.blocked_since:
            link.port.blocked_ns += time.monotonic_ns() - link.port.blocked_since
            link.port.blocked_since = 0

    def _charge(self, link: Link) -> int:
        """Settle the account of a receiver that was waited for; return the credit left, in nanoseconds."""
        now = time.monotonic_ns()
        port = link.port
        frames, octets = port.tx_frames - link.settled_frames, port.tx_bytes - link.settled_bytes
        earned = octets * EARN_PER_BYTE + frames * EARN_PER_FRAME
        link.settled_frames, link.settled_bytes = port.tx_frames, port.tx_bytes
        if earned:
            earned += HOLD_NS // EARN_BY_TIME
        link.credit_ns = min(link.credit_ns + earned, CREDIT_NS) - (now - link.hold_since)
        return link.credit_ns

    def _release(self, link: Link) -> None:
        if link.hold_since:
            self._charge(link)
            link.hold_since = 0
        held, link.held = link.held, []
        for source in held:
            source.holds -= 1
            if not source.holds:
                self._go_on(source)

    def _go_on(self, source: Link) -> None:
        source.update_interest()
        if source.closing:
            self.plane.later(source.drain)

    # -- lossless --------------------------------------------------------------------------------------------------

    def _forward_lossless(self, source: Link, route: tuple[Link, ...], view: memoryview, ends: Ends) -> None:
        """Deliver as many frames as receivers and pool take; keep the rest as the source's backlog."""
        done, start, count = 0, 0, len(ends)
        while done < count:
            room = min(link.room() for link in route)
            upto = bisect_right(ends, start + room, done) if room else done
            if upto == done:
                left = self.pool - self.pending
                if left <= 0:
                    break
                upto = min(done + left, max(bisect_right(ends, start + ATOMIC, done), done + 1))
            stop = ends[upto - 1]
            piece = [end - start for end in ends[done:upto]] if start else ends[:upto]
            self._deliver_lossless(route, view[start:stop], piece)
            done, start = upto, stop
        if done < count:
            source.backlog = bytes(view[start:]), [end - start for end in ends[done:]]
            self._blocked.append(source)
            source.update_interest()
            self._blame(route)

    def _deliver_lossless(self, route: tuple[Link, ...], view: memoryview, ends: Ends) -> None:
        claim: Claim | None = None
        for link in route:
            before = link.queued
            taken = 0 if link.queue else link.write(view, ends)
            if taken == len(ends) and link.queued == before:
                continue
            if claim is None:
                claim = Claim(self, len(ends))
                self.pending += len(ends)
            if link.queued > before:  # the torn frame's rest, queued by the link itself
                claim.holders += 1
                link.queue[-1].claim = claim
            if taken < len(ends):
                base = ends[taken - 1] if taken else 0
                link.enqueue(bytes(view[base:]), [end - base for end in ends[taken:]], claim)

    def _blame(self, route: tuple[Link, ...]) -> None:
        now = time.monotonic_ns()
        for link in route:
            if link.queue and not link.port.blocked_since:
                link.port.blocked_since = now

    def pool_released(self, frames: int) -> None:
        """Messages left the pool: blocked senders may go on, in turn."""
        self.pending -= frames
        if self._blocked and not self._resuming:
            self.plane.later(self._resume)
            self._resuming = True

    def _resume(self) -> None:
        """Let the senders that were blocked go on, each with what it had left."""
        self._resuming = False
        for _ in range(len(self._blocked)):
            if self.pending >= self.pool:
                break
            source = self._blocked.popleft()
            if source.backlog is None or source.sock.fileno() < 0:
                continue
            data, ends = source.backlog
            source.backlog = None
            port = source.port
            route = port.route = port.route if port.route is not None else self._route_of(port)
            if route:
                self._forward_lossless(source, route, memoryview(data), ends)
            if source.backlog is None:
                self._go_on(source)
        self.bury()

    # -- coming and going ------------------------------------------------------------------------------------------

    def admit(self, link: Link) -> None:
        """A member's link is there: it begins with full credit."""
        link.credit_ns = CREDIT_NS

    def routes_changed(self) -> None:
        """Receivers came, went or changed: blocked senders may have nobody left to wait for."""
        if self._blocked and not self._resuming:
            self.plane.later(self._resume)
            self._resuming = True

    def end_of_input(self, link: Link) -> None:
        """The member of ``link`` will send no more."""
        link.update_interest()
        if link.closing or link.hung_up:
            self._leave(link.port, "left")
        else:
            self._half_closed(link.port)

    def gone(self, link: Link) -> None:
        """The member of ``link`` has closed its socket."""
        self._leave(link.port, "left")

    def broken(self, link: Link) -> None:
        """Writing to ``link`` failed: its member is gone. It leaves once the current batch is dealt with."""
        if link not in self._dead:
            self._dead.append(link)

    def bury(self) -> None:
        """Take out the members to whom writing failed."""
        if not self._dead:
            return
        dead, self._dead = self._dead, []
        for link in dead:
            if link.sock.fileno() < 0:
                continue
            # It may have closed only its reading half, or left frames to read behind: input decides when it goes.
            self.deaf(link)
            if not link.reading and link.sock.fileno() >= 0:
                self._leave(link.port, "left")

    def deaf(self, link: Link) -> None:
        """The member of ``link`` will read no more: what is queued for it must not hold anybody."""
        link.discard()
        self._release(link)
        if link.port.reader:
            link.port.reader = False
            self._half_closed(link.port)
        link.update_interest()

    def forget(self, link: Link) -> None:
        """``link`` is about to be closed: nothing may wait for it, or be held for it, any more."""
        self._release(link)
        link.hold_since = 0
        if link.holds:
            for other in self.plane.holders():
                if link in other.held:
                    other.held.remove(link)
            link.holds = 0
        if link in self._blocked:
            self._blocked.remove(link)
        link.backlog = None
