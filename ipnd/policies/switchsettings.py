"""The settings of a switch and the arguments of its verbs: which there are, and within what bounds. Pure.

Each argument is a row: name → check. A check takes a JSON value and returns what it means, or raises ``ValueError``
with the rest of a sentence that begins with the name. The same rows read a saved state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from .ethernet import VID_LAST, is_group, parse_mac
from .fdb import PORT_LIMIT, TABLE_LIMIT
from .vlan import parse_vids

Check = Callable[[Any], Any]
Rows = Mapping[str, Check]

MOST_ENTRIES: Final = 1_000_000
MOST_SECONDS: Final = 1_000_000
MOST_MOVES: Final = 100
"""Moves are remembered one by one for each flapping address."""
MOST_RATE: Final = 1_000_000_000


def integer(low: int, high: int) -> Check:
    """Return the check for an integer from ``low`` to ``high``."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be an integer from {low} to {high}, not {value!r}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Return the check for a number from ``low`` to ``high``."""

    def check(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}, not {value!r}")
        return value

    return check


def boolean(value: Any) -> bool:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def optional(check: Check) -> Check:
    """Return ``check`` with null allowed: the default, or no limit."""
    return lambda value: None if value is None else check(value)


def mac(value: Any) -> bytes:
    """Check for the MAC address of a host, as text."""
    if not isinstance(value, str):
        raise ValueError(f"must be a MAC address as text, not {value!r}")
    address = parse_mac(value)
    if is_group(address):
        raise ValueError(f"must be the address of one host, and {value} is a multicast address")
    return address


PORT: Final = integer(0, 2**31 - 1)
VLAN: Final = integer(0, VID_LAST)

SETTINGS: Final[Rows] = {
    "ageing": number(0.1, MOST_SECONDS),
    "max_entries": integer(1, MOST_ENTRIES),
    "port_limit": integer(1, MOST_ENTRIES),
    "forward_reserved": boolean,
    "loop_moves": integer(0, MOST_MOVES),
    "loop_seconds": number(0.1, MOST_SECONDS),
    "loop_block": number(0.1, MOST_SECONDS),
}

PORT_FIELDS: Final[Rows] = {
    "pvid": optional(VLAN),
    "tagged": optional(parse_vids),
    "isolated": boolean,
    "address_limit": optional(integer(0, MOST_ENTRIES)),
    "broadcast_rate": optional(number(0, MOST_RATE)),
}


@attrs.frozen
class Settings:
    """What holds for the whole switch. Times in seconds."""

    ageing: float = 120
    """A learned address that sends nothing for so long is forgotten."""
    max_entries: int = TABLE_LIMIT
    port_limit: int = PORT_LIMIT
    """Addresses learned on one port, unless the port has a limit of its own."""
    forward_reserved: bool = False
    """Whether 01:80:c2:00:00:00 to 0f pass, as on a hub."""
    loop_moves: int = 10
    """More moves than so many within ``loop_seconds`` are a loop; 0: never."""
    loop_seconds: float = 5
    loop_block: float = 30
    """How long the loop guard blocks a port."""

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults."""
        return attrs.asdict(self, filter=lambda field, value: value != field.default)


def checked(values: Mapping[str, Any], rows: Rows, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return ``values`` as the checks in ``rows`` read them; ``ValueError`` for wrong, unknown and missing ones."""
    if unknown := sorted(set(values) - set(rows)):
        known = ", ".join(sorted(rows)) or "none"
        raise ValueError(f"there is no argument {unknown[0]!r}; there are: {known}")
    if missing := [name for name in required if values.get(name) is None]:
        raise ValueError(f"the argument {missing[0]!r} is missing")
    return {name: _checked_one(name, value, rows[name]) for name, value in values.items()}


def _checked_one(name: str, value: Any, check: Check) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
