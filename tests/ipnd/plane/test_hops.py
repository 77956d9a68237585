"""Frames with the hops they have come: put into the first byte of a length, and taken out, whatever a read brings."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ipn
from ipn import admin
from ipn.rendezvous import open_network
from ipnd.plane.hops import put_hops, take_hops
from tests.running import RunningDaemon
from tests.waiting import eventually

LIMIT = 8
"""Hops with which a frame goes over no cable any more."""

Frame = tuple[int, bytes]
"""(hops, frame)."""

frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=12)


def with_hops(*given: Frame) -> bytes:
    return b"".join(bytes([hops]) + len(frame).to_bytes(3, "big") + frame for hops, frame in given)


def plain(*given: Frame) -> bytes:
    return b"".join(struct.pack(">I", len(frame)) + frame for _, frame in given)


# -- the two functions ---------------------------------------------------------------------------------------------


@given(frames)
def test_taken_out_they_leave_the_common_layout(several: list[Frame]) -> None:
    buffer = bytearray(with_hops(*several))
    hops, rest = take_hops(buffer, len(buffer))
    assert buffer == plain(*several)
    assert list(hops.values()) == [depth for depth, _ in several]
    assert rest is None
    starts = [len(plain(*several[:index])) for index in range(len(several))]
    assert list(hops) == starts


@given(frames, st.data())
def test_a_stream_that_comes_in_pieces_has_the_same_hops(several: list[Frame], data: st.DataObject) -> None:
    stream, position, kept, first = with_hops(*several), 0, b"", None
    found: list[Frame] = []
    while position < len(stream):
        size = data.draw(st.integers(1, len(stream) - position))
        buffer = bytearray(kept + stream[position : position + size])
        position += size
        hops, rest = take_hops(buffer, len(buffer), first if len(kept) >= 4 else None)
        start = 0
        while start in hops:
            end = start + 4 + struct.unpack_from(">I", buffer, start)[0]
            if end > len(buffer):
                break
            found.append((hops[start], bytes(buffer[start + 4 : end])))
            start = end
        kept, first = bytes(buffer[start:]), rest
        assert (rest is not None) == (len(kept) >= 4)
    assert found == several
    assert kept == b""


def test_what_lies_behind_the_end_is_not_touched() -> None:
    buffer = bytearray(with_hops((3, b"one"), (4, b"two")))
    assert take_hops(buffer, 7) == ({0: 3}, None)
    assert buffer == plain((3, b"one")) + with_hops((4, b"two"))


@pytest.mark.parametrize(
    ("ends", "sizes"), [((7,), [3]), ([5, 12], [1, 3]), (range(9, 37, 9), [5] * 4)], ids=["one", "list", "range"]
)
def test_put_in_they_come_out_again(ends: list[int], sizes: list[int]) -> None:
    several = [(5, bytes(range(size))) for size in sizes]
    buffer = bytearray(plain(*several))
    put_hops(buffer, ends, 5)
    assert buffer == with_hops(*several)


# -- a member that speaks so ---------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Far:
    """The far end of a cable: a member whose frames carry their hops."""

    sock: socket.socket

    def send(self, *given: Frame) -> None:
        self.sock.sendall(with_hops(*given))

    def recv(self) -> Frame:
        head = self._exactly(4)
        return head[0], self._exactly(int.from_bytes(head[1:], "big"))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            assert chunk, "the stream has ended"
            data += chunk
        return data


@contextlib.contextmanager
def far_end(path: str) -> Iterator[Far]:
    channel = open_network(path)
    answer, (fd,) = channel.request("connect", data="hops", descr="far end")
    assert answer["rights"] == "rw"
    with contextlib.closing(channel), socket.socket(fileno=fd) as sock:
        sock.settimeout(10)
        yield Far(sock)


def hop_limit(path: str) -> int:
    return int(admin.show_network(path)["drops"].get("hop limit", 0))


def test_a_member_s_frame_has_come_one_hop_at_the_far_end_of_a_cable(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path), ipn.connect(path, timeout=5) as near, far_end(path) as far:
        near.send(b"out")
        assert far.recv() == (1, b"out")
        far.send((1, b"in"))
        assert near.recv() == b"in"


def test_each_cable_is_one_hop_more_and_different_depths_keep_their_order(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    given = [(hops, b"%d" % number) for number, hops in enumerate([1, 1, 3, 2, 7, 7, 0, 1])]
    with ipn.bind(path, pool=100), far_end(path) as left, far_end(path) as right:
        left.send(*given)
        assert [right.recv() for _ in given] == [(hops + 1, frame) for hops, frame in given]


def test_who_is_no_cable_gets_frames_that_have_come_too_far_but_cables_do_not(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, pool=100), ipn.connect(path, timeout=5) as near, far_end(path) as left, far_end(path) as right:
        left.send((LIMIT, b"far"), (LIMIT - 1, b"nearer"), (255, b"farther"), (0, b"near"))
        assert [near.recv() for _ in range(4)] == [b"far", b"nearer", b"farther", b"near"]
        assert [right.recv() for _ in range(2)] == [(LIMIT, b"nearer"), (1, b"near")]
        eventually(lambda: hop_limit(path) == 2)
        assert "came over 8 cables" in ipnd.wait_for_log("may form a loop")
        left.send((LIMIT, b"again"))
        eventually(lambda: hop_limit(path) == 3)
        assert len([line for line in ipnd.log if "may form a loop" in line]) == 1


def test_a_frame_larger_than_one_read_keeps_its_hops(ipnd: RunningDaemon) -> None:
    path, large = ipnd.path("net"), bytes(range(256)) * 4000
    with ipn.bind(path, mtu=2_000_000, pool=100), far_end(path) as left, far_end(path) as right:
        threading.Thread(target=left.send, args=((4, large), (2, b"small"), (6, large))).start()
        assert [right.recv() for _ in range(3)] == [(5, large), (3, b"small"), (7, large)]


def test_a_network_whose_longest_frames_leave_no_room_for_the_hops_is_refused(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, mtu=1 << 24) as net, contextlib.closing(open_network(path)) as channel:
        with pytest.raises(OSError, match="16777216") as refused:
            channel.request("connect", data="hops")
        assert refused.value.errno == errno.EMSGSIZE
        assert net.show()["members"] == 0


def test_frames_that_had_to_wait_in_a_lossless_network_still_have_their_hops(ipnd: RunningDaemon) -> None:
    path, count = ipnd.path("net"), 6000
    with (
        ipn.bind(path, lossless=True, pool=4) as net,
        far_end(path) as left,
        far_end(path) as right,
    ):
        sender = threading.Thread(target=lambda: left.send(*[(3, b"%04d" % n + bytes(1000)) for n in range(count)]))
        sender.start()
        eventually(lambda: net.show()["pending"] >= 4)
        assert [right.recv()[0] for _ in range(count)] == [4] * count
        sender.join(10)


def test_frames_that_a_lossless_network_keeps_back_do_not_leave_its_pool_wrong(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with (
        ipn.bind(path, lossless=True, pool=4) as net,
        ipn.connect(path, timeout=5) as near,
        far_end(path) as left,
        far_end(path) as right,
    ):
        many = [(1, b"%08d" % n + bytes(1000)) for n in range(5000)]
        sender = threading.Thread(target=lambda: left.send(*many, *[(LIMIT, frame) for _, frame in many]))
        sender.start()
        eventually(lambda: net.show()["pending"] >= 4)
        assert net.show()["pending"] <= 6
        reader = threading.Thread(target=lambda: [right.recv() for _ in many])
        reader.start()
        heard = [near.recv() for _ in range(2 * len(many))]
        assert heard == [frame for _, frame in many] * 2
        sender.join(10)
        reader.join(10)
        eventually(lambda: hop_limit(path) == len(many))
        assert net.show()["pending"] == 0
