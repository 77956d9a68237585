"""Who may have which interface of the host: the rules of the helper, and the judgement. Pure.

A request is granted by the first rule that grants all of it; a refusal says of each rule for the user what was missing.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from .helper_request import DEFAULT_MTU, GrabRequest, TapRequest

WILD: Final = "*?["
"""The characters that make a name a pattern (fnmatch)."""
MAX_REASONS: Final = 8
"""Rules whose reasons a refusal tells."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Who:
    """For whom a rule is."""

    users: frozenset[int]
    groups: frozenset[int]

    def includes(self, uid: int, groups: frozenset[int]) -> bool:
        """Tell whether a user with these groups is meant."""
        return uid in self.users or bool(groups & self.groups)


@dataclass(frozen=True)
class TapRule:
    """What TAPs ``who`` may make; ``mtu`` is the highest, in bytes."""

    who: Who
    names: tuple[str, ...]
    mac: bool
    mtu: int
    up: bool
    addresses: tuple[Network, ...]

    def missing(self, request: TapRequest) -> Iterator[str]:
        """Give what of ``request`` this rule does not grant; nothing when it grants all of it."""
        if not any(_covers(pattern, request.name) for pattern in self.names):
            yield f"its name is not among {', '.join(self.names)}"
        if request.mac is not None and not self.mac:
            yield "its MAC address may not be chosen"
        if (request.mtu or DEFAULT_MTU) > self.mtu:
            yield f"its MTU {request.mtu or DEFAULT_MTU} is above {self.mtu}"
        if request.up and not self.up:
            yield "it may not be set up"
        for address in request.addresses:
            if not any(_inside(address, network) for network in self.addresses):
                among = f"not inside {', '.join(map(str, self.addresses))}" if self.addresses else "not to be given"
                yield f"the address {address} is {among}"

    def describe(self) -> dict[str, Any]:
        """Return the rule as data, without for whom it is."""
        networks = [str(network) for network in self.addresses]
        return {"names": list(self.names), "mac": self.mac, "mtu": self.mtu, "up": self.up, "addresses": networks}

    def __str__(self) -> str:
        extras = [
            f"MTU up to {self.mtu}",
            "any MAC address" if self.mac else "a random MAC address",
            "may be set up" if self.up else "left down",
            f"addresses inside {', '.join(map(str, self.addresses))}" if self.addresses else "no addresses",
        ]
        return f"make a TAP named {' or '.join(self.names)} ({'; '.join(extras)})"


@dataclass(frozen=True)
class GrabRule:
    """Which interfaces ``who`` may grab."""

    who: Who
    interfaces: tuple[str, ...]

    def missing(self, request: GrabRequest) -> Iterator[str]:
        """Give what of ``request`` this rule does not grant; nothing when it grants it."""
        if request.name not in self.interfaces:
            yield f"it is not among {', '.join(self.interfaces)}"

    def describe(self) -> dict[str, Any]:
        """Return the rule as data, without for whom it is."""
        return {"interfaces": list(self.interfaces)}

    def __str__(self) -> str:
        return f"grab {' or '.join(self.interfaces)}"


@dataclass(frozen=True)
class Rules:
    """All rules, in the file's order. ``warnings``: users and groups that are not known here, in sentences."""

    taps: tuple[TapRule, ...] = ()
    grabs: tuple[GrabRule, ...] = ()
    warnings: tuple[str, ...] = ()

    def judge(self, request: TapRequest | GrabRequest, uid: int, groups: frozenset[int]) -> str:
        """Return which rule grants ``request``; raise EPERM with what was missing when none does."""
        kind = "tap" if isinstance(request, TapRequest) else "grab"
        reasons = []
        for number, rule in self._of(kind):
            if not rule.who.includes(uid, groups):
                continue
            missing = "; ".join(rule.missing(request))  # type: ignore[arg-type]  # _of gives the rules of this kind
            if not missing:
                return f"[[{kind}]] rule {number}"
            reasons.append(f"[[{kind}]] rule {number}: {missing}")
        what = f"{'make' if kind == 'tap' else 'grab'} {request.name}"
        why = ", ".join(reasons[:MAX_REASONS]) or f"no [[{kind}]] rule is for them"
        raise PermissionError(errno.EPERM, f"the helper's rules do not let user {uid} {what}: {why}")

    def of(self, uid: int, groups: frozenset[int]) -> list[tuple[str, int, TapRule | GrabRule]]:
        """Return kind, number and rule of all that are for this user."""
        return [
            (kind, number, rule)
            for kind in ("tap", "grab")
            for number, rule in self._of(kind)
            if rule.who.includes(uid, groups)
        ]

    def _of(self, kind: str) -> Iterator[tuple[int, TapRule | GrabRule]]:
        yield from enumerate(self.taps if kind == "tap" else self.grabs, 1)


def _covers(pattern: str, name: str) -> bool:
    """Tell whether ``pattern`` allows ``name``: for one with ``%d``, every name that the kernel may make of it."""
    if "%" not in name:
        return fnmatchcase(name, pattern)
    literal = pattern[:-1]
    family = pattern.endswith("*") and not any(character in literal for character in WILD)
    return pattern == name or (family and name.partition("%d")[0].startswith(literal))


def _inside(address: str, network: Network) -> bool:
    """Tell whether ``address`` and all that its prefix makes reachable lies inside ``network``."""
    own = ipaddress.ip_interface(address).network
    if isinstance(own, ipaddress.IPv4Network):
        return isinstance(network, ipaddress.IPv4Network) and own.subnet_of(network)
    return isinstance(network, ipaddress.IPv6Network) and own.subnet_of(network)
