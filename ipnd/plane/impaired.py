"""Impaired ports: their frames take a detour through a shaper, on the way into the network, out of it, or both.

In: the delivery hands what a member sent to its port's ``inlet``, which lets it go on when it is due. Out: routes lead
to the port's ``outlet``, a link that takes all frames and writes those that are due to the member's own link. A timer
of the plane wakes them, and all frames that are due then go in one run. Ports that are not impaired know nothing of it.

What a receiver does not take when it is due waits here, and is offered again after a moment. A lossy network loses what
finds a shaper full. On a lossless one it is not given more: a sender is not read from, and what goes to a receiver
waits in the outlet's queue, which the pool bounds.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, Final

from .batch import Ends
from .impairment import Held, Impairment, Shaper
from .links import Claim, Joint, Link, VirtualLink

if TYPE_CHECKING:
    from .delivery import Delivery
    from .port import Port

DIRECTIONS: Final[dict[str, tuple[str, ...]]] = {"in": ("in",), "out": ("out",), "both": ("in", "out")}
"""Name → the directions that it means, from the member's view: ``in`` is into the network, ``out`` is to the member."""
RETRY_NS: Final = 1_000_000
"""Nanoseconds after which frames that were due, but not taken, are offered again."""
BATCH: Final = 256 * 1024
"""Bytes given on in one go, as many as are read in one go."""
MAX_RETRY_NS: Final = 16_000_000
"""The same for who takes nothing for long: each time it is twice as long, up to this."""

Give = Callable[[memoryview, Ends], int]


class Detour:
    """Takes frames into a shaper and gives them on when they are due.

    ``give(view, ends)`` returns how many frames of a run were taken; ``freed()`` is called when there may be room.
    """

    def __init__(self, delivery: Delivery, shaper: Shaper, give: Give, freed: Callable[[], None]) -> None:
        self.shaper = shaper
        self._delivery = delivery
        self._plane = delivery.plane
        self._give = give
        self._freed = freed
        self._left: list[Held] = []
        self._retry_at = 0
        self._patience = RETRY_NS
        self._alarms: list[int] = []
        self._giving = False
        self._open = True

    def take(self, view: memoryview, ends: Ends, depth: int, *, until_full: bool = False) -> int:
        """Take frames of a run, all of them or until the shaper is full, and give on what is due; return how many."""
        now, start, taken = time.monotonic_ns(), 0, 0
        for end in ends:
            if until_full and self.shaper.full(now):
                break
            self.shaper.admit(bytes(view[start:end]), now, depth)
            start = end
            taken += 1
        self._go_on()
        return taken

    def full(self) -> bool:
        """Return whether no more frames should come now."""
        return self.shaper.full(time.monotonic_ns())

    def _go_on(self) -> None:
        if self._giving or not self._open:
            return
        self._giving = True
        depth = self._plane.depth
        try:
            self._give_due(time.monotonic_ns())
            if self._open:
                self._freed()
        finally:
            self._giving = False
            self._plane.depth = depth
        if self._open:
            self._set_alarm()

    def _give_due(self, now: int) -> None:
        while self._open and (frames := self._left or self.shaper.due(now, BATCH)):
            taken = self._offer(frames)
            self._left = frames[taken:] if self._open else []
            if taken:
                self._patience = RETRY_NS
            if self._left:
                if taken or now >= self._retry_at:  # not for each run that comes while it waits
                    self._retry_at = now + self._patience
                    self._patience = min(2 * self._patience, MAX_RETRY_NS)
                return

    def _offer(self, frames: list[Held]) -> int:
        """Give frames on, those of the same depth as one run; return how many were taken."""
        done = 0
        for depth, view, ends in runs(frames):
            self._plane.depth = depth
            taken = self._give(view, ends)
            done += taken
            if taken < len(ends) or not self._open:
                break
        return done

    def _set_alarm(self) -> None:
        """Be woken when there is something to do, unless that is due anyway."""
        at = self._retry_at if self._left else self.shaper.next_at()
        if at is not None and (not self._alarms or at < self._alarms[-1]):
            self._alarms.append(at)
            self._plane.call_at(at, self._alarm)

    def _alarm(self) -> None:
        self._alarms.pop()  # the nearest one: each was set because it came before the others
        self._go_on()
        self._delivery.bury()

    def show(self) -> dict[str, Any]:
        """Return settings and counts, as ``net show --json`` prints them."""
        shown = self.shaper.show()
        return {**shown, "waiting": shown["waiting"] + len(self._left)}

    def end(self) -> list[Held]:
        """Wake up no more; return the frames that are still here, in order."""
        self._open = False
        return self.empty()

    def empty(self) -> list[Held]:
        """Take out all frames, in order."""
        left, self._left = self._left, []
        return left + self.shaper.take_all()


def runs(frames: list[Held]) -> list[tuple[int, memoryview, Ends]]:
    """Return frames as runs: (depth, the frames back to back, where each ends)."""
    found: list[tuple[int, memoryview, Ends]] = []
    for depth, group in groupby(frames, key=lambda held: held[1]):
        parts = [frame for frame, _ in group]
        found.append((depth, memoryview(b"".join(parts)), list(accumulate(map(len, parts)))))
    return found


class Inlet:
    """The way of a member's frames into its network. ``link``: the member's."""

    def __init__(self, link: Link, impairment: Impairment, *, lossless: bool) -> None:
        self._link = link
        self._lossless = lossless
        self._holding = False
        shaper = Shaper(impairment, "in", bounded=not lossless)
        self._detour = Detour(link.delivery, shaper, self._give, self._freed)
        self.show = self._detour.show

    def take(self, view: memoryview, ends: Ends) -> None:
        """Take a run that the member has sent."""
        self._detour.take(view, ends, self._link.plane.depth)
        if self._lossless and not self._holding and self._detour.full():
            self._holding = True
            self._link.holds += 1
            self._link.update_interest()

    def _give(self, view: memoryview, ends: Ends) -> int:
        """Let frames go on, unless earlier ones of the member wait for room in the pool."""
        source = self._link
        if source.backlog is not None:
            return 0
        before, source.depth = source.depth, source.plane.depth
        source.delivery.forward_again(source, view, ends)
        if source.backlog is None:  # else the rest needs the depth when it goes on, and nothing is read before
            source.depth = before
        return len(ends)

    def _freed(self) -> None:
        if self._holding and not self._detour.full():
            self._let_go()

    def _let_go(self) -> None:
        """The member may send again."""
        self._holding = False
        self._link.holds -= 1
        self._link.update_interest()
        if self._link.closing:
            self._link.plane.later(self._link.drain)

    def lift(self) -> None:
        """The impairment is over: what waits goes on at once."""
        source, plane = self._link, self._link.plane
        before = plane.depth
        for depth, view, ends in runs(self._detour.end()):
            plane.depth = depth
            source.delivery.forward_again(source, view, ends)
        plane.depth = before
        if self._holding:
            self._let_go()
        source.delivery.bury()

    def close(self) -> None:
        """The member leaves, and what waits is given up."""
        self._detour.end()


class Outlet(VirtualLink):
    """The way of frames to a member: a link that takes them in place of the member's own."""

    def __init__(self, link: Link, impairment: Impairment, *, lossless: bool) -> None:
        self._link = link
        self._lossless = lossless
        shaper = Shaper(impairment, "out", bounded=not lossless)
        self._detour = Detour(link.delivery, shaper, self._give, self._freed)
        self.show = self._detour.show
        super().__init__(link.plane, Joint(), link.delivery, link.port)

    def write(self, view: memoryview, ends: Ends) -> int:
        """Take frames: all, or on a lossless network as many as there is room for."""
        return self._detour.take(view, ends, self.plane.depth, until_full=self._lossless)

    def room(self) -> int:
        """Return 0: how much is taken depends on more than the bytes."""
        return 0

    def write_queue(self) -> None:
        """Take what is queued, as long as there is room."""
        while self.queue:
            piece = self.queue[0]
            view, done = memoryview(piece.data), bisect_right(piece.ends, piece.offset)
            ends = [end - piece.offset for end in piece.ends[done:]]
            taken = self._detour.take(view[piece.offset :], ends, piece.depth, until_full=True)
            if taken < len(ends):
                piece.offset += ends[taken - 1] if taken else 0
                return
            self.pop()

    def discard(self) -> None:
        """Give up what waits."""
        self._detour.empty()
        super().discard()

    def sent(self, frames: int, size: int) -> None:
        """Count nothing: the member's own link does."""

    def _give(self, view: memoryview, ends: Ends) -> int:
        """Write frames to the member."""
        return 0 if self._link.queue else self._link.write(view, ends)

    def _freed(self) -> None:
        if self.queue:
            self.flush()

    def lift(self) -> None:
        """The impairment is over: what waits goes to the member at once, or into its queue."""
        before = self.plane.depth
        for depth, view, ends in runs(self._detour.end()):
            self.plane.depth = depth
            self._hand_over(view, ends, None)
        for piece in self.queue:
            self.plane.depth = piece.depth
            ends = [end - piece.offset for end in piece.ends if end > piece.offset]
            self._hand_over(memoryview(piece.data)[piece.offset :], ends, piece.claim)
        self.plane.depth = before
        super().close()
        self.delivery.bury()

    def _hand_over(self, view: memoryview, ends: Ends, claim: Claim | None) -> None:
        taken = 0 if self._link.queue else self._link.write(view, ends)
        if taken < len(ends):
            base = ends[taken - 1] if taken else 0
            self._link.enqueue(bytes(view[base:]), [end - base for end in ends[taken:]], claim)

    def close(self) -> None:
        """The member leaves, and what waits is given up."""
        self._detour.end()
        super().close()

    def wanted(self, read: bool, write: bool) -> None:
        """Nothing: the detour tells when there is room."""

    def read(self) -> None:
        """Nothing comes from here."""


def replace(port: Port, direction: str, impairment: Impairment | None, *, lossless: bool) -> Inlet | Outlet | None:
    """Impair one direction of a port, or impair it no more (None); return what did it before, to be lifted.

    Routes must be made anew before that.
    """
    assert port.link is not None
    old: Inlet | Outlet | None
    if direction == "in":
        old = port.inlet
        port.inlet = None if impairment is None else Inlet(port.link, impairment, lossless=lossless)
    else:
        old = port.outlet
        port.outlet = None if impairment is None else Outlet(port.link, impairment, lossless=lossless)
    return old


def forget(port: Port) -> None:
    """The port's member leaves: what waits for it, or came from it and waits, is given up."""
    for way in (port.inlet, port.outlet):
        if way is not None:
            way.close()
    port.inlet = port.outlet = None
