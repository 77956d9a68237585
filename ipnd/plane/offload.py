"""Finishing frames whose sender left work to the network card: filling in checksums, cutting up large frames. Pure.

Frames of TAPs (IFF_VNET_HDR) and packet sockets (PACKET_VNET_HDR) come with a ``struct virtio_net_hdr`` that says what
is still to do: the checksum of TCP or UDP holds only the sum of the pseudo header (NEEDS_CSUM), and up to 64 KiB may
travel as one frame that is to become segments of ``gso_size`` bytes (GSO). Ports that can take such frames get them as
they are; for all others, and before a policy edits them, they are finished here, as Linux does it
(``tcp_gso_segment``, ``inet_gso_segment``, ``__udp_gso_segment``). See virtio 1.2, 5.1.6.2 "Packet Transmission".

This is the innermost loop of traffic from a TAP to a stream, and summing is most of it. A checksum is a sum of 16-bit
words modulo 0xffff; since 0x10000 is 1 modulo 0xffff, it is also simply the remainder of the bytes read as one number.
That is the fastest way for headers, but dividing long numbers is slow. The one loop of the standard library that adds
up bytes at C speed is ``zlib.adler32``: begun at 0, its lower half is the exact sum of up to 256 bytes. So a payload
is taken apart into its high and its low bytes, and pieces of these are summed. All remainders but the last are left
out: where this file says "sum", it means a number that is right modulo 0xffff.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate, repeat
from typing import Final, NamedTuple
from zlib import adler32

from ipn.framing import LENGTH, PREFIX

from .batch import REGULAR, Ends

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

_VNET: Final = struct.Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, in the machine's byte order."""
_FINISHED: Final = frozenset({bytes((GSO_NONE, GSO_NONE)), bytes((DATA_VALID, GSO_NONE))})

_TCP: Final = 6
_UDP: Final = 17
_CHECKSUM_AT: Final = {_TCP: 16, _UDP: 6}
_LEAST_HEADER: Final = {_TCP: 20, _UDP: 8}

_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLAN_TYPES: Final = (0x8100, 0x88A8)
_ADDRESSES: Final = 12
_MOST_TAGS: Final = 2
_SHORTEST: Final = _ADDRESSES + 2 + 20 + 8
"""Ethernet, IPv4 and UDP: nothing shorter can be cut, and two VLAN tags with an ethertype fit into it."""

_KINDS: Final = {
    GSO_TCPV4: (_TCP, (_IPV4,)),
    GSO_TCPV4 | GSO_ECN: (_TCP, (_IPV4,)),
    GSO_TCPV6: (_TCP, (_IPV6,)),
    GSO_TCPV6 | GSO_ECN: (_TCP, (_IPV6,)),
    GSO_UDP_L4: (_UDP, (_IPV4, _IPV6)),
}
"""gso_type → protocol, and the ethertypes it may lie in."""

_ROUTING: Final = 43
_EXTENSIONS: Final = frozenset({0, 60, _ROUTING})
"""IPv6 headers before TCP or UDP: hop-by-hop options, destination options, routing (RFC 8200, 4)."""

_FRAGMENT: Final = 0x3FFF
"""In the fourth 16-bit word of IPv4: more fragments, and the offset."""

_TCP_FIXED: Final = struct.Struct(">4sI4sHHH")
"""ports, sequence number, acknowledgment, header length and flags, window, checksum."""
_UDP_FIXED: Final = struct.Struct(">4sHH")
"""ports, length, checksum."""
_SHORT: Final = struct.Struct(">H")
_FIN_PSH: Final = 0x09
_CWR: Final = 0x80

_EASY: Final = 256
"""Bytes up to which a plain remainder is the fastest sum."""
_ROW: Final = 6 * 256
"""Bytes that are summed in six pieces; ``adler32`` sums 256 bytes and no more without taking a remainder itself."""


class _Plan(NamedTuple):
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


def is_unfinished(header: bytes) -> bool:
    """Tell whether there may be something to do for a frame that comes with ``header``."""
    return header[:2] not in _FINISHED


def finish(frame: Frame, header: bytes) -> list[bytes]:
    """Return the finished frames that ``frame`` becomes, in order: one, or as many as it has segments.

    ``ValueError``: frame and header do not go together, or are none at all. Nothing else is raised, whatever they are.
    """
    flags, kind, _, _, start, offset = _fields(header)
    if kind != GSO_NONE:
        parts, lengths = _cut(frame, header)
        data = b"".join(parts)
        return [data[end - length + PREFIX : end] for end, length in zip(accumulate(lengths), lengths, strict=True)]
    if not flags & NEEDS_CSUM:
        return [bytes(frame)]
    copy = bytearray(frame)
    _fill_in(copy, 0, start, offset)
    return [bytes(copy)]


def finish_run(
    view: memoryview, ends: Ends, headers: Mapping[int, bytes], first: int = 0, upto: int | None = None
) -> tuple[memoryview, Ends, int]:
    """Return frames ``first`` to ``upto`` - 1 of a run finished: (a new run, its ends, frames thrown away as broken).

    ``headers``: index in the whole run → header, of the frames that are unfinished.
    """
    if upto is None:
        upto = len(ends)
    parts: list[bytes | bytearray | memoryview] = []
    lengths: list[int] = []
    done, broken = first, 0
    for index in _unfinished(headers, first, upto):
        _copy(parts, lengths, view, ends, done, index)
        done = index + 1
        start = ends[index - 1] if index else 0
        try:
            _finish_one(parts, lengths, view[start : ends[index]], headers[index])
        except ValueError:
            broken += 1
    _copy(parts, lengths, view, ends, done, upto)
    return memoryview(b"".join(parts)), _ends(lengths), broken


def segment_length(frame: Frame, header: bytes) -> int:
    """Return the length in bytes of the longest frame that ``frame`` becomes; 0 when it is broken."""
    if header[1:2] == b"\0":
        return len(frame)
    try:
        plan = _plan(frame, header)
    except ValueError:
        return 0
    return min(plan.payload + plan.size, len(frame))


def tagged(header: bytes, octets: int = 4) -> bytes:
    """Return ``header`` for a frame into which ``octets`` bytes were put before the IP header (negative: taken out).

    ``ValueError``: no header. Offsets that no longer fit become the nearest that do; they were nonsense before.
    """
    if not is_unfinished(header):
        return header
    flags, kind, headers, size, start, offset = _unpacked(header)
    if flags & NEEDS_CSUM:
        start = min(max(start + octets, 0), 0xFFFF)
    if kind != GSO_NONE and headers:
        headers = min(max(headers + octets, 0), 0xFFFF)
    return _VNET.pack(flags, kind, headers, size, start, offset)


def _unpacked(header: bytes) -> tuple[int, int, int, int, int, int]:
    if len(header) != HEADER:
        raise ValueError(f"a virtio_net_hdr has {HEADER} bytes, not {len(header)}")
    fields: tuple[int, int, int, int, int, int] = _VNET.unpack(header)
    return fields


def _fields(header: bytes) -> tuple[int, int, int, int, int, int]:
    """Return flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, if the flags are known ones."""
    fields = _unpacked(header)
    if fields[0] & ~(NEEDS_CSUM | DATA_VALID):
        raise ValueError(f"unknown flags {fields[0]:#x}")
    return fields


# A run, piece by piece.


def _unfinished(headers: Mapping[int, bytes], first: int, upto: int) -> list[int]:
    """Return which of frames ``first`` to ``upto`` - 1 have a header, in order.

    A run of many headers may be finished in many short spans: none may cost more than its own frames.
    """
    if upto - first < len(headers):
        return [index for index in range(first, upto) if index in headers]
    return sorted(index for index in headers if first <= index < upto)


def _finish_one(
    parts: list[bytes | bytearray | memoryview], lengths: list[int], prefixed: memoryview, header: bytes
) -> None:
    """Add what one frame, here with its length prefix, becomes; ``ValueError``, and nothing added, if it is broken."""
    flags, kind, _, _, start, offset = _fields(header)
    if kind != GSO_NONE:
        segments, segment_lengths = _cut(prefixed[PREFIX:], header)
        parts += segments
        lengths += segment_lengths
        return
    copy = bytearray(prefixed)
    if flags & NEEDS_CSUM:
        _fill_in(copy, PREFIX, start, offset)
    parts.append(copy)
    lengths.append(len(copy))


def _copy(
    parts: list[bytes | bytearray | memoryview],
    lengths: list[int],
    view: memoryview,
    ends: Ends,
    first: int,
    upto: int,
) -> None:
    """Add frames ``first`` to ``upto`` - 1 as they are."""
    if first >= upto:
        return
    previous = ends[first - 1] if first else 0
    parts.append(view[previous : ends[upto - 1]])
    for end in ends[first:upto]:
        lengths.append(end - previous)
        previous = end


def _ends(lengths: list[int]) -> Ends:
    """Return where frames of ``lengths`` end, each with its prefix: as a range where ``batch`` would give one."""
    if len(lengths) >= REGULAR and lengths.count(lengths[0]) == len(lengths):
        return range(lengths[0], len(lengths) * lengths[0] + 1, lengths[0])
    return list(accumulate(lengths))


# Checksums.


def _fill_in(buffer: bytearray, at: int, start: int, offset: int) -> None:
    """Sum the frame that begins ``at`` and goes to the end of ``buffer``, from its byte ``start`` on."""
    place = at + start + offset
    if place + 2 > len(buffer):
        raise ValueError(f"the checksum at {start} + {offset} is beyond a frame of {len(buffer) - at} bytes")
    block = bytes(memoryview(buffer)[at + start :])
    if len(block) <= _EASY:
        total = int.from_bytes(block) << 8 * (len(block) & 1)
    else:
        (total,) = _sums([block], len(block))
    total = -total % 0xFFFF
    if not total and offset == _CHECKSUM_AT[_UDP]:
        total = 0xFFFF  # 0 means "no checksum" in UDP (RFC 768), and only there
    buffer[place] = total >> 8
    buffer[place + 1] = total & 0xFF


def _header_sum(fields: bytes) -> int:
    """Return the sum of an even number of bytes."""
    return int.from_bytes(fields) % 0xFFFF


def _sums(blocks: list[bytes], size: int) -> list[int]:
    """Return the sum of each block of ``size`` bytes, the last of which may be shorter.

    All are padded to the same even length, then cut into rows of three pieces of high bytes and three of low ones.
    """
    rows = -(-size // _ROW)
    row = -(-size // (2 * rows)) * 2
    stride = rows * row
    padded = bytes(stride - size).join(blocks).ljust(len(blocks) * stride, b"\0")
    cut = _thirds(row // 2).iter_unpack
    found = []
    for (a, b, c), (d, e, f) in zip(cut(padded[::2]), cut(padded[1::2]), strict=True):
        high = (adler32(a, 0) & 0xFFFF) + (adler32(b, 0) & 0xFFFF) + (adler32(c, 0) & 0xFFFF)
        low = (adler32(d, 0) & 0xFFFF) + (adler32(e, 0) & 0xFFFF) + (adler32(f, 0) & 0xFFFF)
        found.append((high << 8) + low)
    return found if rows == 1 else [sum(found[at : at + rows]) for at in range(0, len(found), rows)]


@lru_cache(maxsize=64)
def _thirds(octets: int) -> struct.Struct:
    third = -(-octets // 3)
    return struct.Struct(f"{third}s{min(third, octets - third)}s{max(0, octets - 2 * third)}s")


# Cutting.


def _cut(frame: Frame, header: bytes) -> tuple[list[bytes], list[int]]:
    """Return (the segments in parts to be joined, the length of each), length prefixes included."""
    plan = _plan(frame, header)
    size = plan.size
    octets = len(frame) - plan.payload
    count = max(1, -(-octets // size))
    if count > MAX_SEGMENTS:
        raise ValueError(f"{octets} bytes in segments of {size} are more than {MAX_SEGMENTS}")
    lengths = [size] * count
    lengths[-1] = octets - (count - 1) * size
    if plan.payload - plan.network + lengths[0] > 0xFFFF:
        raise ValueError(f"a segment of {lengths[0]} bytes is longer than IP can say")

    head, payload = bytes(frame[: plan.payload]), bytes(frame[plan.payload :])
    blocks = [payload[at : at + size] for at in range(0, octets or 1, size)]
    pseudo = _pseudo_sum(head, plan, len(frame) - plan.transport)
    networks = (_ipv4_headers if plan.ethertype == _IPV4 else _ipv6_headers)(head, plan, lengths)
    options, transports = (_tcp_headers if plan.protocol == _TCP else _udp_headers)(
        head[plan.transport :], pseudo, lengths, _sums(blocks, size)
    )
    parts: list[bytes] = []
    for network, transport, block in zip(networks, transports, blocks, strict=True):
        parts += (network, transport, options, block)
    overhead = PREFIX + plan.payload
    return parts, [overhead + length for length in lengths]


def _pseudo_sum(head: bytes, plan: _Plan, octets: int) -> int:
    """Return the sum of the pseudo header without the length of TCP or UDP, which is ``octets`` in the whole frame."""
    if plan.partial:
        place = plan.transport + _CHECKSUM_AT[plan.protocol]
        return _header_sum(head[place : place + 2]) - octets
    addresses = plan.network + (12 if plan.ethertype == _IPV4 else 8)
    width = 8 if plan.ethertype == _IPV4 else 32
    return _header_sum(head[addresses : addresses + width]) + plan.protocol


def _ipv4_headers(head: bytes, plan: _Plan, lengths: list[int]) -> list[bytes]:
    """Return, for each segment, everything up to TCP or UDP, with the length prefix before it."""
    at = plan.network
    before, rest, after = head[: at + 2], head[at + 6 : at + 10], head[at + 12 : plan.transport]
    base = _header_sum(before[at:] + rest + after)
    number = _SHORT.unpack_from(head, at + 4)[0]
    pack = _ipv4_layout(len(before), len(after)).pack
    overhead = plan.payload - at
    found = []
    for length in lengths:
        length += overhead
        found.append(pack(at + length, before, length, number, rest, -(base + length + number) % 0xFFFF, after))
        number = number + 1 & 0xFFFF
    return found


@lru_cache(maxsize=64)
def _ipv4_layout(before: int, after: int) -> struct.Struct:
    """Length prefix, all before the total length, it, identification, fragment to protocol, checksum, all behind."""
    return struct.Struct(f">I{before}sHH4sH{after}s")


def _ipv6_headers(head: bytes, plan: _Plan, lengths: list[int]) -> list[bytes]:
    """Return, for each segment, everything up to TCP or UDP, with the length prefix before it."""
    at = plan.network + 4
    before, after = head[:at], head[at + 2 : plan.transport]
    overhead = plan.payload - plan.network - 40

    def pack(length: int) -> bytes:
        return b"".join((LENGTH.pack(plan.payload + length), before, _SHORT.pack(overhead + length), after))

    return [*repeat(pack(lengths[0]), len(lengths) - 1), pack(lengths[-1])]


def _tcp_headers(head: bytes, pseudo: int, lengths: list[int], sums: list[int]) -> tuple[bytes, list[bytes]]:
    """Return (urgent pointer and options, which are the same for all; for each segment all before them)."""
    ports, sequence, acknowledgment, control, window, _ = _TCP_FIXED.unpack_from(head)
    options = head[_TCP_FIXED.size :]
    controls = [control & ~(_FIN_PSH | _CWR)] * len(lengths)
    controls[0] |= control & _CWR
    controls[-1] |= control & _FIN_PSH
    base = pseudo + len(head) + _header_sum(ports + acknowledgment + options) + window
    pack = _TCP_FIXED.pack
    found = []
    for total, length, control in zip(sums, lengths, controls, strict=True):
        total = -(base + length + sequence + control + total) % 0xFFFF
        found.append(pack(ports, sequence, acknowledgment, control, window, total))
        sequence = sequence + length & 0xFFFFFFFF
    return options, found


def _udp_headers(head: bytes, pseudo: int, lengths: list[int], sums: list[int]) -> tuple[bytes, list[bytes]]:
    """Return (nothing, there are no options; for each segment its header)."""
    ports = head[:4]
    base = pseudo + _header_sum(ports)
    pack = _UDP_FIXED.pack
    found = []
    for total, length in zip(sums, lengths, strict=True):
        length += len(head)
        # The length counts twice, in the pseudo header, too. 0 would mean "no checksum".
        found.append(pack(ports, length, -(base + 2 * length + total) % 0xFFFF or 0xFFFF))
    return b"", found


# Where the headers are.


def _plan(frame: Frame, header: bytes) -> _Plan:
    """Return how to cut a GSO frame; ``ValueError`` when its headers are not what its gso_type says."""
    flags, kind, _, size, start, offset = _fields(header)
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
    behind = _behind_ipv4 if ethertype == _IPV4 else _behind_ipv6
    transport = behind(frame, network, protocol, partial)
    if partial and (start, offset) != (transport, _CHECKSUM_AT[protocol]):
        raise ValueError(f"the checksum is said to be at {start} + {offset}, but protocol {protocol} is at {transport}")
    length = _LEAST_HEADER[protocol]
    if transport + length > len(frame):
        raise ValueError("truncated before the end of the TCP or UDP header")
    if protocol == _TCP:
        length = frame[transport + 12] >> 4 << 2
        if length < _LEAST_HEADER[_TCP]:
            raise ValueError(f"a TCP header of {length} bytes")
    payload = transport + length
    if payload > min(len(frame), MAX_HEADERS):
        raise ValueError(f"headers of {payload} bytes in a frame of {len(frame)}; at most {MAX_HEADERS} are allowed")
    return _Plan(protocol, ethertype, network, transport, payload, size, partial)


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
