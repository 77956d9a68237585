"""Impaired ports of a real daemon: the frames that the seed says get through, when they should; nobody else notices."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import ipn
from ipn import admin
from ipnd.plane.impaired import BATCH
from ipnd.plane.impairment import MAX_BYTES, MAX_FRAMES, Impairment, Shaper
from tests.ipnd.netdev.transfer import transfers
from tests.lab import Lab
from tests.peers import requires, requires_root
from tests.raw import raw_member
from tests.running import RunningDaemon
from tests.waiting import eventually

DIRECTIONS = pytest.mark.parametrize("direction", ["in", "out"])
LOSSLESS = pytest.mark.parametrize("lossless", [False, True], ids=["lossy", "lossless"])
MINUTE_MS = 60_000


def message(number: int, size: int = 100) -> bytes:
    return b"%08d" % number + bytes(size - 8)


def number_of(data: bytes) -> int:
    return int(data[:8])


def predicted(settings: dict[str, Any], direction: str, count: int) -> list[int]:
    """Return the numbers of those of ``count`` frames that the seed lets through, doubles twice."""
    shaper = Shaper(Impairment(**settings), direction)
    for number in range(count):
        shaper.admit(struct.pack(">I", 100) + message(number), 0)
    return [number_of(data[4:]) for data, _ in shaper.take_all()]


def impairment_of(path: str, port: int) -> dict[str, Any]:
    shown = next(row for row in admin.show_network(path)["ports"] if row["port"] == port)
    return dict(shown.get("impairment", {}))


def taken(path: str, port: int, count: int) -> None:
    """Wait until the daemon has had ``count`` frames from the member on ``port``."""
    eventually(lambda: next(r for r in admin.show_network(path)["ports"] if r["port"] == port)["rx_frames"] == count)


class Pair:
    """A network with two members; the way from ``one`` to ``two`` is impaired at either end."""

    def __init__(self, path: str, one: ipn.Socket, two: ipn.Socket) -> None:
        self.path, self.one, self.two = path, one, two

    def port(self, direction: str) -> int:
        return self.one.port if direction == "in" else self.two.port

    def impair(self, direction: str, **settings: Any) -> dict[str, Any]:
        return admin.impair(self.path, self.port(direction), direction, **settings)

    def shown(self, direction: str) -> dict[str, Any]:
        return dict(impairment_of(self.path, self.port(direction)).get(direction, {}))

    def send(self, count: int, size: int = 100) -> None:
        self.one.send_many([message(number, size) for number in range(count)])

    def receive(self, count: int) -> list[int]:
        heard: list[bytes] = []
        while len(heard) < count:
            heard += self.two.recv_many()
        return [number_of(data) for data in heard]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Give one daemon for all these tests: there are many, and each has a network of its own."""
    daemon = RunningDaemon(tmp_path_factory.mktemp("ipnd"))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def path(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a path for a network."""
    monkeypatch.setenv("IPND_SOCKET", daemon.control)
    monkeypatch.setenv("IPN_AUTOSTART", "0")
    return daemon.path(uuid.uuid4().hex)


@pytest.fixture
def pair(path: str, lossless: bool) -> Iterator[Pair]:
    with (
        ipn.bind(path, lossless=lossless, mtu=9000),
        ipn.connect(path, port=3, timeout=20) as one,
        ipn.connect(path, port=4, timeout=20) as two,
    ):
        yield Pair(path, one, two)


# -- what gets through -------------------------------------------------------------------------------------------------


@DIRECTIONS
@LOSSLESS
def test_exactly_those_frames_get_through_that_the_seed_says(pair: Pair, direction: str) -> None:
    settings = {"loss": 30, "duplicate": 10, "seed": 7}
    for turn in range(2):
        pair.impair(direction, **settings)
        pair.send(500)
        expected = predicted(settings, direction, 500)
        assert pair.receive(len(expected)) == expected, f"in turn {turn}"
    shown = pair.shown(direction)
    assert (shown["lost"], shown["duplicated"]) == (500 - len(set(expected)), len(expected) - len(set(expected)))
    other = {**settings, "seed": 8}
    pair.impair(direction, **other)
    pair.send(500)
    expected_then = predicted(other, direction, 500)
    assert pair.receive(len(expected_then)) == expected_then != expected


@DIRECTIONS
@LOSSLESS
def test_the_seed_is_the_ports_number_when_none_is_given(pair: Pair, direction: str) -> None:
    assert pair.impair(direction, loss=50)[direction]["seed"] == pair.port(direction)


@DIRECTIONS
@LOSSLESS
def test_a_delayed_frame_comes_after_its_delay_and_those_of_others_at_once(pair: Pair, direction: str) -> None:
    pair.impair(direction, delay_ms=150, jitter_ms=50)
    with ipn.connect(pair.path, timeout=20) as other:
        start = time.monotonic()
        pair.send(100)
        if direction == "out":
            assert [number_of(other.recv()) for _ in range(100)] == list(range(100))
        else:
            other.send(message(4711))
            assert pair.receive(1) == [4711]
        assert pair.receive(100) == list(range(100)), "jitter alone reorders nothing"
        assert time.monotonic() - start >= 0.1


@DIRECTIONS
@LOSSLESS
def test_reordered_frames_get_ahead_of_those_that_are_delayed(pair: Pair, direction: str) -> None:
    settings = {"delay_ms": MINUTE_MS, "jitter_ms": 50, "reorder": 20, "seed": 1}
    pair.impair(direction, **settings)
    pair.send(100)
    taken(pair.path, pair.one.port, 100)
    waiting = pair.shown(direction)["waiting"]
    expected = predicted(settings, direction, 100)
    assert pair.receive(100 - waiting) == expected[: 100 - waiting]
    pair.impair(direction)
    assert pair.receive(waiting) == expected[100 - waiting :]
    assert 60 < waiting < 95
    assert expected != sorted(expected)


@DIRECTIONS
@LOSSLESS
def test_a_line_carries_no_more_than_its_rate(pair: Pair, direction: str) -> None:
    pair.impair(direction, rate=8_000_000)
    start = time.monotonic()
    pair.send(200, size=1000)
    assert pair.receive(200) == list(range(200))
    assert time.monotonic() - start >= 0.2


@LOSSLESS
def test_the_directions_of_a_port_are_impaired_apart(pair: Pair) -> None:
    admin.impair(pair.path, 3, "in", delay_ms=MINUTE_MS)
    admin.impair(pair.path, 3, "out", loss=100)
    pair.send(1)
    pair.two.send(message(1))
    eventually(lambda: (pair.shown("in")["waiting"], impairment_of(pair.path, 3)["out"]["lost"]) == (1, 1))
    admin.impair(pair.path, 3, "in")
    assert set(impairment_of(pair.path, 3)) == {"out"}
    admin.impair(pair.path, 3, "both")
    assert impairment_of(pair.path, 3) == {}
    pair.two.send(message(2))
    assert pair.receive(1) == [0]
    assert number_of(pair.one.recv()) == 2


# -- full --------------------------------------------------------------------------------------------------------------


@DIRECTIONS
@pytest.mark.parametrize("lossless", [False])
def test_a_lossy_network_drops_and_counts_what_finds_the_line_busy_for_long(pair: Pair, direction: str) -> None:
    pair.impair(direction, rate=1_000_000)
    pair.send(1000, size=1250)  # the line carries a hundred a second
    taken(pair.path, pair.one.port, 1000)
    overflowed = eventually(lambda: pair.shown(direction)["overflowed"])
    pair.impair(direction)
    kept = pair.receive(1000 - overflowed)
    assert 0 < overflowed < 900
    assert kept == sorted(set(kept))
    assert kept[:100] == list(range(100))


@DIRECTIONS
@pytest.mark.parametrize("lossless", [True])
def test_a_lossless_network_makes_the_sender_wait_for_a_slow_line(pair: Pair, direction: str) -> None:
    pair.impair(direction, rate=1_000_000)
    count, size = 4000, 1500
    pair.one.settimeout(0.3)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < count:
            pair.one.send(message(sent, size))
            sent += 1
    pair.impair(direction, rate=200_000_000)
    pair.one.settimeout(20)
    rest = threading.Thread(target=lambda: pair.one.send_many([message(n, size) for n in range(sent, count)]))
    rest.start()
    assert pair.receive(count) == list(range(count))
    rest.join()
    shown = pair.shown(direction)
    assert (shown["lost"], shown["overflowed"]) == (0, 0)
    assert sum(port["dropped"] for port in admin.show_network(pair.path)["ports"]) == 0


@DIRECTIONS
@pytest.mark.parametrize("lossless", [True])
def test_a_receiver_that_does_not_read_loses_nothing_on_a_lossless_network(pair: Pair, direction: str) -> None:
    pair.impair(direction, delay_ms=1)
    pair.one.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            pair.one.send_many([message(number, 8000) for number in range(sent, sent + 20)])
            sent += 20
    shown = admin.show_network(pair.path)
    assert shown["pending"] <= shown["pool"]
    assert pair.shown(direction)["waiting"] <= MAX_FRAMES
    assert pair.receive(sent)[:sent] == list(range(sent))


@pytest.mark.parametrize("lossless", [False])
def test_a_receiver_that_does_not_read_costs_the_others_nothing_and_bounded_memory(
    daemon: RunningDaemon, pair: Pair
) -> None:
    pair.impair("out", delay_ms=1)
    before = daemon.rss_kib()
    with ipn.connect(pair.path, timeout=20) as other:
        for start in range(0, 6000, 50):
            pair.one.send_many([message(number, 8000) for number in range(start, start + 50)])
            assert [number_of(other.recv()) for _ in range(50)] == list(range(start, start + 50))
    shown = pair.shown("out")
    assert shown["overflowed"] > 0
    assert shown["waiting"] * 8000 <= MAX_BYTES + BATCH
    assert daemon.rss_kib() - before < 3 * MAX_BYTES // 1024
    kept = pair.receive(6000 - shown["overflowed"])
    assert kept[:1000] == list(range(1000)), "the oldest are kept"


# -- the end of it -----------------------------------------------------------------------------------------------------


@DIRECTIONS
@LOSSLESS
def test_what_waits_goes_at_once_when_the_impairment_ends_or_is_another(pair: Pair, direction: str) -> None:
    for settings in ({}, {"loss": 100}):
        pair.impair(direction, delay_ms=MINUTE_MS)
        pair.send(50)
        eventually(lambda: pair.shown(direction)["waiting"] == 50)
        pair.impair(direction, **settings)
        assert pair.receive(50) == list(range(50))
    pair.impair(direction)
    pair.send(3)
    assert pair.receive(3) == [0, 1, 2]


@DIRECTIONS
@pytest.mark.parametrize("lossless", [True])
def test_an_end_under_full_load_loses_nothing(pair: Pair, direction: str) -> None:
    count = 6000
    sender = threading.Thread(target=pair.send, args=(count, 1500))
    sender.start()
    heard: list[int] = []
    for settings in ({"delay_ms": 5}, {"rate": 50_000_000}, {}, {"delay_ms": 1, "jitter_ms": 1}, {}):
        pair.impair(direction, **settings)
        heard += pair.receive(count // 10)
    assert heard + pair.receive(count - len(heard)) == list(range(count))
    sender.join()


@LOSSLESS
def test_an_impairment_leaves_with_its_member(path: str, lossless: bool) -> None:
    with ipn.bind(path, lossless=lossless), ipn.connect(path, port=0, timeout=5) as one:
        for _ in range(3):
            with ipn.connect(path, port=1) as two:
                admin.impair(path, 1, delay_ms=200)
                assert set(impairment_of(path, 1)) == {"in", "out"}
                one.send(message(0))
                two.send(message(0))
                eventually(lambda: all(way["waiting"] for way in impairment_of(path, 1).values()))
            eventually(lambda: len(admin.show_network(path)["ports"]) == 1)
        with ipn.connect(path, port=1, timeout=5) as two:
            assert impairment_of(path, 1) == {}
            one.send(message(5))
            assert number_of(two.recv()) == 5
            admin.impair(path, 1, "in", delay_ms=200)
            two.send(message(6))
            assert number_of(one.recv()) == 6, "by now what the others sent would have come"


def test_an_impairment_is_not_kept_over_restarts(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    admin.create_network(path)
    with ipn.connect(path, port=5):
        admin.impair(path, 5, loss=100)
        ipnd.restart()
    with ipn.connect(path, port=5):
        assert impairment_of(path, 5) == {}


@LOSSLESS
def test_a_member_that_shuts_down_reading_holds_nobody(pair: Pair) -> None:
    pair.impair("out", rate=100)
    path, count = pair.path, 100
    with ipn.connect(path, packet=True, timeout=5) as other:
        sending = threading.Thread(target=pair.send, args=(count,))
        sending.start()
        shown = admin.show_network(path)
        if shown["lossless"]:
            eventually(lambda: admin.show_network(path)["pending"] == shown["pool"])
        pair.two.shutdown(socket.SHUT_RD)
        assert [number_of(other.recv()) for _ in range(count)] == list(range(count))
        sending.join()
    assert pair.shown("out")["waiting"] == 0
    assert admin.show_network(path)["pending"] == 0


# -- with the rest of the plane ----------------------------------------------------------------------------------------


@LOSSLESS
def test_every_kind_of_member_can_be_impaired(path: str, lossless: bool) -> None:
    with ipn.bind(path, lossless=lossless, mtu=300_000) as net:
        with ipn.connect(path, packet=True, timeout=5) as packets, raw_member(path) as raw:
            eventually(lambda: len(net.show()["ports"]) == 2)
            for port in (row["port"] for row in net.show()["ports"]):
                admin.impair(path, port, delay_ms=1, duplicate=100)
            packets.send(b"a packet")
            assert [raw.recv_frame() for _ in range(4)] == [b"a packet"] * 4
            raw.send_frame(b"a frame")
            assert [packets.recv() for _ in range(4)] == [b"a frame"] * 4
        with ipn.connect(path, timeout=5) as big, raw_member(path) as raw:
            eventually(lambda: len(net.show()["ports"]) == 2)
            for port in (row["port"] for row in net.show()["ports"]):
                admin.impair(path, port, delay_ms=1)
            frames = [os.urandom(300_000) for _ in range(5)]
            for frame in frames:  # larger than a batch
                big.send(frame)
                assert raw.recv_frame() == frame
                raw.send_frame(frame)
                assert big.recv() == frame


@LOSSLESS
def test_a_switch_sends_to_impaired_ports_as_to_others(path: str, lossless: bool) -> None:
    macs = [bytes.fromhex(f"02000000000{n}") for n in range(3)]
    with ipn.bind(path, policy="vdeswitch", lossless=lossless):
        members = [ipn.connect(path, port=n, timeout=5) for n in range(3)]
        try:
            for n, member in enumerate(members):
                member.send(b"\xff" * 6 + macs[n] + bytes(50))
                for other in members[:n] + members[n + 1 :]:
                    assert other.recv()[6:12] == macs[n]
            admin.impair(path, 1, "out", loss=50)
            admin.impair(path, 0, "in", delay_ms=5)
            members[0].send_many([macs[1 + n % 2] + macs[0] + message(n) for n in range(200)])
            to_two = [number_of(members[2].recv()[12:]) for _ in range(100)]
            assert to_two == list(range(1, 200, 2))
            lost = eventually(lambda: impairment_of(path, 1)["out"]["lost"])
            to_one = [number_of(members[1].recv()[12:]) for _ in range(100 - lost)]
            assert 30 < lost < 70
            assert to_one == sorted(set(to_one) & set(range(0, 200, 2)))
        finally:
            for member in members:
                member.close()


@LOSSLESS
def test_frames_in_a_loop_of_impaired_cables_still_come_to_an_end(path: str, lossless: bool) -> None:
    paths = [path + "1", path + "2", path + "3"]
    for path in paths:
        admin.create_network(path, lossless=lossless)
    for path, other in zip(paths, [*paths[1:], paths[0]], strict=True):
        admin.add_fixture(path, "cable", other)
    for path in paths:
        for row in admin.show_network(path)["ports"]:
            admin.impair(path, row["port"], delay_ms=2, jitter_ms=1)
    with ipn.connect(paths[0], timeout=5) as member:
        member.send(b"round and round")
        eventually(lambda: sum(admin.show_network(path)["drops"].get("hop limit", 0) for path in paths) == 2)
        came = 0
        while member.recv() == b"round and round":  # one by each way round, as often as the hops allow
            came += 1
            if came == 2 * (8 // 3):
                break
        shown = [row.get("impairment", {}) for path in paths for row in admin.show_network(path)["ports"]]
        assert all(way["waiting"] == 0 for row in shown for way in row.values())


@requires_root
@LOSSLESS
def test_tcp_of_impaired_taps_arrives_as_it_was_sent(path: str, lossless: bool) -> None:
    admin.create_network(path, "vdeswitch", lossless=lossless, pool=1024)
    with Lab() as lab:
        one, two = lab.attached("one", path, "10.0.0.1/24"), lab.attached("two", path, "10.0.0.2/24")
        admin.impair(path, one.port, delay_ms=3, jitter_ms=1)
        admin.impair(path, two.port, loss=0.2, duplicate=1)
        rtt = one.run("ping", "-n", "-c5", "-i0.1", "-q", "10.0.0.2", check=False).stdout
        assert float(rtt.rsplit("=", 1)[1].split("/")[0]) >= 4  # two frames, each 2 to 4 ms
        assert transfers(two, one, "10.0.0.2", 4)
        admin.impair(path, two.port)
        assert transfers(one, two, "10.0.0.1", 4)


@requires_root
@pytest.mark.parametrize("lossless", [False])
def test_frames_that_the_kernel_left_unfinished_are_impaired_like_others(pair: Pair) -> None:
    with Lab() as lab:
        host = lab.attached("host", pair.path, "10.0.0.1/24")
        host.ip("neigh", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0")
        admin.impair(pair.path, host.port, "in", loss=100)
        host.run(sys.executable, "-c", DATAGRAMS)  # without their checksums
        eventually(lambda: impairment_of(pair.path, host.port)["in"]["lost"] == 20)


DATAGRAMS = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(20):
    sock.sendto(bytes(100), ("10.0.0.2", 9))
"""


# -- asking for it -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_and_changes_nothing(path: str) -> None:
    with ipn.bind(path), ipn.connect(path, port=0):
        before = admin.impair(path, 0, delay_ms=10)
        for code, words, port, settings in (
            (errno.EADDRNOTAVAIL, f"nobody is on port 7 of {path}", 7, {"loss": 1}),
            (errno.EINVAL, "'direction' must be one of in, out, both, not 'up'", 0, {"direction": "up"}),
            (errno.EINVAL, "must be from 0 to 100 %", 0, {"loss": 200}),
        ):
            with pytest.raises(OSError, match=words) as refused:
                admin.impair(path, port, **settings)  # type: ignore[arg-type]
            assert refused.value.errno == code
        assert impairment_of(path, 0) == before


# -- the model ---------------------------------------------------------------------------------------------------------


def through_wirefilter(count: int, *options: str) -> list[int]:
    """Send numbered frames through VDE's wirefilter (a two-byte length before each); return those that come out."""
    filtering = subprocess.Popen(
        ["wirefilter", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert filtering.stdin is not None
    assert filtering.stdout is not None
    last = [count] * 50  # so that one of these surely is not lost: what it has when its input ends, it drops
    data = b"".join(struct.pack(">H", 100) + message(number) for number in [*range(count), *last])
    feeder = threading.Thread(target=os.writev, args=(filtering.stdin.fileno(), [data]))
    feeder.start()
    try:
        heard: list[int] = []
        while not heard or heard[-1] != count:
            (length,) = struct.unpack(">H", filtering.stdout.read(2))
            heard.append(number_of(filtering.stdout.read(length)))
        return heard[:-1]
    finally:
        filtering.kill()
        filtering.wait()
        feeder.join()
        filtering.stdin.close()
        filtering.stdout.close()


@requires("wirefilter")
@DIRECTIONS
@LOSSLESS
def test_as_many_are_lost_and_doubled_as_by_wirefilter(pair: Pair, direction: str) -> None:
    count = 4000
    lossy, doubling = through_wirefilter(count, "-l", "20"), through_wirefilter(count, "-D", "20")
    pair.impair(direction, loss=20, seed=1)
    pair.send(count)
    kept = pair.receive(count - eventually(lambda: taken(pair.path, 3, count) or pair.shown(direction)["lost"]))
    assert len(kept) == pytest.approx(len(lossy), rel=0.05)
    pair.impair(direction, duplicate=20, seed=1)
    pair.send(count)
    taken(pair.path, 3, 2 * count)
    heard = pair.receive(count + pair.shown(direction)["duplicated"])
    # wirefilter doubles doubles, too: 20 % are 25 %
    assert len(heard) / count == pytest.approx(1.2, abs=0.03)
    assert len(doubling) / count == pytest.approx(1.25, abs=0.04)
    assert heard == sorted(heard)
    assert doubling == sorted(doubling)
