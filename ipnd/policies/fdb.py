"""The forwarding database of a switch: (VLAN, address) → port, with ageing and limits. Pure.

Nothing here knows of frames or of the network; the switch says what was seen where, and when. Every entry is charged
to its port and to the table, so that a flood of made-up addresses stops at its own port's limit and pushes nobody out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .ethernet import format_mac

Key = tuple[int, bytes]

TABLE_LIMIT: Final = 16384
"""Entries in all: what a good managed switch holds; about 4 MiB here."""
PORT_LIMIT: Final = 4096
"""Entries learned on one port: a quarter, so that it takes four floods to fill the table."""


class Entry:
    """Where an address is. ``seen`` is when it last sent (as far as the switch was asked)."""

    __slots__ = ("port", "seen", "static")

    def __init__(self, port: int, seen: float, *, static: bool = False) -> None:
        self.port = port
        self.seen = seen
        self.static = static


class ForwardingTable:
    """The entries, how many of them each port has learned, and the limits."""

    def __init__(self, limit: int = TABLE_LIMIT) -> None:
        self.limit = limit
        self.entries: dict[Key, Entry] = {}
        self.learned: dict[int, int] = {}
        """Port → number of its dynamic entries; ports without any are absent."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def dynamic(self) -> bool:
        """Whether there is anything that ages."""
        return bool(self.learned)

    def find(self, vlan: int, mac: bytes) -> int | None:
        """Return the port that ``mac`` is on, None when that is not known."""
        entry = self.entries.get((vlan, mac))
        return None if entry is None else entry.port

    def full(self) -> bool:
        """Tell whether the table takes no more entries."""
        return len(self.entries) >= self.limit

    def add(self, key: Key, port: int, now: float) -> None:
        """Learn a new address. The caller has looked at the limits."""
        self.entries[key] = Entry(port, now)
        self.learned[port] = self.learned.get(port, 0) + 1

    def move(self, entry: Entry, port: int, now: float) -> None:
        """Let the dynamic ``entry`` be on another port."""
        self._uncharge(entry.port)
        entry.port = port
        entry.seen = now
        self.learned[port] = self.learned.get(port, 0) + 1

    def pin(self, key: Key, port: int, now: float) -> None:
        """Set a static entry, in place of any other for that address."""
        self.remove(key)
        self.entries[key] = Entry(port, now, static=True)

    def remove(self, key: Key) -> bool:
        """Forget an entry; tell whether there was one."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return False
        if not entry.static:
            self._uncharge(entry.port)
        return True

    def expire(self, before: float) -> int:
        """Forget the dynamic entries last seen before the time ``before``; return how many."""
        return self._remove_all([key for key, e in self.entries.items() if e.seen < before and not e.static])

    def forget_port(self, port: int) -> int:
        """Forget what was learned on ``port``; return how many."""
        return self.flush(port=port) if port in self.learned else 0

    def flush(self, port: int | None = None, vlan: int | None = None, *, static: bool = False) -> int:
        """Forget the dynamic entries (of a port, of a VLAN), with ``static`` the static ones too; return how many."""
        return self._remove_all([key for key, _ in self._select(port, vlan) if static or not self.entries[key].static])

    def move_static(self, vlan_of: Callable[[int], int]) -> None:
        """Put static entries that are in VLAN 0, or are to be, into the VLAN ``vlan_of`` their port."""
        for vlan, mac in self.static_keys():
            own = vlan_of(self.entries[vlan, mac].port)
            if not vlan or not own:
                self.entries[own, mac] = self.entries.pop((vlan, mac))

    def rows(self, now: float, port: int | None = None, vlan: int | None = None) -> list[dict[str, Any]]:
        """Return the entries as JSON values, by VLAN and address; ``age`` in seconds, None for a static one."""
        return [row(key, entry, now) for key, entry in sorted(self._select(port, vlan), key=lambda item: item[0])]

    def static_keys(self) -> list[Key]:
        """Return the addresses that have a static entry, in order."""
        return sorted(key for key, entry in self.entries.items() if entry.static)

    def _select(self, port: int | None, vlan: int | None) -> list[tuple[Key, Entry]]:
        return [
            (key, entry)
            for key, entry in self.entries.items()
            if (port is None or entry.port == port) and (vlan is None or key[0] == vlan)
        ]

    def _remove_all(self, keys: list[Key]) -> int:
        for key in keys:
            self.remove(key)
        return len(keys)

    def _uncharge(self, port: int) -> None:
        left = self.learned[port] - 1
        if left:
            self.learned[port] = left
        else:
            del self.learned[port]


def row(key: Key, entry: Entry, now: float) -> dict[str, Any]:
    """Return one entry as JSON values."""
    vlan, mac = key
    age = None if entry.static else round(max(0.0, now - entry.seen), 1)
    return {"vlan": vlan, "mac": format_mac(mac), "port": entry.port, "age": age, "static": entry.static}
