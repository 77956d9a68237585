"""ARP for IPv4 on Ethernet (RFC 826). Pure."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from .packet import Discard

_LAYOUT: Final = struct.Struct(">HHBBH6s4s6s4s")
_ETHERNET_IPV4: Final = (1, 0x0800, 6, 4)
REQUEST: Final = 1
REPLY: Final = 2
NOBODY: Final = bytes(4)


@attrs.frozen
class Arp:
    """One message: who says (or asks) what of whom."""

    operation: int
    sender_mac: bytes
    sender: bytes
    target_mac: bytes
    target: bytes


def decode(block: bytes) -> Arp | None:
    """Return the message at the start of ``block``, None when it is about other addresses, ``Discard`` if malformed."""
    if len(block) < 8:
        raise Discard("arp truncated")
    if struct.unpack_from(">HHBB", block) != _ETHERNET_IPV4:
        return None
    if len(block) < _LAYOUT.size:
        raise Discard("arp truncated")
    message = Arp(*_LAYOUT.unpack_from(block)[4:])
    if message.operation not in (REQUEST, REPLY):
        return None
    if message.sender_mac[0] & 1 or message.sender_mac == bytes(6) or message.sender[0] >= 224:
        raise Discard("arp sender malformed")
    return message


def encode(message: Arp) -> bytes:
    """Return the 28 octets of ``message``."""
    return _LAYOUT.pack(
        *_ETHERNET_IPV4, message.operation, message.sender_mac, message.sender, message.target_mac, message.target
    )
