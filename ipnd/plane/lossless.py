"""Lossless networks: nothing is ever lost, and who sends waits for the slowest.

At most ``pool`` frames wait in the whole network, each counted once however many receive it. When the pool is full,
what a sender has sent stays where it is: in its backlog (the rest of the last read) and its socket.

Cables are senders, too, and there a full pool must not be the last word: full of frames that wait for a cable, and that
of the other network as well, neither would ever move. What a cable brings may therefore go beyond the pool to
receivers for whom nothing waits, a frame each, so that it waits for receivers only, never for what goes the other way.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import Any

from ipn.framing import LENGTH, PREFIX

from .batch import Ends
from .delivery import BULK_FRAMES, Delivery, Unfinished
from .links import ATOMIC, Claim, Link
from .routes import Bundle, Route, Span


class LosslessDelivery(Delivery):
    """The data plane of a lossless network. ``pending``: frames in the pool."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._blocked: deque[Link] = deque()
        self._resuming = False
        self._links: set[Link] = set()
        self._cables = 0

    def _forward(self, source: Link, view: memoryview, ends: Ends) -> None:
        """Deliver as many frames as receivers and pool take; keep the rest as the source's backlog."""
        found = self._spans(source, view, ends)
        done = self._all_at_once(found, view, ends)
        for route, first, upto in found if done == 0 else ():
            start = ends[first - 1] if first else 0
            if route.plain:
                frames = [end - start for end in ends[first:upto]] if start else ends[:upto]
                done += self._run(source, route.links, view[start : ends[upto - 1]], frames)
            elif route.reason is not None:
                self.rules.drop(route.reason, upto - first)
                done += upto - first
            else:
                done += self._change(source, route, view, ends, first, upto)
            if done < upto:
                self._block(source, route, view, ends, done)
                break
        self.rules.settle()

    def _send_unfinished(self, source: Link, route: Route, run: Unfinished) -> None:
        """Send unfinished frames whole if all receivers can take them now; else everybody gets them finished."""
        if not route.unable and not any(link.queue for link in route.able):
            done = {link: link.write_unfinished(run) for link in route.able}
            for link, upto in done.items():
                if upto < run.upto:
                    rest, ends = self._finished(run.view, run.ends, run.headers, upto, run.upto)
                    if ends:
                        self._deliver((link,), rest, ends)
            return
        data, cuts = self._finished(run.view, run.ends, run.headers, run.first, run.upto)
        if cuts:
            self._forward(source, data, cuts)

    def _send_one(self, links: tuple[Link, ...], view: memoryview, ends: Ends) -> None:
        self._deliver(links, view, ends)

    def _all_at_once(self, found: list[Span], view: memoryview, ends: Ends) -> int:
        """Deliver a batch of several routes, one write a receiver, if all surely have room; return the frames done."""
        if len(found) < 2 or not all(route.plain for route, _, _ in found):
            return 0
        bundles: dict[Link, Bundle] = {}
        for route, first, upto in found:
            start = ends[first - 1] if first else 0
            for link in route.links:
                bundles.setdefault(link, Bundle()).add(view, start, ends, first, upto)
        if any(bundle.size > link.room() for link, bundle in bundles.items()):
            return 0
        for link, bundle in bundles.items():
            self._deliver((link,), bundle.data(), bundle.ends)
        return len(ends)

    def _change(
        self, source: Link, route: Route, view: memoryview, ends: Ends, first: int, upto: int
    ) -> int:
        """Deliver frames that the policy changes, one by one while the pool has room; return how many."""
        start = ends[first - 1] if first else 0
        for index in range(first, upto):
            if self.pending >= self.pool and not self._may_exceed(source, self._receivers(source, route)):
                return index - first
            end = ends[index]
            for links, frame in self._changed(source, route, bytes(view[start + PREFIX : end])):
                data = LENGTH.pack(len(frame)) + frame
                self._deliver(links, memoryview(data), (len(data),))
            start = end
        return upto - first

    def _receivers(self, source: Link, route: Route) -> Iterable[Link]:
        """Return who may get frames on a route that is not plain: anybody else, where the policy is yet to be asked."""
        if route.ask:
            return self._links - {source}
        return chain(route.links, *(links for links, _ in route.changed))

    def _may_exceed(self, source: Link, links: Iterable[Link]) -> bool:
        """Return whether a frame from ``source`` may go to ``links`` although the pool is full."""
        return source.relays and not any(link.queue for link in links)

    def _block(self, source: Link, route: Route, view: memoryview, ends: Ends, done: int) -> None:
        """Keep what did not go, and do not read from the source until the pool has room."""
        start = ends[done - 1] if done else 0
        source.backlog = bytes(view[start:]), [end - start for end in ends[done:]]
        self._blocked.append(source)
        source.update_interest()
        self._blame(route.links)

    def _run(self, source: Link, links: tuple[Link, ...], view: memoryview, ends: Ends) -> int:
        """Deliver a run to ``links`` as far as they and the pool take it; return the frames done."""
        done, start, count = 0, 0, len(ends)
        if count >= BULK_FRAMES and len(links) == 1:
            self.plane.bulk_receiver = links[0].receiver
        while done < count and links:
            room = min(link.room() for link in links)
            upto = bisect_right(ends, start + room, done) if room else done
            if upto == done:
                left = self.pool - self.pending
                if left <= 0 and self._may_exceed(source, links):
                    left = 1
                if left <= 0:
                    return done
                upto = min(done + left, max(bisect_right(ends, start + ATOMIC, done), done + 1))
            stop = ends[upto - 1]
            piece = [end - start for end in ends[done:upto]] if start else ends[:upto]
            self._deliver(links, view[start:stop], piece)
            done, start = upto, stop
        return count

    def _deliver(self, route: tuple[Link, ...], view: memoryview, ends: Ends) -> None:
        claim: Claim | None = None
        for link in route:
            before = link.queued
            taken = 0 if link.queue else link.write(view, ends)
            if taken == len(ends) and link.queued == before:
                continue
            if claim is None:
                claim = Claim(self, len(ends))
                claim.holders = 1  # ours, until all of them have theirs
                self.pending += len(ends)
            if link.queued > before:  # the torn frame's rest, queued by the link itself
                claim.holders += 1
                link.queue[-1].claim = claim
            if taken < len(ends):
                base = ends[taken - 1] if taken else 0
                link.enqueue(bytes(view[base:]), [end - base for end in ends[taken:]], claim)
        if claim is not None:
            claim.release()

    def _blame(self, route: tuple[Link, ...]) -> None:
        now = time.monotonic_ns()
        for link in route:
            if link.queue and not link.port.blocked_since:
                link.port.blocked_since = now

    def pool_released(self, frames: int) -> None:
        """Messages left the pool: blocked senders may go on, in turn."""
        self.pending -= frames
        self._resume_soon()

    def _resume_soon(self) -> None:
        if self._blocked and not self._resuming:
            self.plane.later(self._resume)
            self._resuming = True

    def _resume(self) -> None:
        """Let the senders that were blocked go on, each with what it had left."""
        self._resuming = False
        for _ in range(len(self._blocked)):
            if self.pending >= self.pool:
                break
            self._retry(self._blocked.popleft())
        if self._cables:
            self._resume_cables()
        self.bury()

    def _resume_cables(self) -> None:
        """Let blocked cables go on as far as they may go beyond the pool; one that cannot, keeps its turn."""
        for source in [source for source in self._blocked if source.relays]:
            at, had = self._blocked.index(source), source.backlog
            del self._blocked[at]
            self._retry(source)
            if had is not None and source.backlog is not None and len(source.backlog[1]) == len(had[1]):
                self._blocked.pop()
                self._blocked.insert(at, source)

    def _retry(self, source: Link) -> None:
        if source.backlog is None or source.sock.fileno() < 0:
            return
        data, ends = source.backlog
        source.backlog = None
        self.plane.depth = source.depth
        self._forward(source, memoryview(data), ends)
        if source.backlog is None:
            self._go_on(source)

    def flushed(self, link: Link) -> None:
        """``link`` took some of its queue: with the last of it, nobody is blocked by it any more."""
        if not link.queue and link.port.blocked_since:
            link.port.blocked_ns += time.monotonic_ns() - link.port.blocked_since
            link.port.blocked_since = 0
        if self._cables and not link.queue:
            self._resume_soon()

    # -- coming and going --------------------------------------------------------------------------------------------

    def admit(self, link: Link) -> None:
        """A member's link is there."""
        self._links.add(link)
        self._cables += link.relays

    def routes_changed(self) -> None:
        """Receivers came, went or changed: blocked senders may have nobody left to wait for."""
        self._resume_soon()

    def forget(self, link: Link) -> None:
        """``link`` is about to be closed: it waits for nobody any more."""
        if link in self._links:
            self._links.remove(link)
            self._cables -= link.relays
        if link in self._blocked:
            self._blocked.remove(link)
        link.backlog = None
