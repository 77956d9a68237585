"""Bursts of messages: what comes and goes with one system call is what would have come and gone with many."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipn.framing import LENGTH, PREFIX
from ipnd.plane.mmsg import BURST, MAX_PLANS, Receiver, Sender, address_of

SCRATCH = 16 * 1024
LIMIT = 601
"""One more than the longest message taken."""

sizes = st.one_of(st.just(60), st.integers(0, LIMIT + 20))
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    with ends[0], ends[1]:
        yield ends


@pytest.fixture(scope="module")
def receiver() -> Receiver:
    return Receiver(bytearray(SCRATCH))


def message(number: int, size: int) -> bytes:
    """Bytes that no other message of a test has in their places."""
    return bytes((number * 7 + at) % 251 for at in range(size))


def batch(frames: Sequence[bytes]) -> tuple[memoryview, list[int]]:
    """The frames back to back behind their lengths, and where each ends."""
    data, ends = b"", []
    for frame in frames:
        data += LENGTH.pack(len(frame)) + frame
        ends.append(len(data))
    return memoryview(data), ends


def all_of(receiver: Receiver, fd: int, expected: int, limit: int = LIMIT) -> tuple[bytes, list[int]]:
    """What calls of ``receive`` bring until there is nothing: one batch, and the sizes of all messages."""
    data = b""
    seen: list[int] = []
    while True:
        try:
            view, ends, sizes = receiver.receive(fd, expected, limit)
        except BlockingIOError:
            return data, seen
        assert [*ends] == batch(frames_of(view, ends))[1]
        data += bytes(view)
        seen += sizes


def frames_of(view: memoryview, ends: Sequence[int]) -> list[bytes]:
    starts = [0, *ends][:-1]
    return [bytes(view[start + PREFIX : end]) for start, end in zip(starts, ends, strict=True)]


# -- receiving -----------------------------------------------------------------------------------------------------


@relaxed
@given(lengths=st.lists(sizes, max_size=9), expected=st.integers(1, LIMIT - 1))
def test_a_burst_is_a_batch_of_what_was_sent_whatever_was_expected(
    pair: tuple[socket.socket, socket.socket], receiver: Receiver, lengths: list[int], expected: int
) -> None:
    sent = [message(number, size) for number, size in enumerate(lengths)]
    for frame in sent:
        pair[0].send(frame)
    data, seen = all_of(receiver, pair[1].fileno(), expected)
    assert data == bytes(batch([frame for frame in sent if 0 < len(frame) < LIMIT])[0])
    assert seen == [min(size, LIMIT) for size in lengths]


def test_messages_of_the_size_expected_lie_in_the_scratch_ready_to_be_sent_on(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    scratch = bytearray(b"\xff" * SCRATCH)
    for number in range(8):
        pair[0].send(message(number, 300))
    view, ends, _ = Receiver(scratch).receive(pair[1].fileno(), 300, LIMIT)
    assert view.obj is scratch
    assert (bytes(view), ends) == (bytes(batch([message(n, 300) for n in range(8)])[0]), [304 * n for n in range(1, 9)])


def test_what_does_not_fit_into_the_scratch_waits_in_the_kernel(pair: tuple[socket.socket, socket.socket]) -> None:
    for number in range(5):
        pair[0].send(message(number, 600))
    view, ends, _ = Receiver(bytearray(2000)).receive(pair[1].fileno(), 600, LIMIT)
    assert frames_of(view, ends) == [message(number, 600) for number in range(3)]


def test_a_message_may_be_longer_than_the_scratch(pair: tuple[socket.socket, socket.socket]) -> None:
    long = message(1, 100_000)
    pair[0].send(long)
    pair[0].send(b"short")
    view, ends, _ = Receiver(bytearray(2000)).receive(pair[1].fileno(), 60, 6_000_000)
    assert frames_of(view, ends) in ([long], [long, b"short"])


def test_nothing_there_is_eagain(pair: tuple[socket.socket, socket.socket], receiver: Receiver) -> None:
    with pytest.raises(BlockingIOError):
        receiver.receive(pair[1].fileno(), 60, LIMIT)


def test_the_end_of_a_connection_is_messages_without_a_byte(
    pair: tuple[socket.socket, socket.socket], receiver: Receiver
) -> None:
    pair[0].send(b"last")
    pair[0].close()
    view, ends, seen = receiver.receive(pair[1].fileno(), 4, LIMIT)
    assert frames_of(view, ends) == [b"last"]
    assert seen[0] == 4
    assert not any(seen[1:])


def test_sizes_without_end_cost_no_memory_without_end(
    pair: tuple[socket.socket, socket.socket], receiver: Receiver
) -> None:
    for size in range(1, 3 * MAX_PLANS):
        pair[0].send(message(0, size))
        receiver.receive(pair[1].fileno(), size, LIMIT)
        assert len(receiver._plans) <= MAX_PLANS


# -- sending -------------------------------------------------------------------------------------------------------


def sent_all(sender: Sender, pair: tuple[socket.socket, socket.socket], frames: Sequence[bytes]) -> list[bytes]:
    """Send all, reading whenever the socket is full; return what came."""
    view, ends = batch(frames)
    came: list[bytes] = []
    first = 0
    while first < len(ends):
        try:
            first += sender.send(pair[0].fileno(), view, ends, first)
        except BlockingIOError:
            came.append(pair[1].recv(LIMIT + 100))
    while len(came) < len(frames):
        came.append(pair[1].recv(LIMIT + 100))
    return came


@relaxed
@given(runs=st.lists(st.lists(st.one_of(st.just(60), st.integers(1, LIMIT)), min_size=1, max_size=90), max_size=4))
def test_every_frame_of_every_run_arrives_once_and_in_order(
    pair: tuple[socket.socket, socket.socket], runs: list[list[int]]
) -> None:
    sender = Sender()
    for number, lengths in enumerate(runs):
        frames = [message(number + at, size) for at, size in enumerate(lengths)]
        assert sent_all(sender, pair, frames) == frames


def test_a_run_at_another_place_in_the_same_memory_is_another_run(pair: tuple[socket.socket, socket.socket]) -> None:
    """Bursts of one size mostly lie where the last one did, and then nothing is prepared anew."""
    sender = Sender()
    frames = [message(number, 60) for number in range(12)]
    view, ends = batch(frames)
    assert sender.send(pair[0].fileno(), view[: ends[5]], ends[:6], 0) == 6
    rest = [end - ends[5] for end in ends[6:]]
    first = sender.send(pair[0].fileno(), view[ends[5] :], rest, 0)
    came = [pair[1].recv(100) for _ in range(6 + first)]
    assert came == frames[: 6 + first]


def test_no_more_than_a_burst_goes_with_one_call(pair: tuple[socket.socket, socket.socket]) -> None:
    view, ends = batch([b"x"] * (BURST + 10))
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024 * 1024)
    assert Sender().send(pair[0].fileno(), view, ends, 0) == BURST


def test_errors_are_those_of_the_first_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    sender = Sender()
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    view, ends = batch([b"small", bytes(1_000_000)])
    assert sender.send(pair[0].fileno(), view, ends, 0) == 1
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        sender.send(pair[0].fileno(), view, ends, 1)
    assert pair[1].recv(10) == b"small"
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        sender.send(pair[0].fileno(), view, ends, 0)


def test_the_address_of_a_part_is_within_the_whole() -> None:
    whole = memoryview(bytes(100))
    assert address_of(whole[30:]) == address_of(whole) + 30
