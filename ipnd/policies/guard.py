"""What protects a switch from its members: the loop guard, and the limit on frames to many. Pure; time is given.

**Loop guard.** Where two ports lead to the same place, a frame sent out of one comes back by the other, and with it the
address of its sender: the address flaps. A host that is moved flaps too, but not often. An address seen moving between
the same two ports more than ``moves`` times within ``seconds`` blocks the port that joined later: that is the one
whose cable closed the loop.
"""

from __future__ import annotations

from typing import Final

Flap = tuple[float, int, int]

FLAPS_KEPT: Final = 1000
"""Addresses whose moves are remembered at a time: a loop shows in any of them, and memory stays bounded."""


class LoopGuard:
    """Counts moves, and knows which ports are blocked until when."""

    def __init__(self) -> None:
        self.blocked: dict[int, float] = {}
        self._joined: dict[int, int] = {}
        self._joins = 0
        self._flaps: dict[tuple[int, bytes], list[Flap]] = {}

    def join(self, port: int) -> None:
        """``port`` is there, as the youngest."""
        self._joins += 1
        self._joined[port] = self._joins

    def leave(self, port: int) -> None:
        """``port`` is gone, and its block with it."""
        self._joined.pop(port, None)
        self.blocked.pop(port, None)

    def moved(self, key: tuple[int, bytes], old: int, new: int, now: float, moves: int, seconds: float) -> int | None:
        """Take in that an address moved; return the port to block if that was once too often (``moves`` 0: never)."""
        if not moves:
            return None
        low, high = min(old, new), max(old, new)
        recent = [flap for flap in self._flaps.pop(key, ()) if now - flap[0] <= seconds]
        recent = [*recent[-4 * moves :], (now, low, high)]
        if sum(flap[1:] == (low, high) for flap in recent) > moves:
            return max(old, new, key=lambda port: self._joined.get(port, 0))
        if len(self._flaps) >= FLAPS_KEPT:
            del self._flaps[next(iter(self._flaps))]
        self._flaps[key] = recent
        return None

    def block(self, port: int, until: float) -> None:
        """Let nothing into or out of ``port`` until then."""
        self.blocked[port] = until

    def unblock(self, port: int) -> bool:
        """End the block of ``port``; tell whether there was one."""
        return self.blocked.pop(port, None) is not None

    def unblock_due(self, now: float) -> list[int]:
        """End the blocks whose time has come and return their ports."""
        return [port for port in [p for p, until in self.blocked.items() if until <= now] if self.unblock(port)]


class TokenBucket:
    """So many per second, and at once no more than one second's worth (at least one)."""

    __slots__ = ("_stamp", "_tokens", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._tokens = max(1.0, rate)
        self._stamp = now

    def take(self, now: float) -> bool:
        """Take one token; False when there is none."""
        self._tokens = min(max(1.0, self.rate), self._tokens + (now - self._stamp) * self.rate)
        self._stamp = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
