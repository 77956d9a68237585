"""Who gets a run of frames: the part of one network's data plane that lossy and lossless networks share.

Runs come from links, the policy (``Rules``) says which way each frame goes, and ``lossy`` or ``lossless`` says what
happens when a receiver is full. Interfaces may bring *unfinished* frames, which the host's kernel left to be cut or
checksummed by whoever sends them on: these cross whole between links that can take them and are finished for others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from ipn.framing import LENGTH, PREFIX

from .batch import Ends
from .links import Link
from .offload import finish_run
from .port import Port
from .routes import Route, Span, spans

if TYPE_CHECKING:
    from .plane import Plane

BULK_FRAMES: Final = 32
"""Frames in a batch from which on traffic counts as bulk."""
BULK_OCTETS: Final = 1024
"""An unfinished frame counts as one for each so many of its bytes: it stands for many."""
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


class Unfinished:
    """Frames ``first`` to ``upto`` - 1 of a run, with the headers of those that are unfinished, by index in the run."""

    __slots__ = ("ends", "first", "headers", "upto", "view")

    def __init__(self, view: memoryview, ends: Ends, headers: Mapping[int, bytes], first: int, upto: int) -> None:
        self.view = view
        self.ends = ends
        self.headers = headers
        self.first = first
        self.upto = upto


class Delivery:
    """The data plane of one network. ``leave`` takes a port out, ``half_closed`` hears of a direction that ended."""

    def __init__(
        self,
        plane: Plane,
        *,
        mtu: int,
        pool: int,
        rules: Rules,
        leave: Callable[[Port, str], None],
        half_closed: Callable[[Port], None],
    ) -> None:
        self.plane = plane
        self.mtu = mtu
        self.pool = pool
        self.rules = rules
        self.pending = 0
        self.whole_bytes = self.finished_bytes = 0
        self._leave = leave
        self._half_closed = half_closed
        self._dead: list[Link] = []

    def forward(self, source: Link, view: memoryview, ends: Ends) -> None:
        """Deliver a run of frames from ``source``."""
        port = source.port
        count = len(ends)
        port.rx_frames += count
        port.rx_bytes += len(view) - count * PREFIX
        self.plane.traffic = count
        self.plane.depth = source.depth
        if port.inlet is not None:
            port.inlet.take(view, ends)
        elif source.backlog is None:
            self._forward(source, view, ends)
        else:
            source.leave_for_later(view, ends)
        if self._dead:
            self.bury()

    def forward_again(self, source: Link, view: memoryview, ends: Ends) -> None:
        """Deliver a run that ``forward`` has left to the inlet of an impaired port; who calls it buries the dead."""
        if source.backlog is None:
            self._forward(source, view, ends)
        else:
            source.leave_for_later(view, ends)

    def forward_unfinished(self, source: Link, view: memoryview, ends: Ends, headers: Mapping[int, bytes]) -> None:
        """Deliver a run in which the frames whose index is in ``headers`` (struct virtio_net_hdr) are unfinished."""
        port = source.port
        count = len(ends)
        port.rx_frames += count
        port.rx_bytes += len(view) - count * PREFIX
        self.plane.traffic = max(count, len(view) // BULK_OCTETS)
        self.plane.depth = source.depth
        if port.inlet is not None:
            data, cuts = self._finished(view, ends, headers, 0, count)
            if cuts:
                port.inlet.take(data, cuts)
        elif source.backlog is None:
            for route, first, upto in self._spans(source, view, ends):
                if source.backlog is not None:
                    source.leave_for_later(*self._finished(view, ends, headers, first, count))
                    break
                if route.plain and route.able:
                    if self.plane.traffic >= BULK_FRAMES and len(route.links) == 1:
                        self.plane.bulk_receiver = os.getpid()  # the host's stack works in our own time
                    self._send_unfinished(source, route, Unfinished(view, ends, headers, first, upto))
                elif route.reason is not None:
                    self.rules.drop(route.reason, upto - first)
                elif not route.plain or route.links:
                    # Decided anew: what a policy sees of the headers may have changed.
                    data, cuts = self._finished(view, ends, headers, first, upto)
                    if cuts:
                        self._forward(source, data, cuts)
            self.rules.settle()
        else:
            source.leave_for_later(*self._finished(view, ends, headers, 0, count))
        if self._dead:
            self.bury()

    def _finished(
        self, view: memoryview, ends: Ends, headers: Mapping[int, bytes], first: int, upto: int
    ) -> tuple[memoryview, Ends]:
        """Return frames ``first`` to ``upto`` - 1 as a run of frames that anybody can take."""
        data, cuts, broken = finish_run(view, ends, headers, first, upto)
        self.finished_bytes += len(data)
        if broken:
            self.rules.drop("unfinished beyond repair", broken)
        return data, cuts

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
            self.send(links, frame if edit is None else edit(frame), depth)

    def send(self, links: tuple[Link, ...], frame: bytes, depth: int = 0) -> None:
        """Send one frame to some members, waiting for nobody; ``depth`` hops from where it began."""
        self.plane.depth = depth
        if not 0 < len(frame) <= self.mtu:
            self.rules.drop("longer than the mtu", 1)
            return
        data = LENGTH.pack(len(frame)) + frame
        view, ends = memoryview(data), (len(data),)
        self._send_one(links, view, ends)

    # -- what lossy and lossless do differently ----------------------------------------------------------------------

    def _forward(self, source: Link, view: memoryview, ends: Ends) -> None:
        """Deliver a run of finished frames, or keep what must wait as the source's backlog."""
        raise NotImplementedError

    def _send_unfinished(self, source: Link, route: Route, run: Unfinished) -> None:
        """Deliver a run of which some are unfinished along a plain route."""
        raise NotImplementedError

    def _send_one(self, links: tuple[Link, ...], view: memoryview, ends: Ends) -> None:
        """Deliver one frame that is nobody's: whom it has to wait for, waits for nothing."""
        raise NotImplementedError

    def flushed(self, link: Link) -> None:
        """``link`` took some of its queue."""
        raise NotImplementedError

    def admit(self, link: Link) -> None:
        """A member's link is there."""

    def routes_changed(self) -> None:
        """Receivers came, went or changed."""

    def forget(self, link: Link) -> None:
        """``link`` is about to be closed: nothing may wait for it, or be held for it, any more."""
        raise NotImplementedError

    def _release(self, link: Link) -> None:
        """Who waits for ``link`` need not any more."""

    def hold_expired(self, link: Link) -> None:
        """The time to wait for ``link`` is over."""

    def pool_released(self, frames: int) -> None:
        """Messages left the pool."""

    # -- deciding ----------------------------------------------------------------------------------------------------

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
            route = self.rules.ask(source.port, frame, self.plane.depth)
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

    # -- coming and going ------------------------------------------------------------------------------------------

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
        if link.port.outlet is not None:
            link.port.outlet.discard()
        self._release(link)
        if link.port.reader:
            link.port.reader = False
            self._half_closed(link.port)
        link.update_interest()

    def _go_on(self, source: Link) -> None:
        """``source`` need not wait any more."""
        source.update_interest()
        if source.closing:
            self.plane.later(source.drain)
