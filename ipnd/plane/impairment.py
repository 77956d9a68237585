"""Making a line worse on purpose: what becomes of each frame of a member that is impaired, and when. Pure.

A frame is lost, or sent over a line of a certain rate, then delayed, and perhaps doubled. Frames keep their order, also
under jitter, except for those that ``reorder`` picks: they are not delayed, and so get ahead of others. What is decided
on a frame depends on the seed and on how many frames came before it, never on the clock or on the other settings: the
same number of random numbers is drawn for every frame.
"""

from __future__ import annotations

import errno
import heapq
import random
from collections.abc import Mapping
from typing import Any, Final

import attrs

from ipn.framing import PREFIX

MAX_DELAY_MS: Final = 60_000
"""Longest delay, in milliseconds: a minute, more than any line on earth or to the moon has."""
MAX_RATE: Final = 10**12
"""Highest rate, in bit/s."""
MAX_SEED: Final = 2**32 - 1
MAX_FRAMES: Final = 16_384
"""Frames that wait in one direction of a port: 160,000 a second with a delay of 100 ms."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""Their bytes; one more frame of any length is taken as long as they are fewer."""
LINE_NS: Final = 1_000_000_000
"""Longest that frames wait for a line of limited rate, in nanoseconds: routers have buffers of about that at most."""

PERCENT: Final = 100.0
NS_PER_MS: Final = 1_000_000
NS_PER_SECOND: Final = 1_000_000_000
DRAWS: Final = 5
"""Random numbers drawn for each frame: loss, duplicate, reorder, jitter, jitter of the duplicate."""

HIGHEST: Final[Mapping[str, tuple[float, str]]] = {
    "delay_ms": (MAX_DELAY_MS, "ms"),
    "jitter_ms": (MAX_DELAY_MS, "ms"),
    "loss": (PERCENT, "%"),
    "rate": (MAX_RATE, "bit/s"),
    "duplicate": (PERCENT, "%"),
    "reorder": (PERCENT, "%"),
    "seed": (MAX_SEED, ""),
}
"""Setting → its highest value and its unit. The lowest is 0."""
WHOLE: Final = frozenset({"rate", "seed"})
"""Settings that are integers."""


@attrs.frozen
class Impairment:
    """How a line is: ``delay_ms`` ± ``jitter_ms`` (uniformly), ``loss``, ``duplicate`` and ``reorder`` in per cent of
    the frames, ``rate`` in bit/s (0: any). ``OSError`` EINVAL for settings that make no sense.
    """

    delay_ms: float = 0
    jitter_ms: float = 0
    loss: float = 0
    rate: int = 0
    duplicate: float = 0
    reorder: float = 0
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            _check(name, value)
        if self.jitter_ms > self.delay_ms:
            text = f"a jitter of {self.jitter_ms:g} ms needs a delay of at least as much, not {self.delay_ms:g} ms"
            raise OSError(errno.EINVAL, text)
        if self.reorder and not self.delay_ms:
            text = "reorder needs a delay: a frame gets ahead of others by not being delayed as they are"
            raise OSError(errno.EINVAL, text)

    @classmethod
    def decode(cls, settings: Mapping[str, Any], seed: int) -> Impairment:
        """Return the impairment of a request: the fields by their names; ``seed`` where it names none."""
        unknown = sorted(set(settings) - set(HIGHEST))
        if unknown:
            text = f"an impairment has no {str(unknown[0])[:40]!r}; it has {', '.join(HIGHEST)}"
            raise OSError(errno.EINVAL, text)
        return cls(**{"seed": seed, **settings})

    @property
    def nothing(self) -> bool:
        """Whether it leaves all frames as they are."""
        return not any(value for name, value in attrs.asdict(self).items() if name != "seed")


def _check(name: str, value: object) -> None:
    highest, unit = HIGHEST[name]
    kinds = int if name in WHOLE else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        kind = "an integer" if name in WHOLE else "a number"
        raise OSError(errno.EINVAL, f"{name!r} of an impairment must be {kind}, not {type(value).__name__}")
    if not 0 <= value <= highest:  # nor is a number that is none (NaN)
        raise OSError(errno.EINVAL, f"{name!r} of an impairment must be from 0 to {f'{highest:.0f} {unit}'.strip()}")


Held = tuple[bytes, int]
"""A frame, its length before it, and how many hops over cables it has come."""


class Shaper:
    """One direction of an impaired line. Times are ``now`` of any clock that does not go back, in nanoseconds.

    ``stream``: directions with the same seed but another name are decided on independently. ``bounded``: when it is
    full the newest are dropped and counted; else whoever brings frames looks at ``full`` before.
    """

    def __init__(self, impairment: Impairment, stream: str = "", *, bounded: bool = True) -> None:
        self.impairment = impairment
        self.lost = self.duplicated = self.reordered = self.overflowed = 0
        self.size = 0
        self._bounded = bounded
        self._draw = random.Random(f"{impairment.seed} {stream}").random
        self._delay_ns = impairment.delay_ms * NS_PER_MS
        self._jitter_ns = impairment.jitter_ms * NS_PER_MS
        self._waiting: list[tuple[int, int, bytes, int]] = []
        self._number = 0
        self._line_free = 0
        self._last_due = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self, frame: bytes, now: int, depth: int = 0) -> None:
        """Take a frame that comes at ``now``; ``depth`` is returned with it."""
        lost, twice, ahead, jitter, again = [self._draw() * PERCENT for _ in range(DRAWS)]
        impairment = self.impairment
        if lost < impairment.loss:
            self.lost += 1
            return
        hurries = ahead < impairment.reorder
        if self._put(frame, now, depth, hurries, jitter) and twice < impairment.duplicate:
            self.duplicated += 1
            self._put(frame, now, depth, hurries, again)

    def _put(self, frame: bytes, now: int, depth: int, hurries: bool, jitter: float) -> bool:
        """Send a frame over the line; False when there was no room for it."""
        if self._bounded and self.full(now):
            self.overflowed += 1
            return False
        due = max(now, self._line_free)
        if self.impairment.rate:
            due += (len(frame) - PREFIX) * 8 * NS_PER_SECOND // self.impairment.rate
            self._line_free = due
        if hurries:
            self.reordered += self._last_due > due
        else:
            due += round(self._delay_ns + (2 * jitter / PERCENT - 1) * self._jitter_ns)
            self._last_due = due = max(due, self._last_due)
        self._number += 1
        heapq.heappush(self._waiting, (due, self._number, frame, depth))
        self.size += len(frame)
        return True

    def full(self, now: int) -> bool:
        """Return whether no more frames should come: too many wait, or for too long."""
        waiting = len(self._waiting) >= MAX_FRAMES or self.size >= MAX_BYTES
        return waiting or self._line_free - now > LINE_NS

    def next_at(self) -> int | None:
        """Return when the next frame is due, None when none waits."""
        return self._waiting[0][0] if self._waiting else None

    def due(self, now: int, most: int = MAX_BYTES) -> list[Held]:
        """Return the frames that are due at ``now``, in order: one, and more as long as they are ``most`` bytes."""
        found: list[Held] = []
        size = 0
        while self._waiting and self._waiting[0][0] <= now and (not found or size < most):
            _, _, frame, depth = heapq.heappop(self._waiting)
            found.append((frame, depth))
            size += len(frame)
        self.size -= size
        return found

    def take_all(self) -> list[Held]:
        """Return all that waits, in the order in which it would have gone."""
        found = [(frame, depth) for _, _, frame, depth in sorted(self._waiting)]
        self._waiting.clear()
        self.size = 0
        return found

    def show(self) -> dict[str, Any]:
        """Return the settings and the counts, as ``net show --json`` prints them."""
        return {
            **attrs.asdict(self.impairment),
            "waiting": len(self._waiting),
            "lost": self.lost,
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "overflowed": self.overflowed,
        }
