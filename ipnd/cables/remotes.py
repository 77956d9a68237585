"""Which remote of a cable an Ethernet address is behind: learned from what comes, forgotten after a while. Pure.

A frame to an address that is not in the table goes to all remotes, so that a full table costs traffic and nothing
else: what is new is then not learned until old entries have aged.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

AGEING_NS: Final = 300_000_000_000
"""Nanoseconds for which an address is known after it was last heard: as in the kernel's vxlan device."""
LIMIT: Final = 8192
"""Addresses in the table; about 2 MiB."""
SWEEP_NS: Final = 1_000_000_000
"""A full table is looked through for old entries no more often."""

GROUP: Final = 1
"""The bit of an address's first byte that makes it one of many machines."""

Remote = TypeVar("Remote")


class _Entry(Generic[Remote]):
    __slots__ = ("remote", "seen")

    def __init__(self, remote: Remote, seen: int) -> None:
        self.remote = remote
        self.seen = seen


class Remotes(Generic[Remote]):
    """The table. Times are nanoseconds of any clock that does not go back. ``full``: addresses not learned."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.full = 0
        self._limit = limit
        self._entries: dict[bytes, _Entry[Remote]] = {}
        self._swept: int | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def learn(self, mac: bytes, remote: Remote, now: int) -> None:
        """``mac`` has sent from behind ``remote``. A group's address, or a part of one, is not learned."""
        entry = self._entries.get(mac)
        if entry is not None:
            entry.remote = remote
            entry.seen = now
        elif len(mac) == 6 and not mac[0] & GROUP:
            if len(self._entries) < self._limit or self._sweep(now):
                self._entries[mac] = _Entry(remote, now)
            else:
                self.full += 1

    def find(self, mac: bytes, now: int) -> Remote | None:
        """Return the remote that ``mac`` is behind, None when that is not known (any more)."""
        entry = self._entries.get(mac)
        if entry is None:
            return None
        if now - entry.seen >= AGEING_NS:
            del self._entries[mac]
            return None
        return entry.remote

    def _sweep(self, now: int) -> bool:
        """Forget what is old; return whether that has made room."""
        if self._swept is not None and now - self._swept < SWEEP_NS:
            return False
        self._swept = now
        old = [mac for mac, entry in self._entries.items() if now - entry.seen >= AGEING_NS]
        for mac in old:
            del self._entries[mac]
        return bool(old)
