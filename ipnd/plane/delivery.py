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
from typing import TYPE_CHECKING, Final, Protocol

from ipn.framing import LENGTH, PREFIX

from .batch import Ends
from .links import ATOMIC, Claim, Link
from .port import Port
from .routes import Bundle, Route, Span, spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plane import Plane

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
BULK_FRAMES: Final = 32
"""Frames in a batch from which on traffic counts as bulk."""
MAX_DEPTH: Final = 8
"""Hops over cables and injections after which a frame is dropped, so that loops end (AF_IPN: "like EMLINK")."""
ASK_EACH: Final = Route(ask=True)
"""The route of every frame under a policy that declares no key."""


class Rules(Protocol):
    """What a network's delivery asks: the policy, in the plane's terms."""

    @property
    def key_bytes(self) -> int | None:
        """Leading bytes of a frame that decisions depend on; 0: only the port; None: each frame is its own case."""

    def resolve(self, port: Port, head: bytes) -> Route:
        """Decide on all frames from ``port`` that begin with ``head``, and remember it in ``port.known``."""

    def ask(self, port: Port, frame: bytes, depth: int) -> Route:
        """Decide on one frame."""

    def drop(self, reason: str, frames: int) -> None:
        """Count frames that nobody gets."""

    def settle(self) -> None:
        """Do what the policy asked for besides answering."""


class Delivery:
    """The data plane of one network. ``leave`` takes a port out, ``half_closed`` hears of a direction that ended."""

    def __init__(
        self,
        plane: Plane,
        *,
        mtu: int,
        pool: int,
        lossless: bool,
        rules: Rules,
        leave: Callable[[Port, str], None],
        half_closed: Callable[[Port], None],
    ) -> None:
        self.plane = plane
        self.mtu = mtu
        self.pool = pool
        self.lossless = lossless
        self.rules = rules
        self.pending = 0
        self._leave = leave
        self._half_closed = half_closed
        self._blocked: deque[Link] = deque()
        self._dead: list[Link] = []
        self._resuming = False

    def forward(self, source: Link, view: memoryview, ends: Ends) -> None:
        """Deliver a run of frames from ``source``."""
        port = source.port
        count = len(ends)
        port.rx_frames += count
        port.rx_bytes += len(view) - count * PREFIX
        self.plane.traffic = count
        if self.lossless:
            if source.backlog is None:
                self._forward_lossless(source, view, ends)
            else:
                data, old = source.backlog
                shift = len(data)
                source.backlog = data + bytes(view), [*old, *(end + shift for end in ends)]
        else:
            route = port.route
            if route is None:
                self._forward_lossy(source, view, ends)
            else:
                self._send_lossy(source, route.links, view, ends)
        if self._dead:
            self.bury()

    def inject(self, port: Port, frame: bytes, depth: int) -> None:
        """Let one frame enter as if ``port`` had sent it, ``depth`` hops from where it began.

        A lossless network does not wait for it: what it takes beyond the pool is the policy's own doing.
        """
        if depth > MAX_DEPTH:
            self.rules.drop("hop limit", 1)
            return
        route = self.rules.ask(port, frame, depth)
        if route.reason is not None:
            self.rules.drop(route.reason, 1)
        for links, edit in ((route.links, None), *route.changed):
            self.send(links, frame if edit is None else edit(frame))

    def send(self, links: tuple[Link, ...], frame: bytes) -> None:
        """Send one frame to some members, waiting for nobody."""
        if not 0 < len(frame) <= self.mtu:
            self.rules.drop("longer than the mtu", 1)
            return
        data = LENGTH.pack(len(frame)) + frame
        view, ends = memoryview(data), (len(data),)
        if self.lossless:
            self._deliver_lossless(links, view, ends)
            return
        for link in links:
            if not link.queue and link.write(view, ends):
                continue
            if link.queued < self.pool:
                link.enqueue(data, ends)
            else:
                link.port.dropped += 1

    def _spans(self, source: Link, view: memoryview, ends: Ends) -> list[Span]:
        """Return which frames of a run go which way."""
        port, octets = source.port, self.rules.key_bytes
        if octets is None:
            return [(ASK_EACH, 0, len(ends))]
        if octets == 0:
            route = port.known.get(b"") or self.rules.resolve(port, b"")
            if route.plain:
                port.route = route
            return [(route, 0, len(ends))]
        at = source.run_at if view.obj is self.plane.scratch else -1
        return spans(view, ends, octets, port.known, lambda head: self.rules.resolve(port, head), at)

    def _changed(self, source: Link, route: Route, frame: bytes) -> list[tuple[tuple[Link, ...], bytes]]:
        """Return who gets what for one frame on a route that is not plain."""
        if route.ask:
            route = self.rules.ask(source.port, frame, 0)
        if route.reason is not None:
            self.rules.drop(route.reason, 1)
            return []
        sent = [(route.links, frame)] if route.links else []
        for links, edit in route.changed:
            edited = edit(frame)
            if 0 < len(edited) <= self.mtu:
                sent.append((links, edited))
            else:
                self.rules.drop("longer than the mtu", 1)
        return sent

    # -- lossy -----------------------------------------------------------------------------------------------------

    def _forward_lossy(self, source: Link, view: memoryview, ends: Ends) -> None:
        found = self._spans(source, view, ends)
        if len(found) == 1 and found[0][0].plain:
            self._send_lossy(source, found[0][0].links, view, ends)
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
            self._send_lossy(source, (link,), bundle.data(), bundle.ends)
        self.rules.settle()

    def _send_lossy(self, source: Link, links: tuple[Link, ...], view: memoryview, ends: Ends) -> None:
        count = len(ends)
        if count >= BULK_FRAMES and len(links) == 1:
            self.plane.bulk_receiver = links[0].port.peer.pid
        for link in links:
            taken = 0 if link.queue else link.write(view, ends)
            if taken < count:
                self._overflow(source, link, view, ends, taken)

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

    def _forward_lossless(self, source: Link, view: memoryview, ends: Ends) -> None:
        """Deliver as many frames as receivers and pool take; keep the rest as the source's backlog."""
        found = self._spans(source, view, ends)
        done = self._all_at_once(found, view, ends)
        for route, first, upto in found if done == 0 else ():
            start = ends[first - 1] if first else 0
            if route.plain:
                frames = [end - start for end in ends[first:upto]] if start else ends[:upto]
                done += self._run_lossless(route.links, view[start : ends[upto - 1]], frames)
            elif route.reason is not None:
                self.rules.drop(route.reason, upto - first)
                done += upto - first
            else:
                done += self._change_lossless(source, route, view, ends, first, upto)
            if done < upto:
                self._block(source, route, view, ends, done)
                break
        self.rules.settle()

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
            self._deliver_lossless((link,), bundle.data(), bundle.ends)
        return len(ends)

    def _change_lossless(
        self, source: Link, route: Route, view: memoryview, ends: Ends, first: int, upto: int
    ) -> int:
        """Deliver frames that the policy changes, one by one while the pool has room; return how many."""
        start = ends[first - 1] if first else 0
        for index in range(first, upto):
            if self.pending >= self.pool:
                return index - first
            end = ends[index]
            for links, frame in self._changed(source, route, bytes(view[start + PREFIX : end])):
                data = LENGTH.pack(len(frame)) + frame
                self._deliver_lossless(links, memoryview(data), (len(data),))
            start = end
        return upto - first

    def _block(self, source: Link, route: Route, view: memoryview, ends: Ends, done: int) -> None:
        """Keep what did not go, and do not read from the source until the pool has room."""
        start = ends[done - 1] if done else 0
        source.backlog = bytes(view[start:]), [end - start for end in ends[done:]]
        self._blocked.append(source)
        source.update_interest()
        self._blame(route.links)

    def _run_lossless(self, links: tuple[Link, ...], view: memoryview, ends: Ends) -> int:
        """Deliver a run to ``links`` as far as they and the pool take it; return the frames done."""
        done, start, count = 0, 0, len(ends)
        if count >= BULK_FRAMES and len(links) == 1:
            self.plane.bulk_receiver = links[0].port.peer.pid
        while done < count and links:
            room = min(link.room() for link in links)
            upto = bisect_right(ends, start + room, done) if room else done
            if upto == done:
                left = self.pool - self.pending
                if left <= 0:
                    return done
                upto = min(done + left, max(bisect_right(ends, start + ATOMIC, done), done + 1))
            stop = ends[upto - 1]
            piece = [end - start for end in ends[done:upto]] if start else ends[:upto]
            self._deliver_lossless(links, view[start:stop], piece)
            done, start = upto, stop
        return count

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
            self._forward_lossless(source, memoryview(data), ends)
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
