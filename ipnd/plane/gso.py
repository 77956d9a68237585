"""What a frame of an interface says of itself: its ``struct virtio_net_hdr``, and where its headers lie. Pure.

Both are untrusted: whatever they are, ``ValueError`` is all that comes of it. See virtio 1.2, 5.1.6.2.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from .checksum import UDP_CHECKSUM

HEADER: Final = 10
"""Bytes of a ``struct virtio_net_hdr``."""
PLAIN: Final = bytes(HEADER)
"""The header of a finished frame."""

NEEDS_CSUM: Final = 1
"""Flag: sum from ``csum_start`` to the end, and put the result at ``csum_start`` + ``csum_offset``."""
DATA_VALID: Final = 2
"""Flag: the checksums are right."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_UDP: Final = 3
"""IP fragments of one datagram (UFO): never negotiated, refused."""
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
"""Datagrams of one size in a row, IPv4 or IPv6."""
GSO_ECN: Final = 0x80
"""Beside a TCP type: the first segment may carry CWR."""

MAX_SEGMENTS: Final = 2048
"""What one frame may become. 64 KiB are 1366 segments at the least MSS that Linux uses (TCP_MIN_SND_MSS, 48)."""
MAX_HEADERS: Final = 512
"""Bytes of headers before the payload. They are repeated in each segment, so a sender must not make them endless."""

Frame = bytes | bytearray | memoryview
"""An Ethernet frame; a memoryview must be one of bytes."""

VNET: Final = struct.Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, in the machine's byte order."""

TCP: Final = 6
UDP: Final = 17
CHECKSUM_AT: Final = {TCP: 16, UDP: UDP_CHECKSUM}
_LEAST_HEADER: Final = {TCP: 20, UDP: 8}

IPV4: Final = 0x0800
IPV6: Final = 0x86DD
_VLAN_TYPES: Final = (0x8100, 0x88A8)
_ADDRESSES: Final = 12
_MOST_TAGS: Final = 2
_SHORTEST: Final = _ADDRESSES + 2 + 20 + 8
"""Ethernet, IPv4 and UDP: nothing shorter can be cut, and two VLAN tags with an ethertype fit into it."""

_KINDS: Final = {
    GSO_TCPV4: (TCP, (IPV4,)),
    GSO_TCPV4 | GSO_ECN: (TCP, (IPV4,)),
    GSO_TCPV6: (TCP, (IPV6,)),
    GSO_TCPV6 | GSO_ECN: (TCP, (IPV6,)),
    GSO_UDP_L4: (UDP, (IPV4, IPV6)),
}
"""gso_type → protocol, and the ethertypes it may lie in."""

_ROUTING: Final = 43
_EXTENSIONS: Final = frozenset({0, 60, _ROUTING})
"""IPv6 headers before TCP or UDP: hop-by-hop options, destination options, routing (RFC 8200, 4)."""

_FRAGMENT: Final = 0x3FFF
"""In the fourth 16-bit word of IPv4: more fragments, and the offset."""


class Plan(NamedTuple):
    """How a frame is to be cut: where its headers lie, in bytes from its start."""

    protocol: int
    ethertype: int
    network: int
    transport: int
    payload: int
    size: int
    """Bytes of payload in each segment but the last."""
    partial: bool
    """Whether the checksum field holds the sum of the pseudo header."""


def unpacked(header: bytes) -> tuple[int, int, int, int, int, int]:
    """Return flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""
    if len(header) != HEADER:
        raise ValueError(f"a virtio_net_hdr has {HEADER} bytes, not {len(header)}")
    found: tuple[int, int, int, int, int, int] = VNET.unpack(header)
    return found


def fields(header: bytes) -> tuple[int, int, int, int, int, int]:
    """Return the same, if the flags are known ones."""
    found = unpacked(header)
    if found[0] & ~(NEEDS_CSUM | DATA_VALID):
        raise ValueError(f"unknown flags {found[0]:#x}")
    return found


def surely_fits(frame: Frame, header: bytes, mtu: int) -> bool:
    """Tell at a glance whether what ``frame`` is to become has at most ``mtu`` bytes; False: look closely."""
    _, kind, _, size, start, _ = VNET.unpack(header)
    if kind not in _KINDS or not start or start + 12 >= len(frame):
        return False
    return bool(start + (frame[start + 12] >> 4 << 2) + size <= mtu)


def plan_of(frame: Frame, header: bytes) -> Plan:
    """Return how to cut a GSO frame; ``ValueError`` when its headers are not what its gso_type says."""
    flags, kind, _, size, start, offset = fields(header)
    if kind not in _KINDS:
        raise ValueError(f"unknown segmentation type {kind:#x}")
    protocol, ethertypes = _KINDS[kind]
    if not size:
        raise ValueError("segments of no bytes")
    if len(frame) < _SHORTEST:
        raise ValueError(f"a frame of {len(frame)} bytes is too short to be cut")
    network, ethertype = _behind_tags(frame)
    if ethertype not in ethertypes:
        raise ValueError(f"segmentation type {kind:#x} in a frame of ethertype {ethertype:#06x}")
    partial = bool(flags & NEEDS_CSUM)
    behind = _behind_ipv4 if ethertype == IPV4 else _behind_ipv6
    transport = behind(frame, network, protocol, partial)
    if partial and (start, offset) != (transport, CHECKSUM_AT[protocol]):
        raise ValueError(f"the checksum is said to be at {start} + {offset}, but protocol {protocol} is at {transport}")
    length = _LEAST_HEADER[protocol]
    if transport + length > len(frame):
        raise ValueError("truncated before the end of the TCP or UDP header")
    if protocol == TCP:
        length = frame[transport + 12] >> 4 << 2
        if length < _LEAST_HEADER[TCP]:
            raise ValueError(f"a TCP header of {length} bytes")
    payload = transport + length
    if payload > min(len(frame), MAX_HEADERS):
        raise ValueError(f"headers of {payload} bytes in a frame of {len(frame)}; at most {MAX_HEADERS} are allowed")
    return Plan(protocol, ethertype, network, transport, payload, size, partial)


def _behind_tags(frame: Frame) -> tuple[int, int]:
    """Return (where the header behind Ethernet and VLAN tags begins, its ethertype)."""
    at = _ADDRESSES
    for _ in range(_MOST_TAGS + 1):
        ethertype = frame[at] << 8 | frame[at + 1]
        at += 2
        if ethertype not in _VLAN_TYPES:
            break
        at += 2
    return at, ethertype


def _behind_ipv4(frame: Frame, network: int, protocol: int, _: bool) -> int:
    """Return where TCP or UDP begins."""
    version, length = frame[network] >> 4, (frame[network] & 0xF) << 2
    if version != 4 or length < 20:
        raise ValueError(f"not an IPv4 header: version {version}, {length} bytes")
    if frame[network + 9] != protocol:
        raise ValueError(f"protocol {frame[network + 9]} where {protocol} is to be cut")
    if (frame[network + 6] << 8 | frame[network + 7]) & _FRAGMENT:
        raise ValueError("a fragment cannot be cut")
    return network + length


def _behind_ipv6(frame: Frame, network: int, protocol: int, partial: bool) -> int:
    """Return where TCP or UDP begins.

    ``partial``: the sum of the pseudo header is known. Otherwise there may be no routing header, for with one the
    pseudo header holds another address than the IPv6 header (RFC 8200, 8.1).
    """
    at = network + 40
    if at > len(frame) or frame[network] >> 4 != 6:
        raise ValueError("not an IPv6 header")
    following = frame[network + 6]
    while following in _EXTENSIONS and (partial or following != _ROUTING):
        if at + 8 > min(len(frame), MAX_HEADERS):
            raise ValueError("the IPv6 extension headers have no end")
        following, at = frame[at], at + 8 * (1 + frame[at + 1])
    if following != protocol:
        raise ValueError(f"IPv6 next header {following} where {protocol} is to be cut")
    return at
