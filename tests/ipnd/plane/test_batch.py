"""Cutting a batch: the frames a plain model finds, in as few runs as possible, whatever the traffic."""

from __future__ import annotations

import itertools
import struct
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipnd.plane import batch
from ipnd.plane.batch import REGULAR, Run

MTU = 60

Buffer = bytes | bytearray | memoryview


class Expected(NamedTuple):
    """What the model says of a buffer."""

    frames: list[bytes]
    consumed: int
    skipped: int
    wanted: int


class Cut(NamedTuple):
    """What ``batch.cut`` says of a buffer."""

    runs: list[Run]
    consumed: int
    skipped: int
    wanted: int


def cut(buffer: Buffer, stop: int, mtu: int) -> Cut:
    return Cut(*batch.cut(buffer, stop, mtu))


def model(buffer: bytes, stop: int, mtu: int) -> Expected:
    """Read the buffer frame by frame, with no thought of speed."""
    frames, position, skipped = [], 0, 0
    while stop - position >= 4:
        length = int.from_bytes(buffer[position : position + 4], "big")
        if stop - position < 4 + length:
            return Expected(frames, position, skipped, 4 + length)
        if 1 <= length <= mtu:
            frames.append(bytes(buffer[position + 4 : position + 4 + length]))
        else:
            skipped += 1
        position += 4 + length
    return Expected(frames, position, skipped, 0)


def frames_of(found: Cut, buffer: Buffer) -> list[bytes]:
    """Return the frames in the runs of ``found``, checking that each run says truly where they lie."""
    frames, last = [], 0
    for start, stop, ends in found.runs:
        assert last <= start < stop <= found.consumed, "runs ascend, hold something, and do not overlap"
        assert ends[-1] == stop - start, "the last frame of a run ends with it"
        begin = 0
        for end in ends:
            (length,) = struct.unpack_from(">I", buffer, start + begin)
            assert end - begin == 4 + length
            frames.append(bytes(buffer[start + begin + 4 : start + end]))
            begin = end
        last = stop
    return frames


def framed(sizes: list[int], fill: bytes = b"\0") -> bytes:
    """Return frames of ``sizes``, each filled with ``fill`` over and over."""
    return b"".join(struct.pack(">I", size) + (fill * (size // len(fill) + 1))[:size] for size in sizes)


sizes = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 4, 8, 13, MTU - 1, MTU, MTU + 1, 200, 300]),
        st.sampled_from([1, 1, 2, 3, REGULAR - 1, REGULAR, REGULAR + 1, 2 * REGULAR]),
    ),
    max_size=8,
).map(lambda pairs: [size for size, count in pairs for _ in range(count)])
# Contents that look like length prefixes are the hard ones: where frames begin must not be guessed.
fills = st.sampled_from([b"\0", b"\1", b"\0\0\0\1", b"\0\0\0\4", b"\0\0\0\x08", b"\0\0\0\x3c", b"abc"])


@given(sizes, fills, st.data())
@settings(max_examples=200)
def test_the_frames_are_those_of_a_plain_model_wherever_the_read_stopped(
    lengths: list[int], fill: bytes, data: st.DataObject
) -> None:
    buffer = framed(lengths, fill)
    stop = data.draw(st.integers(min_value=0, max_value=len(buffer)))
    kind = data.draw(st.sampled_from([bytes, bytearray, memoryview]))
    found = cut(kind(buffer), stop, MTU)
    expected = model(buffer, stop, MTU)
    assert frames_of(found, buffer) == expected.frames
    assert found[1:] == expected[1:]


@given(st.binary(max_size=400), st.integers(min_value=0, max_value=400), st.integers(min_value=1, max_value=100))
def test_noise_is_cut_as_the_plain_model_cuts_it(noise: bytes, stop: int, mtu: int) -> None:
    stop = min(stop, len(noise))
    found = cut(noise, stop, mtu)
    expected = model(noise, stop, mtu)
    assert frames_of(found, noise) == expected.frames
    assert found[1:] == expected[1:]


@given(sizes, fills, st.binary(max_size=200))
def test_what_lies_behind_the_end_of_the_read_does_not_matter(lengths: list[int], fill: bytes, leftover: bytes) -> None:
    buffer = framed(lengths, fill)
    assert cut(buffer + leftover, len(buffer), MTU) == cut(buffer, len(buffer), MTU)


@given(sizes)
def test_only_frames_left_out_and_regular_stretches_split_a_run(lengths: list[int]) -> None:
    buffer = framed(lengths)
    runs = cut(buffer, len(buffer), MTU).runs
    for (_, stop, ends), (start, _, next_ends) in itertools.pairwise(runs):
        if stop == start:
            assert isinstance(ends, range) or isinstance(next_ends, range)
    assert all(len(ends) >= REGULAR for _, _, ends in runs if isinstance(ends, range))


@pytest.mark.parametrize("size", [1, 4, 13, MTU])
@pytest.mark.parametrize("extra", [0, 1, 100])
def test_enough_frames_of_one_size_are_one_run_described_by_a_range(size: int, extra: int) -> None:
    count, stride = REGULAR + extra, size + 4
    buffer = framed([size] * count)
    assert cut(buffer, len(buffer), MTU) == Cut(
        [(0, count * stride, range(stride, count * stride + 1, stride))], count * stride, 0, 0
    )


def test_too_few_frames_of_one_size_to_be_regular_are_one_run_all_the_same() -> None:
    buffer = framed([10] * (REGULAR - 1))
    ((start, stop, ends),) = cut(buffer, len(buffer), MTU).runs
    assert (start, stop, list(ends)) == (0, len(buffer), [14 * (n + 1) for n in range(REGULAR - 1)])
    assert not isinstance(ends, range)


@pytest.mark.parametrize("odd", range(REGULAR + 3))
@pytest.mark.parametrize("size", [5, 300, 70_000])
def test_one_frame_of_another_size_in_a_regular_stretch_is_seen_wherever_it_is(odd: int, size: int) -> None:
    # 5 differs from 10 in the last byte of the prefix, 300 in the last two, 70,000 in the last three.
    lengths = [10] * (REGULAR + 3)
    lengths[odd] = size
    buffer = framed(lengths, b"\0\0\0\x0a")
    found = cut(buffer, len(buffer), 100_000)
    assert [len(frame) for frame in frames_of(found, buffer)] == lengths


@pytest.mark.parametrize("odd", range(REGULAR + 3))
def test_a_length_that_differs_only_in_its_first_byte_is_seen_in_a_regular_stretch(odd: int) -> None:
    buffer = bytearray(framed([10] * (REGULAR + 3)))
    buffer[14 * odd] = 1
    assert cut(buffer, len(buffer), MTU)[1:] == (14 * odd, 0, 4 + 2**24 + 10)


def test_a_regular_stretch_that_the_read_tore_keeps_its_whole_frames() -> None:
    buffer = framed([10] * (REGULAR + 5))
    found = cut(buffer, len(buffer) - 3, MTU)
    assert len(frames_of(found, buffer)) == REGULAR + 4
    assert (found.consumed, found.wanted) == (14 * (REGULAR + 4), 14)


@pytest.mark.parametrize("length", [0, MTU + 1, 1000])
def test_a_stretch_of_frames_that_may_not_pass_is_left_out_frame_by_frame(length: int) -> None:
    buffer = framed([length] * (REGULAR * 2))
    assert cut(buffer, len(buffer), MTU) == Cut([], len(buffer), REGULAR * 2, 0)


def test_a_frame_left_out_splits_the_run_around_it() -> None:
    buffer = framed([3, MTU + 1, 5])
    found = cut(buffer, len(buffer), MTU)
    assert found == Cut([(0, 7, [7]), (71 + 1, 81, [9])], 81, 1, 0)


@pytest.mark.parametrize("bytes_there", [0, 1, 2, 3])
def test_without_a_whole_prefix_nothing_is_known_of_the_frame(bytes_there: int) -> None:
    buffer = framed([3]) + b"\0\0\0\x05"[:bytes_there]
    assert cut(buffer, len(buffer), MTU)[1:] == (7, 0, 0)


@pytest.mark.parametrize("length", [5, MTU, MTU + 1, 2**24, 2**32 - 1])
def test_with_the_prefix_it_is_known_how_long_the_frame_will_be_allowed_or_not(length: int) -> None:
    buffer = framed([3]) + struct.pack(">I", length) + b"ab"
    assert cut(buffer, len(buffer), MTU)[1:] == (7, 0, 4 + length)


def test_an_empty_read_holds_nothing() -> None:
    assert cut(b"", 0, MTU) == Cut([], 0, 0, 0)
