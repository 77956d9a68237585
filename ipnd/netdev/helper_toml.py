"""The rules of the helper as an administrator writes them (TOML, ipn-helper(8)). Pure.

Whatever is not understood makes the file invalid as a whole: a misspelt key must not widen what somebody may.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ipn.ifnames import MAX_TAP_MTU, MIN_MTU, check_name

from .helper_request import DEFAULT_MTU
from .helper_rules import GrabRule, Network, Rules, TapRule, Who

MAX_ID: Final = 0xFFFFFFFE
"""Highest uid or gid (credentials(7))."""
MAX_PATTERN: Final = 64

Lookup = Callable[[str], int]
"""A user's or group's name → its id; ``KeyError`` when there is none."""


class RulesError(ValueError):
    """The rules cannot be understood; the text says where and why."""


def parse_rules(text: str, uid_of: Lookup, gid_of: Lookup) -> Rules:
    """Return the rules in ``text``; ``RulesError`` when anything in it is not understood.

    A user or group that is not known is no error: the rule is not for them, and a warning says so.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RulesError(f"not TOML: {error}") from None
    if unknown := sorted(tables.keys() - {"tap", "grab"}):
        raise RulesError(f"unknown key {unknown[0]!r}; rules start with [[tap]] or [[grab]]")
    warnings: list[str] = []

    def entries(kind: str) -> list[_Entry]:
        found = tables.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise RulesError(f"rules start with [[{kind}]], in double brackets")
        return [
            _Entry(f"[[{kind}]] rule {number}", entry, uid_of, gid_of, warnings)
            for number, entry in enumerate(found, 1)
        ]

    taps = tuple(entry.tap() for entry in entries("tap"))
    grabs = tuple(entry.grab() for entry in entries("grab"))
    return Rules(taps, grabs, tuple(warnings))


@dataclass
class _Entry:
    """One rule of the file. Its keys are taken out one by one; what is left at the end is unknown."""

    where: str
    keys: dict[str, Any]
    uid_of: Lookup
    gid_of: Lookup
    warnings: list[str]

    def tap(self) -> TapRule:
        who, names = self._who(), self._names("names", self._pattern)
        mac, up, mtu = self._bool("mac"), self._bool("up"), self.keys.pop("mtu", DEFAULT_MTU)
        if type(mtu) is not int or not MIN_MTU <= mtu <= MAX_TAP_MTU:
            raise RulesError(f"{self.where}: mtu is a number from {MIN_MTU} to {MAX_TAP_MTU}")
        networks = tuple(self._network(text) for text in self._list("addresses"))
        self._end()
        return TapRule(who, names, mac, mtu, up, networks)

    def grab(self) -> GrabRule:
        rule = GrabRule(self._who(), self._names("interfaces", self._interface))
        self._end()
        return rule

    def _who(self) -> Who:
        if not self.keys.get("users") and not self.keys.get("groups"):
            raise RulesError(f"{self.where} is for nobody: it needs users or groups")
        return Who(self._ids("users", "user", self.uid_of), self._ids("groups", "group", self.gid_of))

    def _ids(self, key: str, kind: str, lookup: Lookup) -> frozenset[int]:
        ids = set()
        for value in self._list(key):
            if isinstance(value, str) and value.isascii() and value.isdigit():
                value = int(value)
            if type(value) is int and 0 <= value <= MAX_ID:
                ids.add(value)
            elif isinstance(value, str) and value:
                try:
                    ids.add(lookup(value))
                except (KeyError, ValueError):
                    self.warnings.append(f"{self.where}: there is no {kind} {value!r} here")
            else:
                raise RulesError(f"{self.where}: {value!r} in {key} is no name and no number of a {kind}")
        return frozenset(ids)

    def _names(self, key: str, check: Callable[[str], None]) -> tuple[str, ...]:
        names = self._list(key)
        if not names:
            raise RulesError(f"{self.where} needs {key}")
        for name in names:
            if not isinstance(name, str):
                raise RulesError(f"{self.where}: {name!r} in {key} is no text")
            check(name)
        return tuple(names)

    def _pattern(self, name: str) -> None:
        wrong = "/" in name or ":" in name or not name.isprintable() or " " in name or len(name) > MAX_PATTERN
        if not name or wrong:
            raise RulesError(f"{self.where}: {name!r} is no pattern for the name of an interface")

    def _interface(self, name: str) -> None:
        if any(character in name for character in "*?[]"):
            raise RulesError(f"{self.where}: interfaces are listed by their names, not by patterns like {name!r}")
        try:
            check_name(name, "grab")
        except OSError as error:
            raise RulesError(f"{self.where}: {error.strerror}") from None

    def _network(self, text: Any) -> Network:
        try:
            if isinstance(text, str):
                return ipaddress.ip_network(text)
        except ValueError as error:
            raise RulesError(f"{self.where}: {error}") from None
        raise RulesError(f"{self.where}: {text!r} in addresses is no network like '10.7.0.0/16'")

    def _bool(self, key: str) -> bool:
        value = self.keys.pop(key, False)
        if type(value) is not bool:
            raise RulesError(f"{self.where}: {key} is true or false, not {value!r}")
        return value

    def _list(self, key: str) -> list[Any]:
        value = self.keys.pop(key, [])
        if not isinstance(value, list):
            raise RulesError(f"{self.where}: {key} is a list, in brackets")
        return value

    def _end(self) -> None:
        if self.keys:
            raise RulesError(f"{self.where}: unknown key {min(self.keys)!r}")
