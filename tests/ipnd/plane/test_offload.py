"""Finishing frames: each segment is byte for byte what scapy builds; nonsense is refused, and nothing worse."""

from __future__ import annotations

import random
import struct
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from ipn.framing import encode_frames
from ipnd.plane.batch import REGULAR, cut
from ipnd.plane.gso import (
    DATA_VALID,
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    HEADER,
    MAX_HEADERS,
    MAX_SEGMENTS,
    NEEDS_CSUM,
    PLAIN,
)
from ipnd.plane.offload import (
    finish,
    finish_run,
    is_unfinished,
    segment_length,
    tagged,
)
from ipnd.policies.ethernet import pop_tag, push_tag

FIN_PSH, CWR = 0x09, 0x80
HOP = "fd00::99"
"""Where a routing header goes through: not the last destination, which is what the checksum is about."""
TAGS = [(), (Dot1Q(vlan=7),), (Dot1AD(vlan=9), Dot1Q(vlan=7, prio=5))]
EXTENSIONS_V6 = [
    (),
    (IPv6ExtHdrHopByHop(),),
    (IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(addresses=["fd00::2"]), IPv6ExtHdrDestOpt()),
]


class Sent(NamedTuple):
    """What a sender hands over: enough to build the whole frame, and each of its segments, with scapy."""

    version: int
    protocol: int
    below: Packet
    """Ethernet, tags, IP and its options or extensions; the identification is that of the first segment."""
    routed: bool
    sequence: int
    flags: int
    options: int
    payload: bytes
    size: int

    def frame(self, payload: bytes, position: int = 0, flags: int = 0, checksum: int | None = None) -> bytes:
        """Return a finished frame of ``payload``, which begins at ``position`` of all; scapy fills in the rest."""
        below = self.below.copy()
        if self.version == 4:
            below[IP].id = (below[IP].id + position // self.size) % 0x10000
        if self.protocol == 17:
            return bytes(below / UDP(sport=53, dport=99, chksum=checksum) / Raw(payload))
        return bytes(
            below
            / TCP(
                sport=80,
                dport=0xFFFE,
                seq=(self.sequence + position) % 2**32,
                ack=0xABCDEF01,
                window=0x1234,
                urgptr=3,
                flags=flags,
                options=[("NOP", None)] * 4 * self.options,
                chksum=checksum,
            )
            / Raw(payload)
        )

    @property
    def transport(self) -> int:
        return len(bytes(self.below))

    @property
    def partial(self) -> int:
        """The sum of the pseudo header, as a sender leaves it for the card."""
        length = len(self.frame(self.payload, checksum=1)) - self.transport
        if self.version == 4:
            ends = bytes([10, 0, 0, 1, 10, 0, 0, 2])
        else:
            ends = bytes.fromhex("fd" + "00" * 14 + "01" + "fd" + "00" * 14 + "02")
        block = ends + struct.pack(">HH", length, self.protocol)
        total = sum(struct.unpack(f">{len(block) // 2}H", block))
        return (total & 0xFFFF) + (total >> 16)

    def unfinished(self) -> tuple[bytes, bytes]:
        """Return (the whole frame as it is handed over, its header)."""
        frame = self.frame(self.payload, flags=self.flags, checksum=self.partial)
        kind = GSO_UDP_L4 if self.protocol == 17 else GSO_TCPV4 if self.version == 4 else GSO_TCPV6
        if self.flags & CWR and self.protocol == 6:
            kind |= GSO_ECN
        return frame, header(kind, self.size, self.transport, 6 if self.protocol == 17 else 16)

    def segments(self) -> list[bytes]:
        """Return what it must become."""
        found = []
        for position in range(0, len(self.payload) or 1, self.size):
            flags = self.flags
            if position:
                flags &= ~CWR
            if position + self.size < len(self.payload):
                flags &= ~FIN_PSH
            found.append(self.frame(self.payload[position : position + self.size], position, flags))
        return found


def header(kind: int, size: int, start: int, offset: int, flags: int = NEEDS_CSUM) -> bytes:
    return struct.pack("=BBHHHH", flags, kind, min(start + 20, 0xFFFF), size, start, offset)


def checksum_only(sent: Sent) -> tuple[bytes, bytes]:
    return sent.unfinished()[0], header(GSO_NONE, 0, sent.transport, 6 if sent.protocol == 17 else 16)


def payload_of(length: int, seed: int) -> bytes:
    """Return random bytes, or for small seeds the extremes, which carry the most and the least."""
    return bytes([0, 255][seed : seed + 1]) * length if seed < 2 else random.Random(seed).randbytes(length)


@st.composite
def sendings(draw: st.DrawFn) -> Sent:
    version = draw(st.sampled_from([4, 6]))
    below: Packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for tag in draw(st.sampled_from(TAGS)):
        below /= tag
    protocol = draw(st.sampled_from([6, 17]))
    routed = False
    if version == 4:
        nops = draw(st.sampled_from([0, 4, 12, 40]))
        number = draw(st.sampled_from([0, 1, 0xFFFE]))
        below /= IP(src="10.0.0.1", dst="10.0.0.2", id=number, flags="DF", options=[IPOption_NOP()] * nops)
    else:
        extensions = draw(st.sampled_from(EXTENSIONS_V6))
        routed = len(extensions) > 1
        below /= IPv6(src="fd00::1", dst=HOP if routed else "fd00::2", fl=0x12345)
        for extension in extensions:
            below /= extension
    protocol = draw(st.sampled_from([6, 17]))
    below.lastlayer().setfieldval("proto" if version == 4 else "nh", protocol)
    size = draw(st.integers(1, 1500) | st.sampled_from([536, 1448, 1536, 1537, 8948, 9001]))
    length = draw(st.integers(0, 5 * size) | st.integers(0, 5).map(lambda times: times * size))
    return Sent(
        version,
        protocol,
        below,
        routed,
        draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32 - 2000])),
        draw(st.integers(0, 0x1FF)),
        draw(st.integers(0, 10)),
        payload_of(length, draw(st.integers(0, 50))),
        size,
    )


def simple(payload: bytes, size: int = 1448, *, version: int = 4, protocol: int = 6) -> Sent:
    """Return an ordinary sending."""
    below = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / (
        IP(src="10.0.0.1", dst="10.0.0.2", id=5, proto=protocol)
        if version == 4
        else IPv6(src="fd00::1", dst="fd00::2", nh=protocol)
    )
    return Sent(version, protocol, below, False, 1, 0x18, 3, payload, size)


# Cutting.


@given(sendings())
def test_segments_are_byte_for_byte_what_scapy_builds(sent: Sent) -> None:
    frame, its_header = sent.unfinished()
    assert finish(frame, its_header) == sent.segments()
    assert finish(memoryview(bytearray(frame)), its_header) == sent.segments()


@given(sendings(), st.sampled_from([0, DATA_VALID]))
def test_a_frame_that_was_merged_with_its_checksum_checked_is_cut_the_same(sent: Sent, flags: int) -> None:
    frame = sent.frame(sent.payload, flags=sent.flags)
    merged = bytes([flags]) + sent.unfinished()[1][1:6] + bytes(4)
    if sent.routed:
        with pytest.raises(ValueError, match="next header 43"):
            finish(frame, merged)
    else:
        assert finish(frame, merged) == sent.segments()


@given(sendings())
def test_nothing_of_the_payload_is_lost_and_sequence_numbers_are_contiguous(sent: Sent) -> None:
    found = finish(*sent.unfinished())
    headers = len(sent.frame(b"", checksum=1))
    assert b"".join(segment[headers:] for segment in found) == sent.payload
    assert all(len(segment) == headers + sent.size for segment in found[:-1])
    if sent.protocol == 6:
        position = sent.sequence
        for segment in found:
            assert int.from_bytes(segment[sent.transport + 4 : sent.transport + 8], "big") == position % 2**32
            position += len(segment) - headers


@pytest.mark.parametrize("size", [1448, 1428, 1449, 88, 40, 8948, 65000])
@pytest.mark.parametrize("version, protocol", [(4, 6), (6, 6), (4, 17), (6, 17)])
def test_frames_of_64_kib_are_cut(size: int, version: int, protocol: int) -> None:
    sent = simple(random.Random(size).randbytes(65400), size, version=version, protocol=protocol)
    frame, its_header = sent.unfinished()
    assert finish(frame, its_header) == sent.segments()


@pytest.mark.parametrize("protocol, nothing", [(6, 0), (17, 0xFFFF)])
@pytest.mark.parametrize("length", [2, 400, 2000])
def test_a_checksum_of_zero_is_written_as_ones_for_udp_only(protocol: int, nothing: int, length: int) -> None:
    place = 34 + (16 if protocol == 6 else 6)
    other = simple(bytes(length), length, protocol=protocol)
    checksum = finish(*checksum_only(other))[0][place : place + 2]
    sent = simple(checksum + bytes(length - 2), length, protocol=protocol)
    for unfinished in (checksum_only(sent), sent.unfinished()):
        (frame,) = finish(*unfinished)
        assert int.from_bytes(frame[place : place + 2], "big") == nothing


# Checksums alone.


@given(sendings())
def test_a_checksum_is_filled_in(sent: Sent) -> None:
    frame, its_header = checksum_only(sent)
    assert finish(frame, its_header) == [sent.frame(sent.payload, flags=sent.flags)]


@given(st.binary(min_size=2, max_size=700), st.data())
def test_any_block_may_be_summed_whatever_its_protocol(frame: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(frame) - 2))
    offset = data.draw(st.integers(0, len(frame) - 2 - start))
    (found,) = finish(frame, header(GSO_NONE, 0, start, offset))
    place = start + offset
    assert (found[:place], found[place + 2 :]) == (frame[:place], frame[place + 2 :])
    block = frame[start:] + bytes(len(frame) - start & 1)
    total = sum(struct.unpack(f">{len(block) // 2}H", block))
    # The field itself was counted as it was before, and may lie across words.
    checksum = int.from_bytes(found[place : place + 2], "big")
    assert (total + checksum) % 0xFFFF == 0


@pytest.mark.parametrize("flags", [0, DATA_VALID])
def test_a_finished_frame_stays_as_it_is(flags: int) -> None:
    assert finish(b"any bytes", header(GSO_NONE, 0, 0xFFFF, 0xFFFF, flags)) == [b"any bytes"]


def test_only_frames_with_something_left_to_do_are_unfinished() -> None:
    assert not is_unfinished(PLAIN)
    assert not is_unfinished(header(GSO_NONE, 0, 9, 9, DATA_VALID))
    assert is_unfinished(header(GSO_NONE, 0, 9, 9))
    assert is_unfinished(header(GSO_NONE, 0, 9, 9, NEEDS_CSUM | DATA_VALID))
    assert is_unfinished(header(GSO_TCPV4, 0, 9, 9, 0))
    assert is_unfinished(header(GSO_NONE, 0, 9, 9, 4))
    assert is_unfinished(b"")


# Refusing.


def changed(frame: bytes, at: int, value: int) -> bytes:
    return frame[:at] + bytes([value]) + frame[at + 1 :]


TCP4, TCP4_HEADER = simple(bytes(3000)).unfinished()
TCP6, TCP6_HEADER = simple(bytes(3000), version=6).unfinished()
UDP4, UDP4_HEADER = simple(bytes(3000), protocol=17).unfinished()


@pytest.mark.parametrize(
    "frame, its_header, words",
    [
        (TCP4, PLAIN[:-1], "10 bytes, not 9"),
        (TCP4, bytes([4]) + PLAIN[1:], "flags"),
        (TCP4, bytes([8]) + TCP4_HEADER[1:], "flags"),
        (TCP4, header(GSO_UDP, 1448, 34, 16), "segmentation type 0x3"),
        (TCP4, header(GSO_ECN, 1448, 34, 16), "segmentation type 0x80"),
        (UDP4, header(GSO_UDP_L4 | GSO_ECN, 1448, 34, 6), "segmentation type 0x85"),
        (TCP4, header(GSO_TCPV4, 0, 34, 16), "no bytes"),
        (TCP4, header(GSO_TCPV4, 1448, 38, 16), "38"),
        (TCP4, header(GSO_TCPV4, 1448, 34, 6), "34 \\+ 6"),
        (TCP4, header(GSO_TCPV6, 1448, 34, 16), "ethertype 0x0800"),
        (TCP4, header(GSO_UDP_L4, 1448, 34, 6), "protocol 6"),
        (UDP4, header(GSO_TCPV4, 1448, 34, 16), "protocol 17"),
        (TCP6, header(GSO_TCPV4, 1448, 54, 16), "ethertype 0x86dd"),
        (TCP6, header(GSO_UDP_L4, 1448, 54, 6), "next header 6"),
        (TCP4, header(GSO_TCPV4, 1, 34, 16), "more than"),
        (changed(TCP4, 14, 0x65), TCP4_HEADER, "version 6"),
        (changed(TCP4, 14, 0x44), TCP4_HEADER, "16 bytes"),
        (changed(TCP4, 20, 0x20), TCP4_HEADER, "fragment"),
        (changed(TCP4, 21, 1), TCP4_HEADER, "fragment"),
        (changed(TCP4, 46, 0x40), TCP4_HEADER, "TCP header of 16"),
        (changed(TCP6, 14, 0x40), TCP6_HEADER, "IPv6"),
        (changed(TCP6, 20, 44), TCP6_HEADER, "next header 44"),
        (TCP6[:20] + b"\0@" + TCP6[22:54] + b"\0\xff" + bytes(3000), TCP6_HEADER, "no end"),
        (TCP4[:41], TCP4_HEADER, "short"),
        (TCP4[:50], TCP4_HEADER, "truncated"),
        (TCP4[:60], TCP4_HEADER, "headers of"),
        (TCP6[:50], TCP6_HEADER, "IPv6"),
        (TCP4, header(GSO_NONE, 0, len(TCP4) - 17, 16), "beyond"),
        (TCP4, header(GSO_NONE, 0, 0xFFFF, 0xFFFF), "beyond"),
        (TCP4 + bytes(70000), header(GSO_TCPV4, 0xFFFF, 34, 16), "longer than IP"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(frame: bytes, its_header: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        finish(frame, its_header)


def test_a_sender_can_make_neither_endless_segments_nor_endless_headers() -> None:
    sent = simple(bytes(MAX_SEGMENTS), 1)
    assert len(finish(*sent.unfinished())) == MAX_SEGMENTS
    with pytest.raises(ValueError, match="more than"):
        finish(*simple(bytes(MAX_SEGMENTS + 1), 1).unfinished())
    # Destination options again and again, or one of them that is long.
    many = b"\x3c\x00" + bytes(6)
    long = b"\x06" + bytes([MAX_HEADERS // 8]) + bytes(6 + MAX_HEADERS)
    for extensions, words in ((many * (MAX_HEADERS // 8), "no end"), (long, f"at most {MAX_HEADERS}")):
        frame = TCP6[:20] + b"\x3c@" + TCP6[22:54] + extensions + TCP6[54:]
        with pytest.raises(ValueError, match=words):
            finish(frame, header(GSO_TCPV6, 1448, 54 + len(extensions), 16))


def only_refused(frame: bytes, its_header: bytes) -> None:
    """Check that there is either an answer or a refusal, the same in each form."""
    ends = [len(frame) + 4]
    view = memoryview(encode_frames([frame]))
    try:
        found = finish(frame, its_header)
    except ValueError:
        assert finish_run(view, ends, {0: its_header}) == (b"", [], 1)
    else:
        assert found
        run, _, broken = finish_run(view, ends, {0: its_header})
        assert (bytes(run), broken) == (encode_frames(found), 0)
    assert 0 <= segment_length(frame, its_header) <= len(frame)


@given(st.binary(max_size=200), st.binary(max_size=12) | st.binary(min_size=HEADER, max_size=HEADER))
def test_any_bytes_are_finished_or_refused(frame: bytes, its_header: bytes) -> None:
    only_refused(frame, its_header)


@given(
    st.sampled_from([simple(bytes(90), 30, version=v, protocol=p).unfinished() for v in (4, 6) for p in (6, 17)]),
    st.lists(st.tuples(st.integers(0, 109), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
)
def test_a_frame_damaged_anywhere_is_finished_or_refused(
    unfinished: tuple[bytes, bytes], damage: list[tuple[int, int]], length: int
) -> None:
    both = bytearray(unfinished[1] + unfinished[0])
    for at, value in damage:
        both[at] = value
    only_refused(bytes(both[HEADER:][:length]), bytes(both[:HEADER]))


@given(sendings())
def test_a_frame_cut_short_anywhere_in_its_headers_is_finished_or_refused(sent: Sent) -> None:
    frame, its_header = sent.unfinished()
    for length in range(min(len(frame), 160)):
        only_refused(frame[:length], its_header)


# Runs.

GSO = simple(random.Random(1).randbytes(5000)).unfinished()
EVEN = simple(random.Random(2).randbytes(400), 100, version=6).unfinished()
ACK = checksum_only(simple(b""))
BROKEN = (TCP4, header(GSO_TCPV4, 0, 34, 16))
WHOLE = (b"a frame that is finished", None)
CHECKED = (b"another", header(GSO_NONE, 0, 0, 0, DATA_VALID))


@given(st.lists(st.sampled_from([GSO, EVEN, ACK, BROKEN, WHOLE, WHOLE, CHECKED]), max_size=12), st.data())
def test_a_run_is_finished_frame_by_frame(batch: list[tuple[bytes, bytes | None]], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(batch)))
    upto = data.draw(st.integers(first, len(batch)))
    before = encode_frames(frame for frame, _ in batch)
    ends = [len(encode_frames(frame for frame, _ in batch[: index + 1])) for index in range(len(batch))]
    headers = {index: its_header for index, (_, its_header) in enumerate(batch) if its_header is not None}
    expected: list[bytes] = []
    for frame, its_header in batch[first:upto]:
        if (frame, its_header) != BROKEN:
            expected += finish(frame, its_header or PLAIN)

    run, new_ends, broken = finish_run(memoryview(before), ends, headers, first, upto)
    assert broken == batch[first:upto].count(BROKEN)
    assert run == encode_frames(expected)
    assert list(new_ends) == [len(encode_frames(expected[: index + 1])) for index in range(len(expected))]


def test_all_of_a_run_is_finished_unless_told_otherwise() -> None:
    view = memoryview(encode_frames([b"one", ACK[0]]))
    run, ends, broken = finish_run(view, [7, len(view)], {1: ACK[1]})
    assert run == encode_frames([b"one", *finish(*ACK)])
    assert (list(ends), broken) == ([7, len(view)], 0)


def test_many_frames_of_one_size_are_told_as_a_range() -> None:
    for count in (REGULAR - 1, REGULAR):
        frame, its_header = simple(bytes(count * 100), 100).unfinished()
        view = memoryview(encode_frames([frame]))
        run, ends, _ = finish_run(view, [len(view)], {0: its_header})
        ((_, _, known),), consumed, _, _ = cut(run, len(run), 1 << 16)
        assert consumed == len(run)
        assert (type(ends), list(ends)) == (type(known), list(known))


def test_a_run_of_many_headers_finished_in_short_spans_is_the_same() -> None:
    frames = [simple(bytes([index])).unfinished() for index in range(20)]
    view = memoryview(encode_frames(frame for frame, _ in frames))
    stride = len(view) // len(frames)
    ends = range(stride, len(view) + 1, stride)
    headers = {index: its_header for index, (_, its_header) in reversed(list(enumerate(frames)))}
    whole, _, _ = finish_run(view, ends, headers)
    spans = [finish_run(view, ends, headers, first, first + 2)[0] for first in range(0, 20, 2)]
    assert b"".join(spans) == whole


# What becomes of a header.


@given(sendings())
def test_the_longest_segment_is_known_beforehand(sent: Sent) -> None:
    frame, its_header = sent.unfinished()
    assert segment_length(frame, its_header) == max(map(len, finish(frame, its_header)))
    assert segment_length(*checksum_only(sent)) == len(frame)


def test_the_longest_segment_of_a_broken_frame_is_none() -> None:
    assert segment_length(*BROKEN) == 0
    assert segment_length(TCP4[:30], TCP4_HEADER) == 0
    assert segment_length(TCP4, b"") == 0


@given(sendings())
def test_tagging_a_frame_and_finishing_it_may_change_places(sent: Sent) -> None:
    assume(Dot1AD not in sent.below)  # which is two tags already, the most that may be
    for frame, its_header in (sent.unfinished(), checksum_only(sent)):
        assert tagged(tagged(its_header), -4) == its_header
        with_tag = finish(push_tag(5)(frame), tagged(its_header))
        assert [pop_tag(segment) for segment in with_tag] == finish(frame, its_header)


def test_only_fields_in_use_move_with_a_tag() -> None:
    assert tagged(PLAIN) == PLAIN
    checked = header(GSO_NONE, 0, 34, 16, DATA_VALID)
    assert tagged(checked) == checked
    unpack = struct.Struct("=BBHHHH").unpack
    assert unpack(tagged(header(GSO_NONE, 0, 34, 16))) == (1, 0, 54, 0, 38, 16)
    assert unpack(tagged(header(GSO_TCPV4, 9, 34, 16), 8)) == (1, 1, 62, 9, 42, 16)
    assert unpack(tagged(header(GSO_TCPV4, 9, 34, 16, 0))) == (0, 1, 58, 9, 34, 16)
    assert unpack(tagged(struct.pack("=BBHHHH", 1, 1, 0, 9, 0xFFFE, 16))) == (1, 1, 0, 9, 0xFFFF, 16)


@given(st.binary(max_size=12), st.integers(-70000, 70000))
def test_any_header_is_tagged_or_refused(its_header: bytes, octets: int) -> None:
    if len(its_header) != HEADER and is_unfinished(its_header):
        with pytest.raises(ValueError, match="10 bytes"):
            tagged(its_header, octets)
    else:
        assert len(tagged(its_header, octets)) == len(its_header)


def test_the_types_are_those_of_the_virtio_specification() -> None:
    assert (GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4, GSO_ECN) == (0, 1, 3, 4, 5, 0x80)
    assert (NEEDS_CSUM, DATA_VALID, len(PLAIN)) == (1, 2, HEADER)
