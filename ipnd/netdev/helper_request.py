"""What a client may ask the helper for, read from a message that anybody may have written. Pure."""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass
from typing import Any, Final

from ipn.control import Message
from ipn.ifnames import DEFAULT_TAP_NAME, check_name, parse_mac

MAX_ADDRESSES: Final = 16
"""Addresses in one request: an interface with more is set up by its administrator."""
MAX_TEXT: Final = 64
"""Longest text of a field: an IPv6 address with its prefix has 43 characters."""

DEFAULT_MTU: Final = 1500
"""What a TAP has whose request names no MTU."""


@dataclass(frozen=True)
class TapRequest:
    """A new TAP. ``name`` may have one ``%d``; ``mac`` is None for a random one, ``mtu`` for the usual 1500 bytes."""

    name: str
    mac: str | None
    mtu: int | None
    up: bool
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        wishes = [f"mac {self.mac}" if self.mac else "", f"mtu {self.mtu}" if self.mtu else "", "up" if self.up else ""]
        return " ".join(["tap", self.name, *filter(None, wishes), *self.addresses])


@dataclass(frozen=True)
class GrabRequest:
    """A packet socket on the interface ``name``."""

    name: str

    def __str__(self) -> str:
        return f"grab {self.name}"


@dataclass(frozen=True)
class CheckRequest:
    """What may I have, and is all well with you?"""

    def __str__(self) -> str:
        return "check"


Request = TapRequest | GrabRequest | CheckRequest


def decode_request(message: Message) -> Request:
    """Return the request in ``message``; EINVAL with what is wrong with it, EOPNOTSUPP for an unknown op."""
    fields = dict(message)
    op = fields.pop("op", None)
    if op not in ("tap", "grab", "check"):
        raise OSError(errno.EOPNOTSUPP, f"the helper does tap, grab and check, not {_shown(op)}")
    request: Request
    if op == "check":
        request = CheckRequest()
    elif op == "grab":
        request = GrabRequest(check_name(_text(fields, "name"), "grab"))
    else:
        request = _tap(fields)
    if fields:
        raise OSError(errno.EINVAL, f"{op} has no field {_shown(min(fields))}")
    return request


def _tap(fields: Message) -> TapRequest:
    name = check_name(_text(fields, "name"), "tap") or DEFAULT_TAP_NAME
    mac, mtu = fields.pop("mac", None), fields.pop("mtu", None)
    up, addresses = fields.pop("up", False), fields.pop("addresses", [])
    if mac is not None:
        if not isinstance(mac, str):
            raise OSError(errno.EINVAL, f"mac is a text or null, not {_shown(mac)}")
        mac = parse_mac(mac).hex(":")
    if mtu is not None and (type(mtu) is not int or mtu < 1):
        raise OSError(errno.EINVAL, f"mtu is a number of bytes or null, not {_shown(mtu)}")
    if type(up) is not bool:
        raise OSError(errno.EINVAL, f"up is true or false, not {_shown(up)}")
    if not isinstance(addresses, list) or len(addresses) > MAX_ADDRESSES:
        raise OSError(errno.EINVAL, f"addresses is a list of at most {MAX_ADDRESSES} addresses")
    return TapRequest(name, mac, mtu, up, tuple(_address(address) for address in addresses))


def _text(fields: Message, key: str) -> str:
    value = fields.pop(key, "")
    if not isinstance(value, str):
        raise OSError(errno.EINVAL, f"{key} is a text, not {_shown(value)}")
    return value


def _address(value: Any) -> str:
    if isinstance(value, str) and len(value) <= MAX_TEXT and "%" not in value:
        try:
            return str(ipaddress.ip_interface(value))
        except ValueError:
            pass
    raise OSError(errno.EINVAL, f"{_shown(value)} is no address like 10.0.0.1/24")


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
