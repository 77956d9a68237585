"""Neighbour discovery for IPv6 (RFC 4861): solicitations and advertisements of neighbours and routers. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from .checksum import right
from .ipv6 import FRAGMENT, ICMP, UNSPECIFIED, encode, pseudo, sealed
from .packet import Discard, Packet

ROUTER_SOLICITATION: Final = 133
ROUTER_ADVERTISEMENT: Final = 134
NEIGHBOUR_SOLICITATION: Final = 135
NEIGHBOUR_ADVERTISEMENT: Final = 136
REDIRECT: Final = 137

IS_ROUTER: Final = 0x80
SOLICITED: Final = 0x40
OVERRIDE: Final = 0x20

_EXTENSIONS: Final = frozenset({0, 43, FRAGMENT, 60})
"""Hop-by-hop options, routing, fragment, destination options."""
_SOURCE_MAC: Final = 1
_TARGET_MAC: Final = 2
_PREFIX: Final = 3
_MTU: Final = 5
_ON_LINK_AUTONOMOUS: Final = 0xC0
ROUTER_LIFETIME: Final = 1800
_VALID: Final = 86400
_PREFERRED: Final = 14400


@attrs.frozen
class Discovery:
    """A message of a node: what it is about, its sender's MAC address if it gave one, and the flags."""

    kind: int
    target: bytes = b""
    mac: bytes | None = None
    flags: int = 0


def is_discovery(packet: Packet) -> bool:
    """Tell whether an IPv6 packet is one of the five messages."""
    return packet.protocol == ICMP and bool(packet.payload) and ROUTER_SOLICITATION <= packet.payload[0] <= REDIRECT


def is_hidden(packet: Packet) -> bool:
    """Tell whether an IPv6 packet holds one of the five behind extension headers: nobody needs that (RFC 6980)."""
    following, rest = packet.protocol, packet.payload
    while following in _EXTENSIONS and len(rest) >= 8:
        size = 8 if following == FRAGMENT else 8 + rest[1] * 8
        following, rest = rest[0], rest[size:]
    return rest != packet.payload and following == ICMP and bool(rest) and ROUTER_SOLICITATION <= rest[0] <= REDIRECT


def decode(packet: Packet) -> Discovery | None:
    """Return what a packet says, None for a router's message, ``Discard`` when it is not valid (RFC 4861, 6.1, 7.1)."""
    message = packet.payload
    if packet.hops != 255:
        raise Discard("nd hop limit wrong")
    if len(message) < 8:
        raise Discard("nd truncated")
    if not right(pseudo(packet.source, packet.destination, ICMP, len(message)) + message):
        raise Discard("icmp checksum wrong")
    if message[1] != 0:
        raise Discard("nd malformed")
    kind = message[0]
    if kind == ROUTER_SOLICITATION:
        return Discovery(kind, mac=_mac(packet, message[8:], _SOURCE_MAC))
    if kind in (ROUTER_ADVERTISEMENT, REDIRECT):
        return None
    if len(message) < 24:
        raise Discard("nd truncated")
    target = message[8:24]
    wanted = _SOURCE_MAC if kind == NEIGHBOUR_SOLICITATION else _TARGET_MAC
    flags = message[4] if kind == NEIGHBOUR_ADVERTISEMENT else 0
    if target[0] == 0xFF or (packet.destination[0] == 0xFF and flags & SOLICITED):
        raise Discard("nd malformed")
    return Discovery(kind, target, _mac(packet, message[24:], wanted), flags)


def _mac(packet: Packet, block: bytes, wanted: int) -> bytes | None:
    """Return the first link-layer address of the kind ``wanted`` among the options."""
    found = None
    for option, value in _options(block):
        if option == wanted and len(value) == 6 and found is None:
            found = value
    if found is not None and (found[0] & 1 or (wanted == _SOURCE_MAC and packet.source == UNSPECIFIED)):
        raise Discard("nd malformed")
    return found


def _options(block: bytes) -> Iterator[tuple[int, bytes]]:
    while block:
        length = block[1] * 8 if len(block) > 1 else 0
        if length == 0 or length > len(block):
            raise Discard("nd options malformed")
        yield block[0], block[2:length]
        block = block[length:]


def neighbour_solicitation(source: bytes, destination: bytes, target: bytes, mac: bytes) -> bytes:
    """Return the packet that asks for the MAC address of ``target``, or whether it is still there."""
    message = bytes([NEIGHBOUR_SOLICITATION, 0, 0, 0]) + bytes(4) + target + bytes([_SOURCE_MAC, 1]) + mac
    return encode(source, destination, ICMP, sealed(source, destination, message), hops=255)


def neighbour_advertisement(source: bytes, destination: bytes, target: bytes, mac: bytes, flags: int) -> bytes:
    """Return the packet that says where ``target`` is."""
    message = bytes([NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags]) + bytes(3) + target + bytes([_TARGET_MAC, 1]) + mac
    return encode(source, destination, ICMP, sealed(source, destination, message), hops=255)


def router_advertisement(
    source: bytes, destination: bytes, mac: bytes, mtu: int, prefixes: Iterable[tuple[bytes, int]]
) -> bytes:
    """Return the packet that makes hosts use this router, and addresses of their own in ``prefixes`` (network, length).

    Only prefixes of 64 bits are for such addresses (RFC 4862, 5.5.3); the others are said to be on the link.
    """
    message = struct.pack(">BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, ROUTER_LIFETIME, 0, 0)
    message += bytes([_SOURCE_MAC, 1]) + mac + struct.pack(">BBHI", _MTU, 1, 0, mtu)
    for network, length in prefixes:
        flags = _ON_LINK_AUTONOMOUS if length == 64 else 0x80
        message += struct.pack(">BBBBIII16s", _PREFIX, 4, length, flags, _VALID, _PREFERRED, 0, network)
    return encode(source, destination, ICMP, sealed(source, destination, message), hops=255)
