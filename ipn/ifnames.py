"""What interfaces of the host may be called, which MAC addresses and MTUs they may have. Pure."""

from __future__ import annotations

import errno
from typing import Final

NAME_MAX: Final = 15
"""Longest name of an interface in bytes (IFNAMSIZ without its NUL)."""
DEFAULT_TAP_NAME: Final = "ipn%d"
"""The kernel puts the lowest free number for the ``%d``."""

MIN_MTU: Final = 68
ETHERNET_HEADER: Final = 14
MAX_TAP_MTU: Final = 65521
"""What the kernel lets a TAP have: 65,535 without the Ethernet header."""


def check_name(name: str, kind: str = "tap") -> str:
    """Return ``name`` if an interface may be called so; EINVAL, with what is wrong, if not.

    A TAP's may be empty (the default) or have one ``%d``, for which the kernel puts the lowest free number.
    """
    if problem := _wrong_with_name(name, kind):
        raise OSError(errno.EINVAL, problem)
    return name


def _wrong_with_name(name: str, kind: str) -> str:
    if not name:
        return "" if kind == "tap" else "the name of an interface is missing"
    shown = ascii(name if len(name) <= 64 else f"{name[:64]}…")
    if not name.isprintable() or any(character.isspace() for character in name):
        return f"{shown} is no interface's name: there is a space or a control character in it"
    if "/" in name or name in (".", ".."):
        return f"{shown} is no interface's name but a path"
    if ":" in name:
        return f"{shown} is no interface's name: what has a colon in it is an alias for one of its addresses"
    if len(name.encode()) > NAME_MAX:
        return f"{shown} is no interface's name: it is longer than {NAME_MAX} bytes"
    if name.count("%") > (kind == "tap" and name.count("%d") == 1):
        return f"{shown} is no interface's name: a TAP's may have one %d (the lowest free number), none has another %"
    return ""


def parse_mac(text: str) -> bytes:
    """Return the six bytes of ``02:00:00:00:00:01``; EINVAL for what is no address that an interface may have."""
    octets = text.replace("-", ":").split(":")
    digits = "0123456789abcdefABCDEF"
    if len(octets) != 6 or not all(len(octet) in (1, 2) and all(c in digits for c in octet) for octet in octets):
        raise OSError(errno.EINVAL, f"{text[:64]!a} is no MAC address like 02:00:00:00:00:01")
    mac = bytes(int(octet, 16) for octet in octets)
    if mac[0] & 1:
        raise OSError(errno.EINVAL, f"{text} is the MAC address of a group; an interface's first octet is even")
    if not any(mac):
        raise OSError(errno.EINVAL, f"{text} is no MAC address of an interface: all zero")
    return mac


def format_mac(mac: bytes) -> str:
    """Return a hardware address as ``02:00:00:00:00:01``."""
    return mac.hex(":")


def tap_mtu(frame: int) -> int:
    """Return the MTU of a TAP on a network whose frames have up to ``frame`` bytes, or the nearest it can have."""
    return min(max(frame - ETHERNET_HEADER, MIN_MTU), MAX_TAP_MTU)
