"""Lossy networks: who is too slow loses frames, and nobody else notices.

A receiver has at most ``pool`` frames queued beyond what its socket holds, the newest are dropped and counted.
Since a healthy receiver may simply not have been scheduled, the sender is first held back for up to ``HOLD_NS``,
as long as the receiver has credit: what it takes earns credit, being waited for costs it, so that a slow or stuck
member cannot hold the others for more than a few per cent of the time.
"""

from __future__ import annotations

import time
from typing import Final

from ipn.framing import PREFIX

from .batch import Ends
from .delivery import BULK_FRAMES, Delivery, Unfinished
from .links import Link
from .routes import Bundle, Route

HOLD_NS: Final = 2_000_000
"""Longest that a sender is held back for one full receiver, before frames are dropped."""
MORE_HOLDS: Final = 3
"""How often that time is given again to a receiver that has credit left, although it took nothing."""
CREDIT_NS: Final = 20_000_000
"""Most credit a receiver can have: in all its life a stuck one holds the others no longer than this."""
EARN_PER_BYTE: Final = 1
"""Nanoseconds of waiting that a receiver earns by each byte it takes: who drains 1 GB/s is always waited for."""
EARN_PER_FRAME: Final = 200
"""The same for each frame: a program that only counts 64-byte frames takes some 5 million a second."""
EARN_BY_TIME: Final = 64
"""A receiver that takes anything at all earns one part in so many of the time that passes."""
HELD_BYTES: Final = 1024 * 1024
"""Most bytes beyond the pool that may wait in one queue while senders are held for it."""


class LossyDelivery(Delivery):
    """The data plane of a lossy network."""

    def _forward(self, source: Link, view: memoryview, ends: Ends) -> None:
        """Deliver a run; what one receiver gets of it goes in one write."""
        if source.port.route is not None:
            self._send(source, source.port.route.links, view, ends)
            return
        found = self._spans(source, view, ends)
        if len(found) == 1 and found[0][0].plain:
            self._send(source, found[0][0].links, view, ends)
            return
        bundles: dict[Link, Bundle] = {}
        for route, first, upto in found:
            start = ends[first - 1] if first else 0
            if route.plain:
                for link in route.links:
                    bundle = bundles.get(link)
                    if bundle is None:
                        bundle = bundles[link] = Bundle()
                    bundle.add(view, start, ends, first, upto)
            elif route.reason is not None:
                self.rules.drop(route.reason, upto - first)
            else:
                for index in range(first, upto):
                    end = ends[index]
                    for links, frame in self._changed(source, route, bytes(view[start + PREFIX : end])):
                        for link in links:
                            bundles.setdefault(link, Bundle()).add_frame(frame)
                    start = end
        for link, bundle in bundles.items():
            self._send(source, (link,), bundle.data(), bundle.ends)
        self.rules.settle()

    def _send(self, source: Link, links: tuple[Link, ...], view: memoryview, ends: Ends) -> None:
        count = len(ends)
        if count >= BULK_FRAMES and len(links) == 1:
            self.plane.bulk_receiver = links[0].receiver
        for link in links:
            taken = 0 if link.queue else link.write(view, ends)
            if taken < count:
                self._overflow(source, link, view, ends, taken)

    def _send_unfinished(self, source: Link, route: Route, run: Unfinished) -> None:
        """Send unfinished frames whole to who can take them, finished to the others."""
        if route.unable:
            data, cuts = self._finished(run.view, run.ends, run.headers, run.first, run.upto)
            if cuts:
                self._send(source, route.unable, data, cuts)
        for link in route.able:
            done = run.first if link.queue else link.write_unfinished(run)
            if done < run.upto:
                rest, ends = self._finished(run.view, run.ends, run.headers, done, run.upto)
                if ends:
                    self._overflow(source, link, rest, ends, 0)

    def _send_one(self, links: tuple[Link, ...], view: memoryview, ends: Ends) -> None:
        for link in links:
            if not link.queue and link.write(view, ends):
                continue
            if link.queued < self.pool:
                link.enqueue(bytes(view), ends)
            else:
                link.port.dropped += 1

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
            link.patience = MORE_HOLDS
            self.plane.hold(link, link.hold_since + HOLD_NS)

    def hold_expired(self, link: Link) -> None:
        """The time to wait for ``link`` is over: what does not fit is dropped and its senders go on."""
        if link.hold_since and link.sock.fileno() >= 0:
            before = link.port.tx_bytes
            link.flush()
            link.patience = MORE_HOLDS if link.port.tx_bytes > before else link.patience - 1
            if link.hold_since and self._charge(link) > 0 and link.patience >= 0:
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

    # -- coming and going --------------------------------------------------------------------------------------------

    def admit(self, link: Link) -> None:
        """A member's link is there: it begins with full credit."""
        link.credit_ns = CREDIT_NS

    def forget(self, link: Link) -> None:
        """``link`` is about to be closed: nothing may wait for it, or be held for it, any more."""
        self._release(link)
        link.hold_since = 0
        if link.holds:
            for other in self.plane.holders():
                if link in other.held:
                    other.held.remove(link)
            link.holds = 0
