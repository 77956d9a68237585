"""IPv6 packets (RFC 8200): checked, written, sent one hop further. Pure.

Extension headers are the destination's business and pass unread; what is addressed to the router itself must come
without them. A jumbogram (length 0) is not taken.
"""

from __future__ import annotations

import struct
from typing import Final

from .checksum import checksum
from .packet import Discard, Packet

HEADER: Final = struct.Struct(">IHBB16s16s")
MINIMUM_MTU: Final = 1280
ICMP: Final = 58
FRAGMENT: Final = 44
UNSPECIFIED: Final = bytes(16)
ALL_NODES: Final = bytes.fromhex("ff02" + "00" * 13 + "01")
ALL_ROUTERS: Final = bytes.fromhex("ff02" + "00" * 13 + "02")
_LOOPBACK: Final = bytes(15) + b"\1"
_MAPPED: Final = bytes(10) + b"\xff\xff"


def decode(block: bytes) -> Packet:
    """Return the packet at the start of ``block``; what is behind it is padding. ``Discard`` when it is no good."""
    if len(block) < HEADER.size:
        raise Discard("ip truncated")
    first, length, following, hops, source, destination = HEADER.unpack_from(block)
    if first >> 28 != 6:
        raise Discard("ip version wrong")
    end = HEADER.size + length
    if end > len(block):
        raise Discard("ip length wrong")
    offset = int.from_bytes(block[42:44], "big") >> 3 if following == FRAGMENT else 0
    return Packet(
        raw=block[:end],
        source=source,
        destination=destination,
        protocol=following,
        hops=hops,
        payload=block[HEADER.size : end],
        fragment=following == FRAGMENT,
        later=offset > 0,
    )


def encode(source: bytes, destination: bytes, following: int, payload: bytes, hops: int = 64) -> bytes:
    """Return a packet without extension headers."""
    return HEADER.pack(6 << 28, len(payload), following, hops, source, destination) + payload


def hop(raw: bytes) -> bytes:
    """Return the packet with one hop less to live."""
    return b"%b%c%b" % (raw[:7], raw[7] - 1, raw[8:])


def pseudo(source: bytes, destination: bytes, following: int, length: int) -> bytes:
    """Return what is summed up before a payload (RFC 8200, 8.1)."""
    return source + destination + length.to_bytes(4, "big") + following.to_bytes(4, "big")


def sealed(source: bytes, destination: bytes, message: bytes) -> bytes:
    """Return an ICMPv6 ``message`` with its checksum, which was 0, filled in."""
    value = checksum(pseudo(source, destination, ICMP, len(message)) + message)
    return message[:2] + value.to_bytes(2, "big") + message[4:]


def link_local(address: bytes) -> bool:
    """Tell whether ``address`` is in fe80::/10: it is never routed."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def strange(address: bytes) -> bool:
    """Tell whether ``address`` is none a packet to be routed comes from or goes to: none, loopback, groups, mapped."""
    return address[0] == 0xFF or address in (UNSPECIFIED, _LOOPBACK) or address[:12] == _MAPPED


def solicited(address: bytes) -> bytes:
    """Return the solicited-node group of ``address`` (RFC 4291, 2.7.1)."""
    return bytes.fromhex("ff0200000000000000000001ff") + address[13:]


def group_mac(address: bytes) -> bytes:
    """Return the MAC address of the group ``address`` (RFC 2464, 7)."""
    return b"\x33\x33" + address[12:]


def from_mac(mac: bytes) -> bytes:
    """Return the link-local address that belongs to ``mac`` (RFC 4291, appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
