"""Finishing frames whose sender left work to the network card: filling in checksums, cutting up large frames. Pure.

Frames of TAPs (IFF_VNET_HDR) and packet sockets (PACKET_VNET_HDR) come with a ``struct virtio_net_hdr`` that says what
is still to do: the checksum of TCP or UDP holds only the sum of the pseudo header (NEEDS_CSUM), and up to 64 KiB may
travel as one frame that is to become segments of ``gso_size`` bytes (GSO). Ports that can take such frames get them as
they are; for all others, and before a policy edits them, they are finished here, as Linux does it
(``tcp_gso_segment``, ``inet_gso_segment``, ``__udp_gso_segment``). See virtio 1.2, 5.1.6.2 "Packet Transmission".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate, repeat
from typing import Final

from ipn.framing import LENGTH, PREFIX

from .batch import REGULAR, Ends
from .checksum import fill_in, header_sum, sums
from .gso import (
    CHECKSUM_AT,
    DATA_VALID,
    GSO_NONE,
    IPV4,
    MAX_SEGMENTS,
    NEEDS_CSUM,
    TCP,
    VNET,
    Frame,
    Plan,
    fields,
    plan_of,
    unpacked,
)

_FINISHED: Final = frozenset({bytes((GSO_NONE, GSO_NONE)), bytes((DATA_VALID, GSO_NONE))})

_TCP_FIXED: Final = struct.Struct(">4sI4sHHH")
"""ports, sequence number, acknowledgment, header length and flags, window, checksum."""
_UDP_FIXED: Final = struct.Struct(">4sHH")
"""ports, length, checksum."""
_SHORT: Final = struct.Struct(">H")
_FIN_PSH: Final = 0x09
_CWR: Final = 0x80


def is_unfinished(header: bytes) -> bool:
    """Tell whether there may be something to do for a frame that comes with ``header``."""
    return header[:2] not in _FINISHED


def finish(frame: Frame, header: bytes) -> list[bytes]:
    """Return the finished frames that ``frame`` becomes, in order: one, or as many as it has segments.

    ``ValueError``: frame and header do not go together, or are none at all. Nothing else is raised, whatever they are.
    """
    flags, kind, _, _, start, offset = fields(header)
    if kind != GSO_NONE:
        parts, lengths = _cut(frame, header)
        data = b"".join(parts)
        return [data[end - length + PREFIX : end] for end, length in zip(accumulate(lengths), lengths, strict=True)]
    if not flags & NEEDS_CSUM:
        return [bytes(frame)]
    copy = bytearray(frame)
    fill_in(copy, 0, start, offset)
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
        plan = plan_of(frame, header)
    except ValueError:
        return 0
    return min(plan.payload + plan.size, len(frame))


def tagged(header: bytes, octets: int = 4) -> bytes:
    """Return ``header`` for a frame into which ``octets`` bytes were put before the IP header (negative: taken out).

    ``ValueError``: no header. Offsets that no longer fit become the nearest that do; they were nonsense before.
    """
    if not is_unfinished(header):
        return header
    flags, kind, headers, size, start, offset = unpacked(header)
    if flags & NEEDS_CSUM:
        start = min(max(start + octets, 0), 0xFFFF)
    if kind != GSO_NONE and headers:
        headers = min(max(headers + octets, 0), 0xFFFF)
    return VNET.pack(flags, kind, headers, size, start, offset)


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
    flags, kind, _, _, start, offset = fields(header)
    if kind != GSO_NONE:
        segments, segment_lengths = _cut(prefixed[PREFIX:], header)
        parts += segments
        lengths += segment_lengths
        return
    copy = bytearray(prefixed)
    if flags & NEEDS_CSUM:
        fill_in(copy, PREFIX, start, offset)
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


# Cutting.


def _cut(frame: Frame, header: bytes) -> tuple[list[bytes], list[int]]:
    """Return (the segments in parts to be joined, the length of each), length prefixes included."""
    plan = plan_of(frame, header)
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
    networks = (_ipv4_headers if plan.ethertype == IPV4 else _ipv6_headers)(head, plan, lengths)
    options, transports = (_tcp_headers if plan.protocol == TCP else _udp_headers)(
        head[plan.transport :], pseudo, lengths, sums(blocks, size)
    )
    parts: list[bytes] = []
    for network, transport, block in zip(networks, transports, blocks, strict=True):
        parts += (network, transport, options, block)
    overhead = PREFIX + plan.payload
    return parts, [overhead + length for length in lengths]


def _pseudo_sum(head: bytes, plan: Plan, octets: int) -> int:
    """Return the sum of the pseudo header without the length of TCP or UDP, which is ``octets`` in the whole frame."""
    if plan.partial:
        place = plan.transport + CHECKSUM_AT[plan.protocol]
        return header_sum(head[place : place + 2]) - octets
    addresses = plan.network + (12 if plan.ethertype == IPV4 else 8)
    width = 8 if plan.ethertype == IPV4 else 32
    return header_sum(head[addresses : addresses + width]) + plan.protocol


def _ipv4_headers(head: bytes, plan: Plan, lengths: list[int]) -> list[bytes]:
    """Return, for each segment, everything up to TCP or UDP, with the length prefix before it."""
    at = plan.network
    before, rest, after = head[: at + 2], head[at + 6 : at + 10], head[at + 12 : plan.transport]
    base = header_sum(before[at:] + rest + after)
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


def _ipv6_headers(head: bytes, plan: Plan, lengths: list[int]) -> list[bytes]:
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
    base = pseudo + len(head) + header_sum(ports + acknowledgment + options) + window
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
    base = pseudo + header_sum(ports)
    pack = _UDP_FIXED.pack
    found = []
    for total, length in zip(sums, lengths, strict=True):
        length += len(head)
        # The length counts twice, in the pseudo header, too. 0 would mean "no checksum".
        found.append(pack(ports, length, -(base + 2 * length + total) % 0xFFFF or 0xFFFF))
    return b"", found
