"""What is configured for each port of a switch, its VLANs first of all, and who may talk with whom by it. Pure.

A port has one VLAN for frames without a tag (``pvid``; 0: it takes none) and a set of VLANs whose frames carry a tag. A
VLAN in both goes out with a tag. As soon as any port has a VLAN configuration all ports are judged by theirs, the
others by the default: VLAN 1 without a tag. Before that there are no VLANs and tags are just bytes.
Configuration belongs to the port's number, not to who happens to sit there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import attrs

from .ethernet import VID_LAST

DEFAULT_PVID: Final = 1


def parse_vids(value: object) -> frozenset[int]:
    """Return a set of VLANs from ``"10,20-29"``, ``""``, ``"none"``, ``"all"`` or a list of numbers; ``ValueError``."""
    if isinstance(value, str):
        return frozenset(vid for part in _parts(value) for vid in _range(part))
    if isinstance(value, Iterable):
        return frozenset(_vid(item) for item in value)
    raise ValueError(f"VLANs are a list of numbers or text such as 10,20-29, not {value!r}")


def format_vids(vids: Iterable[int]) -> str:
    """Return a set of VLANs as ``10,20-29``; ``none`` when it is empty."""
    runs: list[list[int]] = []
    for vid in sorted(vids):
        if runs and vid == runs[-1][1] + 1:
            runs[-1][1] = vid
        else:
            runs.append([vid, vid])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs) or "none"


def _parts(text: str) -> list[str]:
    text = text.strip().lower()
    if text in ("", "none"):
        return []
    return [f"1-{VID_LAST}"] if text == "all" else text.split(",")


def _range(part: str) -> range:
    low, dash, high = part.partition("-")
    try:
        first = _vid(int(low))
        last = _vid(int(high)) if dash else first
    except ValueError:
        raise ValueError(f"not a VLAN or a range of them, from 1 to {VID_LAST}: {part.strip()!r}") from None
    if last < first:
        raise ValueError(f"the range {part.strip()!r} ends before it begins")
    return range(first, last + 1)


def _vid(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= VID_LAST:
        raise ValueError(f"a VLAN is a number from 1 to {VID_LAST}, not {value!r}")
    return value


Number = TypeVar("Number", int, float)


def _none_for_zero(value: Number | None) -> Number | None:
    return value or None


@attrs.frozen
class PortConfig:
    """The configuration of one port. None: the default of the switch, or no limit."""

    pvid: int | None = None
    tagged: frozenset[int] | None = None
    isolated: bool = False
    address_limit: int | None = attrs.field(default=None, converter=_none_for_zero)
    """Addresses that may be learned on it; 0 as None: as many as the switch says."""
    broadcast_rate: float | None = attrs.field(default=None, converter=_none_for_zero)
    """Frames per second that this port may have sent to many; 0 as None: any number."""

    @property
    def has_vlans(self) -> bool:
        """Whether this port's configuration makes the switch aware of VLANs."""
        return self.pvid is not None or self.tagged is not None

    def to_json(self) -> dict[str, Any]:
        """Return what is configured, as JSON values."""
        values: dict[str, Any] = attrs.asdict(self, filter=lambda field, value: value != field.default)
        if self.tagged is not None:
            values["tagged"] = sorted(self.tagged)
        return values


DEFAULT: Final = PortConfig()


@attrs.frozen
class Membership:
    """A port's part in the VLANs, ready for looking up."""

    pvid: int = DEFAULT_PVID
    tagged: frozenset[int] = frozenset()

    def __contains__(self, vid: int) -> bool:
        return vid == self.pvid or vid in self.tagged


NO_CONFIGURATION: Final = Membership()


class PortTable:
    """Port number → configuration, and what follows from it."""

    def __init__(self) -> None:
        self.configured: dict[int, PortConfig] = {}
        self.vlan_aware = False
        self.isolated: frozenset[int] = frozenset()
        self._members: dict[int, Membership] = {}

    def config(self, port: int) -> PortConfig:
        """Return the configuration of ``port``."""
        return self.configured.get(port, DEFAULT)

    def configure(self, port: int, config: PortConfig) -> None:
        """Set the configuration of ``port``; one that says nothing is forgotten."""
        if config == DEFAULT:
            self.configured.pop(port, None)
        else:
            self.configured[port] = config
        rows = self.configured.items()
        self.vlan_aware = any(config.has_vlans for _, config in rows)
        self.isolated = frozenset(number for number, config in rows if config.isolated)
        self._members = {number: _membership(config) for number, config in rows if config.has_vlans}

    def member(self, port: int) -> Membership:
        """Return the part of ``port`` in the VLANs."""
        return self._members.get(port, NO_CONFIGURATION)

    def by_tag(self, vlan: int, ports: Iterable[int]) -> tuple[list[int], list[int]]:
        """Return those of ``ports`` that get the VLAN's frames without a tag, and those that get them with one."""
        plain: list[int] = []
        tagged: list[int] = []
        for port in ports:
            member = self.member(port)
            if vlan in member.tagged:
                tagged.append(port)
            elif vlan == member.pvid:
                plain.append(port)
        return plain, tagged

    def apart(self, source: int, to: int) -> bool:
        """Tell whether isolation keeps the two ports from each other."""
        return source in self.isolated and to in self.isolated


def _membership(config: PortConfig) -> Membership:
    pvid = DEFAULT_PVID if config.pvid is None else config.pvid
    return Membership(pvid, config.tagged or frozenset())
