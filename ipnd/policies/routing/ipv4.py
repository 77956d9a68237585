"""IPv4 packets (RFC 791): checked, written, sent one hop further, cut to fit. Pure.

Packets with options are not taken: routers on today's Internet hardly forward them (RFC 7126), and the only ones in
use within a network, such as the router alert of IGMP, are in multicasts, which are bridged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from .checksum import checksum, right, update
from .packet import Discard, Packet

HEADER: Final = struct.Struct(">BBHHHBBH4s4s")
_DF: Final = 0x4000
_MF: Final = 0x2000
_OFFSET: Final = 0x1FFF


def decode(block: bytes) -> Packet:
    """Return the packet at the start of ``block``; what is behind it is padding. ``Discard`` when it is no good."""
    if len(block) < HEADER.size:
        raise Discard("ip truncated")
    first, _, length, _, flags, hops, protocol, _, source, destination = HEADER.unpack_from(block)
    if first >> 4 != 4:
        raise Discard("ip version wrong")
    header = (first & 15) * 4
    if header < HEADER.size or length < header or length > len(block):
        raise Discard("ip length wrong")
    if not right(block[:header]):
        raise Discard("ip checksum wrong")
    if header > HEADER.size:
        raise Discard("ip options")
    return Packet(
        raw=block[:length],
        source=source,
        destination=destination,
        protocol=protocol,
        hops=hops,
        payload=block[header:length],
        fragment=bool(flags & (_MF | _OFFSET)),
        later=bool(flags & _OFFSET),
        whole=bool(flags & _DF),
    )


def encode(source: bytes, destination: bytes, protocol: int, payload: bytes, hops: int = 64, flags: int = _DF) -> bytes:
    """Return a packet without options. The identification is 0: it means nothing in a packet that is never cut."""
    length = HEADER.size + len(payload)
    header = HEADER.pack(0x45, 0, length, 0, flags, hops, protocol, 0, source, destination)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def hop(raw: bytes) -> bytes:
    """Return the packet with one hop less to live, its checksum brought up to date."""
    lives = int.from_bytes(raw[8:10], "big")
    sum_ = update(int.from_bytes(raw[10:12], "big"), lives, lives - 0x100)
    return b"%b%b%b%b" % (raw[:8], (lives - 0x100).to_bytes(2, "big"), sum_.to_bytes(2, "big"), raw[12:])


def cut(raw: bytes, mtu: int) -> Iterator[bytes]:
    """Yield the fragments, each at most ``mtu`` (at least 28) octets, of a packet without options."""
    room = (mtu - HEADER.size) & ~7
    flags = int.from_bytes(raw[6:8], "big")
    payload = raw[HEADER.size :]
    for start in range(0, len(payload), room):
        part = payload[start : start + room]
        more = _MF if start + room < len(payload) else flags & _MF
        field = (flags & ~(_MF | _OFFSET)) | more | ((flags & _OFFSET) + start // 8)
        header = b"%b%b%b%b%b%b" % (
            raw[:2],
            (HEADER.size + len(part)).to_bytes(2, "big"),
            raw[4:6],
            field.to_bytes(2, "big"),
            raw[8:10],
            b"\0\0" + raw[12:20],
        )
        yield header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + part


def strange(address: bytes) -> bool:
    """Tell whether ``address`` is none a packet to be routed comes from or goes to: this host, loopback, groups."""
    return address[0] in (0, 127) or address[0] >= 224 or address[:2] == b"\xa9\xfe"
