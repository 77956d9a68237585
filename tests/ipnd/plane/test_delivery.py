"""What happens when a receiver is full: lossy networks drop and count, lossless ones make the senders wait."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest

import ipn
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

KINDS = pytest.mark.parametrize("packet", [False, True], ids=["stream", "packet"])


def port_of(net: ipn.Socket, number: int) -> dict[str, int]:
    return next(p for p in net.show()["ports"] if p["port"] == number)


def blast(sender: ipn.Socket, count: int, size: int = 1500) -> list[bytes]:
    """Send ``count`` numbered messages as fast as they go."""
    messages = [b"%08d" % n + bytes(size - 8) for n in range(count)]
    sender.send_many(messages)
    return messages


# -- lossy ---------------------------------------------------------------------------------------------------------


@KINDS
def test_a_receiver_that_does_not_read_loses_the_newest_and_they_are_counted(ipnd: RunningDaemon, packet: bool) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, pool=8) as net, ipn.connect(path) as a, ipn.connect(path, packet=packet, timeout=5) as slow:
        count = 6000
        blast(a, count)
        eventually(lambda: port_of(net, a.port)["rx_frames"] == count)
        port = port_of(net, slow.port)
        assert port["queued"] <= 8
        assert port["dropped"] > 0
        assert port["dropped"] + port["queued"] + port["tx_frames"] == count
        kept = [int(slow.recv()[:8]) for _ in range(port["tx_frames"] + port["queued"])]
        assert kept == list(range(len(kept))), "the oldest were kept, in order"
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv()


def test_nobody_else_notices_a_receiver_that_does_not_read(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path) as net, ipn.connect(path) as a, ipn.connect(path), ipn.connect(path, timeout=10) as good:
        messages = [b"%08d" % n + bytes(1000) for n in range(20_000)]
        heard: list[bytes] = []

        def listen() -> None:
            while len(heard) < len(messages):
                heard.extend(good.recv_many())

        listener = threading.Thread(target=listen)
        listener.start()
        for start in range(0, len(messages), 100):
            a.send_many(messages[start : start + 100])
            eventually(lambda start=start: len(heard) >= start - 400)  # so that it is not slow itself
        listener.join(20)
        assert heard == messages
        assert port_of(net, good.port)["dropped"] == 0


def test_after_a_loss_a_receiver_that_reads_again_gets_the_new(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path) as net, ipn.connect(path) as a, ipn.connect(path, timeout=5) as slow:
        blast(a, 6000)
        eventually(lambda: port_of(net, slow.port)["dropped"] > 0)
        eventually(lambda: port_of(net, a.port)["rx_frames"] == 6000)
        port = port_of(net, slow.port)
        for _ in range(port["tx_frames"] + port["queued"]):
            slow.recv()
        a.send(b"new")
        assert slow.recv() == b"new"


# -- lossless ------------------------------------------------------------------------------------------------------


@KINDS
def test_a_full_pool_stops_the_senders_and_nothing_is_lost(ipnd: RunningDaemon, packet: bool) -> None:
    path = ipnd.path("net")
    with (
        ipn.bind(path, lossless=True, pool=8) as net,
        ipn.connect(path) as a,
        ipn.connect(path, packet=packet, timeout=5) as slow,
        ipn.connect(path, timeout=5) as quick,
    ):
        a.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                a.send(b"%08d" % sent + bytes(1500 - 8))
                sent += 1
        shown = net.show()
        assert shown["pending"] <= 8
        assert port_of(net, slow.port)["queued"] <= 8
        eventually(lambda: port_of(net, slow.port)["blocked_ms"] > 0)
        a.settimeout(10)
        total = sent + 100
        listeners: dict[ipn.Socket, list[int]] = {slow: [], quick: []}

        def listen(s: ipn.Socket) -> None:
            while len(listeners[s]) < total:
                listeners[s] += [int(m[:8]) for m in s.recv_many()]

        threads = [threading.Thread(target=listen, args=(s,)) for s in listeners]
        for thread in threads:
            thread.start()
        for _ in range(100):
            a.send(b"%08d" % sent + bytes(1500 - 8))
            sent += 1
        for thread in threads:
            thread.join(20)
        for heard in listeners.values():
            assert heard == list(range(total))
        assert sum(p["dropped"] for p in net.show()["ports"]) == 0
        assert net.show()["pending"] == 0


@pytest.mark.parametrize("pool", [1, 8, 1000])
def test_many_senders_and_receivers_lose_and_reorder_nothing(ipnd: RunningDaemon, pool: int) -> None:
    path = ipnd.path("net")
    each = 2000
    with ipn.bind(path, lossless=True, pool=pool, mtu=3000) as net:
        senders = [ipn.connect(path, receive=False) for _ in range(3)]
        receivers = [ipn.connect(path, send=False, packet=n == 2, timeout=20) for n in range(3)]
        heard: list[dict[int, list[int]]] = [{s.port: [] for s in senders} for _ in receivers]

        def listen(s: ipn.Socket, got: dict[int, list[int]]) -> None:
            while sum(map(len, got.values())) < each * len(senders):
                for message in s.recv_many():
                    port, number, _ = message.split(b":", 2)
                    got[int(port)].append(int(number))

        def talk(s: ipn.Socket) -> None:
            for start in range(0, each, 50):
                s.send_many([b"%d:%d:" % (s.port, n) + bytes(n % 2500) for n in range(start, start + 50)])

        threads = [threading.Thread(target=listen, args=pair) for pair in zip(receivers, heard, strict=True)]
        threads += [threading.Thread(target=talk, args=(s,)) for s in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for got in heard:
            assert all(numbers == list(range(each)) for numbers in got.values())
        assert net.show()["pending"] == 0
        for s in (*senders, *receivers):
            s.close()


def test_what_a_sender_left_behind_still_arrives(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, lossless=True, pool=1) as net, ipn.connect(path, timeout=5) as slow:
        sender = ipn.connect(path)
        sender.settimeout(0.2)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                sender.send(b"%08d" % sent + bytes(1000))
                sent += 1
        sender.close()
        heard = [int(slow.recv()[:8]) for _ in range(sent)]
        assert heard == list(range(sent))
        eventually(lambda: net.show()["members"] == 1)


@KINDS
def test_what_comes_with_the_end_of_a_sender_waits_for_a_full_receiver_too(ipnd: RunningDaemon, packet: bool) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, lossless=True, pool=16) as net, ipn.connect(path, packet=True, timeout=5) as slow:
        sender = ipn.connect(path, packet=packet)
        sent = 0
        while not port_of(net, slow.port)["queued"]:
            sender.send(b"%08d" % sent + bytes(1000))
            sent += 1
        ipnd.process.send_signal(signal.SIGSTOP)  # so that it finds the messages and the end at the same time
        for _ in range(24):
            sender.send(b"%08d" % sent + bytes(1000))
            sent += 1
        sender.close()
        ipnd.process.send_signal(signal.SIGCONT)
        heard = [int(slow.recv()[:8]) for _ in range(sent)]
        assert heard == list(range(sent))
        eventually(lambda: net.show()["members"] == 1)


def test_a_blocked_sender_goes_on_when_the_receiver_that_blocks_is_killed(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, lossless=True, pool=2) as net, ipn.connect(path) as a:
        stuck = RawMember(path)
        eventually(lambda: net.show()["readers"] == 2)
        a.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while True:
                a.send(bytes(1500))
        stuck.sock.close()
        a.settimeout(10)
        for _ in range(3000):
            a.send(bytes(1500))
        assert net.show()["pending"] == 0


def test_a_blocked_sender_goes_on_when_the_receiver_that_blocks_stops_receiving(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, lossless=True, pool=2), ipn.connect(path) as a, ipn.connect(path) as stuck:
        a.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while True:
                a.send(bytes(1500))
        stuck.shutdown(socket.SHUT_RD)
        a.settimeout(10)
        for _ in range(3000):
            a.send(bytes(1500))


def test_without_receivers_a_lossless_network_never_blocks(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, lossless=True, pool=1), ipn.connect(path, timeout=5) as a:
        for _ in range(200):
            a.send_many([bytes(1500)] * 50)


# -- raw members and frames that may not pass ----------------------------------------------------------------------


def test_raw_members_exchange_frames_with_everybody(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path) as net, ipn.connect(path, timeout=5) as member:
        first, second = RawMember(path), RawMember(path)
        eventually(lambda: net.show()["members"] == 3)
        first.send_frame(b"from raw")
        assert member.recv() == second.recv_frame() == b"from raw"
        member.send(b"to raw")
        assert first.recv_frame() == second.recv_frame() == b"to raw"
        kinds = [p["kind"] for p in net.show()["ports"]]
        assert kinds == ["stream", "raw", "raw"]
        first.sock.close()
        second.sock.close()


def test_frames_longer_than_the_mtu_are_skipped_and_counted_and_the_next_arrives(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, mtu=1000) as net, ipn.connect(path, timeout=5) as member:
        raw = RawMember(path)
        for size in (1001, 0, 70_000, 1_000_000, 15 * 1024 * 1024):
            raw.send_frame(bytes(size))
            raw.send_frame(b"after %d" % size)
            assert member.recv() == b"after %d" % size
        port = port_of(net, 1)
        assert (port["oversize"], port["rx_frames"]) == (5, 5)
        raw.sock.close()


def test_a_length_beyond_sixteen_mib_ends_the_connection_and_nobody_else_notices(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path) as net, ipn.connect(path) as a, ipn.connect(path, timeout=5) as b:
        raw = RawMember(path)
        raw.send_frame(b"fine")
        assert b.recv() == b"fine"
        raw.sock.sendall(b"\xff\xff\xff\xff noise")
        eventually(lambda: net.show()["members"] == 2)
        ipnd.wait_for_log("at most 16777216")
        a.send(b"on we go")
        assert b.recv() == b"on we go"
        raw.sock.close()


def test_a_frame_sent_byte_by_byte_arrives_whole(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path), ipn.connect(path, timeout=5) as member:
        raw = RawMember(path)
        for byte in b"\0\0\0\x05hello\0\0\0\x01!":
            raw.sock.sendall(bytes([byte]))
        assert [member.recv(), member.recv()] == [b"hello", b"!"]
        raw.sock.close()


def test_half_a_frame_of_a_dead_member_is_never_delivered(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path) as net, ipn.connect(path, timeout=5) as member, ipn.connect(path) as other:
        raw = RawMember(path)
        raw.send_frame(b"whole")
        raw.sock.sendall(b"\0\0\0\x10half")
        assert member.recv() == b"whole"
        raw.sock.close()
        eventually(lambda: net.show()["members"] == 2)
        other.send(b"next")
        assert member.recv() == b"next"


def test_jumbo_and_small_frames_keep_their_order_through_a_full_socket(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    mtu = 5 * 1024 * 1024
    sizes = [1, 1500, mtu, 64, 300_000, 40_000, 2_000_000] * 6
    with ipn.bind(path, lossless=True, pool=3, mtu=mtu), ipn.connect(path) as a, ipn.connect(path, timeout=20) as b:
        messages = [bytes([n]) * size for n, size in enumerate(sizes)]
        sender = threading.Thread(target=lambda: [a.send(m) for m in messages])
        sender.start()
        for message in messages:
            assert b.recv() == message
        sender.join()


# -- holding back --------------------------------------------------------------------------------------------------


def test_a_receiver_that_is_stopped_for_a_moment_catches_up(ipnd: RunningDaemon) -> None:
    """As many frames as its socket holds wait for a receiver that is not scheduled."""
    path = ipnd.path("net")
    with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path, timeout=5) as b:
        messages = blast(a, 300)
        time.sleep(0.05)
        heard = [b.recv() for _ in messages]
        assert heard == messages


def test_data_from_a_member_without_w_is_not_taken(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path), ipn.connect(path, send=False) as mute, ipn.connect(path, timeout=0.2) as other:
        with pytest.raises(BrokenPipeError):
            os.write(mute.fileno(), b"\0\0\0\x01x")
        with pytest.raises(TimeoutError):
            other.recv()
