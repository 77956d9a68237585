"""The neighbours' MAC addresses: learned, confirmed, asked for; packets wait a moment while one is asked for. Pure.

An entry without address is *incomplete*: asked for once a second, three times, then given up. An address counts as
*reachable* for a minute after it was last heard; used when older (*stale*) it is asked for again, directly, while
packets go on to it (*probing*), and given up after three requests without answer.
"""

from __future__ import annotations

from math import inf
from typing import Final

import attrs

from .packet import Packet

TRIES: Final = 3
RETRY: Final = 1.0
REACHABLE: Final = 60.0
FORGOTTEN: Final = 900.0
MAX_NEIGHBOURS: Final = 4096
"""Entries; the longest unheard goes when one more is needed. A subnet of that size is larger than any here."""
MAX_INCOMPLETE: Final = 256
"""Addresses asked for at a time: who scans a subnet must not push the others out."""
MAX_WAITING: Final = 16
"""Packets that wait for one neighbour: the first few of a connection."""
MAX_WAITING_BYTES: Final = 4 << 20
"""What may wait altogether."""

Key = tuple[int, bytes]


@attrs.frozen
class Waiting:
    """A packet that waits for its neighbour; ``origin``: how it came (VLAN and all), if it was routed."""

    packet: bytes
    origin: tuple[int, Packet] | None = None


@attrs.define(eq=False)
class Neighbour:
    """What is known of one address in one VLAN."""

    vlan: int
    address: bytes
    mac: bytes | None = None
    static: bool = False
    heard: float = 0.0
    tries: int = 0
    again: float = inf
    waiting: list[Waiting] = attrs.field(factory=list)

    def state(self, now: float) -> str:
        """Return the word for ``neigh.list``."""
        if self.static:
            return "static"
        if self.mac is None:
            return "incomplete"
        if self.tries:
            return "probing"
        return "reachable" if now - self.heard < REACHABLE else "stale"


class Neighbours:
    """All neighbours of a router."""

    def __init__(self) -> None:
        self.entries: dict[Key, Neighbour] = {}
        self._pending: dict[Key, Neighbour] = {}
        self._bytes = 0

    def use(self, vlan: int, address: bytes, now: float) -> tuple[Neighbour | None, bool]:
        """Return the entry for ``address`` and whether it is to be asked for now; no entry: too many are asked for."""
        entry = self.entries.get((vlan, address))
        if entry is not None and not entry.static and entry.mac is not None and now - entry.heard >= FORGOTTEN:
            self.forget(entry)
            entry = None
        if entry is None:
            if sum(one.mac is None for one in self._pending.values()) >= MAX_INCOMPLETE:
                return None, False
            entry = self._new(vlan, address)
            entry.heard = now
        if entry.static or entry.tries or (entry.mac is not None and now - entry.heard < REACHABLE):
            return entry, False
        entry.tries, entry.again = 1, now + RETRY
        self._pending[(vlan, address)] = entry
        return entry, True

    def _new(self, vlan: int, address: bytes) -> Neighbour:
        if len(self.entries) >= MAX_NEIGHBOURS:
            # Entries are in the order in which they were last heard, see ``hear``.
            known = (one for one in self.entries.values() if not one.static and one.mac is not None)
            oldest = next(known, None)
            if oldest is not None:
                self.forget(oldest)
        entry = self.entries[(vlan, address)] = Neighbour(vlan, address)
        return entry

    def wait(self, entry: Neighbour, packet: Waiting) -> bool:
        """Have ``packet`` wait for ``entry``; False: there is no room."""
        if len(entry.waiting) >= MAX_WAITING or self._bytes + len(packet.packet) > MAX_WAITING_BYTES:
            return False
        entry.waiting.append(packet)
        self._bytes += len(packet.packet)
        return True

    def _released(self, entry: Neighbour) -> list[Waiting]:
        waiting, entry.waiting = entry.waiting, []
        self._bytes -= sum(len(one.packet) for one in waiting)
        return waiting

    def hear(
        self, vlan: int, address: bytes, mac: bytes, now: float, *, new: bool = True, override: bool = True
    ) -> list[Waiting]:
        """Note that ``mac`` is where ``address`` is; return the packets that waited for it.

        ``new``: also if nobody has asked; ``override``: also if another MAC address is known.
        """
        entry = self.entries.get((vlan, address))
        if entry is None and new:
            entry = self._new(vlan, address)
        if entry is None or entry.static or not (override or entry.mac in (None, mac)):
            return []
        entry.mac, entry.heard = mac, now
        self.entries[(vlan, address)] = self.entries.pop((vlan, address))
        return self._settled(entry)

    def _settled(self, entry: Neighbour) -> list[Waiting]:
        entry.tries, entry.again = 0, inf
        self._pending.pop((entry.vlan, entry.address), None)
        return self._released(entry)

    def fix(self, vlan: int, address: bytes, mac: bytes, now: float) -> list[Waiting]:
        """Make a static entry; return the packets that waited for it."""
        entry = self.entries.get((vlan, address)) or self._new(vlan, address)
        entry.mac, entry.static, entry.heard = mac, True, now
        return self._settled(entry)

    def forget(self, entry: Neighbour) -> list[Waiting]:
        """Remove an entry; return the packets that waited for it."""
        self.entries.pop((entry.vlan, entry.address), None)
        return self._settled(entry)

    def static(self) -> list[Neighbour]:
        """Return the static entries."""
        return [entry for entry in self.entries.values() if entry.static]

    def due(self, now: float) -> tuple[list[Neighbour], list[tuple[Neighbour, list[Waiting]]]]:
        """Return who is to be asked for again now, and who was given up, with the packets that waited."""
        asked, lost = [], []
        for entry in [one for one in self._pending.values() if one.again <= now]:
            if entry.tries >= TRIES:
                lost.append((entry, self.forget(entry)))
            else:
                entry.tries, entry.again = entry.tries + 1, now + RETRY
                asked.append(entry)
        return asked, lost

    def next_due(self) -> float:
        """Return when ``due`` has something to say; infinity: nobody is being asked for."""
        return min((one.again for one in self._pending.values()), default=inf)
