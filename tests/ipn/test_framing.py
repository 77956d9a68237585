"""The stream framing: what goes in comes out, however it is cut; a length beyond the limit is an error."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipn.abi import MAX_MTU
from ipn.framing import FrameDecoder, FramingError, encode_frame, encode_frames

frames_lists = st.lists(st.binary(max_size=300), max_size=12)


def cut_at(stream: bytes, positions: list[int]) -> list[bytes]:
    """Return ``stream`` in the pieces that cuts at ``positions`` (modulo its length) make."""
    cuts = sorted({position % (len(stream) + 1) for position in positions})
    return [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def test_a_frame_is_its_length_in_four_big_endian_bytes_and_then_itself() -> None:
    assert encode_frame(b"hello") == b"\x00\x00\x00\x05hello"
    assert encode_frame(b"") == b"\x00\x00\x00\x00"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_can_be_a_frame(kind: type) -> None:
    assert encode_frame(kind(b"hello")) == b"\x00\x00\x00\x05hello"
    assert encode_frames([kind(b"a"), kind(b"bc")]) == b"\x00\x00\x00\x01a\x00\x00\x00\x02bc"
    assert FrameDecoder().feed(kind(b"\x00\x00\x00\x01a")) == [b"a"]


@given(frames_lists)
def test_many_frames_are_encoded_as_one_after_the_other(frames: list[bytes]) -> None:
    assert encode_frames(frames) == b"".join(encode_frame(frame) for frame in frames)


@given(frames_lists, st.lists(st.integers(min_value=0), max_size=20))
def test_however_a_stream_is_cut_the_same_frames_come_out(frames: list[bytes], positions: list[int]) -> None:
    decoder = FrameDecoder()
    pieces = cut_at(encode_frames(frames), positions)
    assert [frame for piece in pieces for frame in decoder.feed(piece)] == frames
    assert decoder.pending == 0


@given(frames_lists)
def test_frames_come_out_of_single_bytes_each_as_soon_as_it_is_complete(frames: list[bytes]) -> None:
    decoder = FrameDecoder()
    for frame in frames:
        encoded = encode_frame(frame)
        for position in range(len(encoded) - 1):
            assert decoder.feed(encoded[position : position + 1]) == []
            assert decoder.pending == position + 1
        assert decoder.feed(encoded[-1:]) == [frame]


@given(frames_lists, st.binary(min_size=1, max_size=50), st.data())
def test_the_beginning_of_a_frame_waits_for_its_rest(frames: list[bytes], last: bytes, data: st.DataObject) -> None:
    encoded = encode_frame(last)
    cut = data.draw(st.integers(min_value=1, max_value=len(encoded) - 1))
    decoder = FrameDecoder()
    assert decoder.feed(encode_frames(frames) + encoded[:cut]) == frames
    assert decoder.pending == cut
    assert decoder.feed(encoded[cut:]) == [last]
    assert decoder.pending == 0


@given(st.integers(min_value=0, max_value=40))
def test_a_frame_of_exactly_the_limit_passes_and_one_byte_more_does_not(limit: int) -> None:
    assert FrameDecoder(limit).feed(encode_frame(bytes(limit))) == [bytes(limit)]
    with pytest.raises(FramingError, match=rf"{limit + 1} bytes .* at most {limit} "):
        FrameDecoder(limit).feed(encode_frame(bytes(limit + 1)))


@pytest.mark.parametrize("length", [MAX_MTU + 1, 2**31, 2**32 - 1])
def test_by_default_no_length_beyond_16_mib_is_believed(length: int) -> None:
    with pytest.raises(FramingError):
        FrameDecoder().feed(struct.pack(">I", length))


def test_a_wrong_length_is_found_before_any_byte_of_its_frame_has_come() -> None:
    decoder = FrameDecoder(100)
    assert decoder.feed(b"\xff\xff\xff") == []
    with pytest.raises(FramingError):
        decoder.feed(b"\xff")


def test_nothing_is_trusted_any_more_after_a_wrong_length() -> None:
    decoder = FrameDecoder(100)
    with pytest.raises(FramingError):
        decoder.feed(b"\xff\xff\xff\xff")
    with pytest.raises(FramingError):
        decoder.feed(encode_frame(b"good"))


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_noise_gives_frames_within_the_limit_or_a_framing_error_and_never_grows(noise: list[bytes]) -> None:
    limit = 32
    decoder = FrameDecoder(limit)
    with contextlib.suppress(FramingError):
        for piece in noise:
            assert all(len(frame) <= limit for frame in decoder.feed(piece))
            assert decoder.pending < limit + 4


def test_frames_that_came_out_are_not_changed_by_what_comes_later() -> None:
    decoder = FrameDecoder()
    (first,) = decoder.feed(encode_frame(b"first"))
    decoder.feed(encode_frame(b"other"))
    assert first == b"first"
    assert isinstance(first, bytes)
