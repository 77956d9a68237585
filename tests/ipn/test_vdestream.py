"""VDE's stream and batches of this project's framing: each way, whole, in pieces, and with what the one cannot say."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipn.vdestream import MAX_FRAME, BatchEncoder, StreamDecoder, encode_run, in_chunks

FRAMES = st.lists(st.binary(max_size=40), max_size=12)
CUTS = st.lists(st.integers(0, 500), max_size=6)


def stream(*frames: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(frame)) + frame for frame in frames)


def batch(*frames: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)


def ends(*frames: bytes) -> list[int]:
    return [len(batch(*frames[: count + 1])) for count in range(len(frames))]


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    points = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    yield from (data[start:stop] for start, stop in pairwise(points))


# -- the decoder -----------------------------------------------------------------------------------------------------


def test_frames_that_come_whole_are_a_batch() -> None:
    assert StreamDecoder().feed(stream(b"one", b"two!", b"x" * MAX_FRAME)) == batch(b"one", b"two!", b"x" * MAX_FRAME)


def test_frames_that_come_byte_by_byte_are_complete_with_their_last_one() -> None:
    decoder = StreamDecoder()
    fed = [decoder.feed(bytes([byte])) for byte in stream(b"one", b"", b"t")]
    assert fed == [b""] * 4 + [batch(b"one")] + [b""] * 4 + [batch(b"t")]


def test_the_beginning_of_a_frame_waits_for_the_rest() -> None:
    decoder = StreamDecoder()
    assert decoder.feed(stream(b"one", b"two")[:-1]) == batch(b"one")
    assert decoder.feed(b"o" + stream(b"three")) == batch(b"two", b"three")


def test_lengths_of_nothing_bring_nothing() -> None:
    assert StreamDecoder().feed(stream(b"", b"", b"one", b"")) == batch(b"one")


@given(FRAMES, CUTS)
def test_what_comes_does_not_depend_on_where_the_stream_is_cut(frames: list[bytes], cuts: list[int]) -> None:
    decoder = StreamDecoder()
    got = b"".join(decoder.feed(piece) for piece in pieces(stream(*frames), cuts))
    assert got == batch(*(frame for frame in frames if frame))


@given(st.binary(max_size=2000))
def test_every_sequence_of_bytes_is_a_stream(data: bytes) -> None:
    StreamDecoder().feed(data)


# -- the encoders ----------------------------------------------------------------------------------------------------


def test_a_run_is_encoded_with_the_new_place_of_each_end() -> None:
    frames = (b"one", b"three", b"x" * MAX_FRAME)
    encoded = encode_run(memoryview(batch(*frames)), ends(*frames))
    assert encoded == (stream(*frames), [5, 12, 12 + 2 + MAX_FRAME], 0)


def test_of_a_run_a_frame_that_is_too_long_leaves_a_length_of_nothing() -> None:
    frames = (b"one", b"x" * (MAX_FRAME + 1), b"two")
    assert encode_run(batch(*frames), ends(*frames)) == (stream(b"one", b"", b"two"), [5, 7, 12], 1)


def test_a_batch_is_encoded_in_records_and_what_is_too_long_is_left_out_and_counted() -> None:
    encoder = BatchEncoder()
    fed = encoder.feed(batch(b"one", b"", b"x" * (MAX_FRAME + 1), b"two", b"y" * MAX_FRAME))
    assert fed == [stream(b"one"), stream(b"two"), stream(b"y" * MAX_FRAME)]
    assert encoder.left_out == 1


def test_a_batch_that_comes_byte_by_byte_is_encoded_all_the_same() -> None:
    encoder = BatchEncoder()
    data = batch(b"one", b"x" * (MAX_FRAME + 1), b"two")
    got = [record for byte in data for record in encoder.feed(bytes([byte]))]
    assert (got, encoder.left_out) == ([stream(b"one"), stream(b"two")], 1)


def test_of_a_frame_that_is_left_out_nothing_is_kept() -> None:
    encoder = BatchEncoder()
    assert encoder.feed(struct.pack(">I", 0xFFFFFFFF)) == []
    assert all(encoder.feed(b"x" * (1 << 20)) == [] for _ in range(8))
    assert encoder._rest == b""


@given(FRAMES, CUTS)
def test_what_was_encoded_is_decoded_to_the_same(frames: list[bytes], cuts: list[int]) -> None:
    encoder, decoder = BatchEncoder(), StreamDecoder()
    records = [record for piece in pieces(batch(*frames), cuts) for record in encoder.feed(piece)]
    assert decoder.feed(b"".join(records)) == batch(*(frame for frame in frames if frame))


# -- chunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "chunks"),
    [
        ([], []),
        ([4, 4], [8]),
        ([4, 4, 4], [8, 4]),
        ([10], [10]),
        ([4, 11, 4], [4, 10, 1, 4]),
        ([25, 4], [10, 10, 5, 4]),
    ],
)
def test_chunks_are_whole_records_or_parts_of_one(sizes: list[int], chunks: list[int]) -> None:
    assert [len(chunk) for chunk in in_chunks([bytes(size) for size in sizes], 10)] == chunks


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=30), st.integers(2, 100))
def test_no_chunk_ends_inside_a_length(frames: list[bytes], size: int) -> None:
    chunks = list(in_chunks([stream(frame) for frame in frames], size))
    assert b"".join(chunks) == stream(*frames)
    assert all(0 < len(chunk) <= size for chunk in chunks)
    places = {len(stream(*frames[:count])) + 1 for count in range(len(frames))}  # between the bytes of a length
    position = 0
    for chunk in chunks:
        position += len(chunk)
        assert position not in places
