"""Bare datagrams: clients that are told apart by their addresses, against a real daemon."""

from __future__ import annotations

import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from ipn import admin
from tests.peers import NOBODY, as_user, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

from .clients import DatagramClient, frame, number_of, resting_fds, stopped

LOOKING_OFTEN: Final = """
import sys
sys.argv[1:4] = []
from ipnd.gateways import dgram
dgram.LOOK_NS = 20_000_000
from ipnd.cli import main
main()
"""
"""An ipnd that looks for members that are gone every 20 ms."""

SEND: Final = """
import socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.bind(sys.argv[2])
sock.sendto(bytes.fromhex(sys.argv[3]), sys.argv[1])
sock.settimeout(5)
print("sent", flush=True)
for line in sys.stdin:
    print(sock.recv(2000).hex(), flush=True)
"""


@pytest.fixture
def path(ipnd: RunningDaemon) -> str:
    """Make a network that takes datagrams at ``gate``, and return its path."""
    return network_on(ipnd)


@pytest.fixture
def gate(ipnd: RunningDaemon, path: str) -> str:
    """Return the address of the gateway."""
    return ipnd.path("gate")


@pytest.fixture
def looking_often(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    """Give a daemon that soon sees which members are gone."""
    daemon = RunningDaemon(short_directory, prefix=(sys.executable, "-c", LOOKING_OFTEN))
    monkeypatch.setenv("IPND_SOCKET", daemon.control)
    daemon.start()
    yield daemon
    daemon.close()


def network_on(daemon: RunningDaemon, **options: Any) -> str:
    path = daemon.path("net")
    admin.create_network(path, **{"mode": 0o777, **options}, gateways=[("dgram", daemon.path("gate"))])
    return path


def ports(path: str) -> list[dict[str, Any]]:
    return list(admin.show_network(path)["ports"])


def counts(path: str) -> dict[str, int]:
    return dict(admin.show_network(path)["fixtures"][0]["counts"])


def wait_for_members(path: str, count: int) -> None:
    eventually(lambda: len(ports(path)) == count, message=f"the members are {ports(path)}")


def joined(daemon: RunningDaemon, name: str | bytes, **how: Any) -> DatagramClient:
    """Return a client that has said hello and is a member; ``name`` is in the daemon's directory, or abstract."""
    path = daemon.path("net")
    before = len(ports(path))
    client = DatagramClient(daemon.path("gate"), daemon.path(name) if isinstance(name, str) else name, **how)
    client.send_frame(b"VFKT")
    wait_for_members(path, before + 1)
    return client


class Somebody:
    """A process of another user that sends one datagram and tells what it receives."""

    def __init__(self, gate: str, path: str, data: bytes, uid: int = NOBODY) -> None:
        command = [*as_user(uid), sys.executable, "-S", "-E", "-c", SEND, gate, path, data.hex()]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        assert self._line() == "sent"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def recv_frame(self) -> bytes:
        """Return the next frame."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return bytes.fromhex(self._line())

    def __enter__(self) -> Somebody:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


# -- frames --------------------------------------------------------------------------------------------------------


def test_clients_are_told_apart_by_the_addresses_they_send_from(ipnd: RunningDaemon, path: str, gate: str) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(joined(ipnd, name, **how))
            for name, how in (("one", {}), ("two", {"connected": True}), (b"\0ipn-test-%d" % os.getpid(), {}))
        ]
        descriptions = {port["description"] for port in ports(path)}
        assert descriptions == {ipnd.path("one"), ipnd.path("two"), f"@ipn-test-{os.getpid()}"}
        for number, sender in enumerate(clients):
            sender.send_frame(frame(number, 1514))
            for other in clients:
                if other is not sender:
                    assert other.recv_frame() == frame(number, 1514)
        assert all(client.is_silent() for client in clients)
        for port in ports(path):
            assert (port["kind"], port["pid"], port["rights"]) == ("dgram", os.getpid(), "rw")
            assert (port["rx_frames"], port["tx_frames"], port["rx_bytes"]) == (1, 2, 1514)


def test_the_first_frame_makes_a_member_without_a_hello(ipnd: RunningDaemon, path: str, gate: str) -> None:
    """As QEMU's ``-netdev dgram`` does: it binds its own address and sends to ours."""
    with RawMember(path) as raw, DatagramClient(gate, ipnd.path("qemu")) as qemu:
        wait_for_members(path, 1)
        qemu.send_frame(frame(1))
        assert raw.recv_frame() == frame(1)
        raw.send_frame(frame(2))
        assert qemu.recv_frame() == frame(2)


def test_a_client_whose_path_is_relative_is_found_where_it_runs(
    ipnd: RunningDaemon, path: str, gate: str, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_directory)
    with RawMember(path) as raw, DatagramClient(gate, "mine") as client:
        wait_for_members(path, 1)
        client.send_frame(frame(1))
        assert raw.recv_frame() == frame(1)
        raw.send_frame(frame(2))
        assert client.recv_frame() == frame(2)


def test_a_hello_and_an_empty_datagram_are_no_frames_and_oversize_ones_are_counted(
    ipnd: RunningDaemon, path: str, gate: str
) -> None:
    with joined(ipnd, "one") as one, joined(ipnd, "two") as two:
        for data in (b"VFKT", b"", bytes(1515), bytes(60_000), frame(1, 1514)):
            one.send_frame(data)
        assert two.recv_frame() == frame(1, 1514)
        assert two.is_silent()
        assert [(port["rx_frames"], port["oversize"]) for port in ports(path)] == [(1, 2), (0, 0)]


def test_frames_of_several_clients_in_one_go_keep_their_order(ipnd: RunningDaemon, path: str, gate: str) -> None:
    received: list[bytes] = []
    with RawMember(path) as raw:
        wait_for_members(path, 1)
        with joined(ipnd, "one") as one, joined(ipnd, "two") as two:
            for number in range(0, 300, 3):
                with stopped(ipnd.process.pid):  # so that it reads several at once
                    one.send_frame(frame(number))
                    two.send_frame(frame(number + 1, 700))
                    two.send_frame(frame(number + 2, 701))
                received += [raw.recv_frame() or b"" for _ in range(3)]
            assert [port["rx_frames"] for port in ports(path)] == [0, 100, 200]
    assert [number_of(data) for data in received] == list(range(300))
    assert [len(data) for data in received[:3]] == [60, 700, 701]


def test_a_client_that_never_reads_costs_the_others_nothing(ipnd: RunningDaemon, path: str, gate: str) -> None:
    with joined(ipnd, "stuck"), joined(ipnd, "paused", connected=True), joined(ipnd, "one") as one, joined(
        ipnd, "two", connected=True
    ) as two:
        for number in range(1500):
            one.send_frame(frame(number))
            assert number_of(two.recv_frame()) == number
            two.send_frame(frame(number))
            assert number_of(one.recv_frame()) == number
        stuck, paused, *healthy = ports(path)
        assert stuck["dropped"] > 2900
        assert paused["dropped"] > 500
        assert [(port["dropped"], port["tx_frames"]) for port in healthy] == [(0, 1500)] * 2


def test_on_a_lossless_network_senders_wait_and_nothing_is_lost(ipnd: RunningDaemon) -> None:
    path = network_on(ipnd, lossless=True)
    with RawMember(path) as slow:
        wait_for_members(path, 1)
        sender = joined(ipnd, "sender")
        sent = send_until_held(sender, path)
        for number in range(sent):
            assert number_of(slow.recv_frame() or b"") == number
        sender.sock.settimeout(5)
        sender.send_frame(frame(sent))
        assert number_of(slow.recv_frame() or b"") == sent
        sender.close()


def send_until_held(sender: DatagramClient, path: str) -> int:
    """Send frames until port 0 has taken all it can and the sender must wait; return how many went."""
    sender.sock.setblocking(False)
    sent = 0
    while sent < 100_000:
        try:
            sender.send_frame(frame(sent, 1500))
            sent += 1
        except BlockingIOError:
            if ports(path)[0]["queued"]:
                return sent
            eventually(lambda: select.select([], [sender], [], 0)[1] or ports(path)[0]["queued"])
    pytest.fail("the sender never had to wait")


# -- coming and going ----------------------------------------------------------------------------------------------


def test_a_client_that_is_gone_leaves_with_the_next_frame_for_it(ipnd: RunningDaemon, path: str, gate: str) -> None:
    with RawMember(path) as raw:
        for how in ({}, {"connected": True}):
            joined(ipnd, f"client{len(how)}", **how).close()
            raw.send_frame(frame(1))
            wait_for_members(path, 1)


def test_a_client_that_has_started_again_is_a_new_member(ipnd: RunningDaemon, path: str, gate: str) -> None:
    with RawMember(path) as raw:
        joined(ipnd, "client").close()
        os.unlink(ipnd.path("client"))
        with DatagramClient(gate, ipnd.path("client")) as again:
            raw.send_frame(frame(1))  # goes to the old one, which leaves
            wait_for_members(path, 1)
            again.send_frame(frame(2))
            assert raw.recv_frame() == frame(2)
            raw.send_frame(frame(3))
            assert again.recv_frame() == frame(3)


def test_silent_clients_that_are_gone_are_missed(looking_often: RunningDaemon) -> None:
    path = network_on(looking_often)
    with joined(looking_often, "stays"), joined(looking_often, "too", connected=True):
        os.unlink(looking_often.path("stays"))  # its socket is there nevertheless
        gone = [joined(looking_often, "gone"), joined(looking_often, b"\0ipn-gone-%d" % os.getpid(), connected=True)]
        for client in gone:
            client.close()
        wait_for_members(path, 2)
        left = [looking_often.path("stays"), looking_often.path("too")]
        assert [port["description"] for port in ports(path)] == left


def test_who_is_gone_while_it_had_to_wait_leaves_the_others_free(looking_often: RunningDaemon) -> None:
    path = network_on(looking_often, lossless=True)
    with RawMember(path) as slow:
        wait_for_members(path, 1)
        sender = joined(looking_often, "sender")
        sent = send_until_held(sender, path)
        sender.close()
        wait_for_members(path, 1)
        with DatagramClient(looking_often.path("gate"), looking_often.path("other")) as other:
            other.send_frame(frame(sent))
            while number_of(slow.recv_frame() or b"") != sent:
                continue


def test_a_daemon_without_descriptors_goes_on_and_keeps_its_members(looking_often: RunningDaemon) -> None:
    path, gate = network_on(looking_often), looking_often.path("gate")
    with RawMember(path) as raw:
        wait_for_members(path, 1)
        with joined(looking_often, "one") as one, DatagramClient(gate, looking_often.path("other")) as other:
            before = resting_fds(looking_often)
            for spare in (0, 1):
                with spare_descriptors(looking_often, spare):
                    enough = time.monotonic() + 0.1  # it looks every 20 ms
                    number = 0
                    while time.monotonic() < enough:
                        other.send_frame(frame(999))
                        one.send_frame(frame(number))
                        assert raw.recv_frame() == frame(number)
                        number += 1
            assert [port["kind"] for port in ports(path)] == ["raw", "dgram"]
            eventually(lambda: looking_often.fds() <= before)
            eventually(lambda: other.send_frame(b"VFKT") or len(ports(path)) == 3)  # type: ignore[func-returns-value]


@contextmanager
def spare_descriptors(daemon: RunningDaemon, count: int) -> Iterator[None]:
    """Let a daemon open only so many more files."""
    pid = daemon.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = [number for number in range(limits[0]) if number not in used][:count]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[-1] + 1 if free else 3, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def test_closing_the_gateway_puts_its_clients_out_and_removes_its_socket(
    ipnd: RunningDaemon, path: str, gate: str
) -> None:
    with joined(ipnd, "one"), RawMember(path):
        wait_for_members(path, 2)
        admin.remove_gateway(path, "dgram", gate)
        assert [port["kind"] for port in ports(path)] == ["raw"]
        assert not os.path.exists(gate)
        assert os.path.exists(ipnd.path("one"))


def test_descriptors_are_given_back(looking_often: RunningDaemon) -> None:
    path = network_on(looking_often, ports=128)
    joined(looking_often, "warm-up").close()
    wait_for_members(path, 0)
    before = resting_fds(looking_often)
    with ExitStack() as clients:
        for number in range(50):
            how = {"connected": bool(number % 2)}
            client = clients.enter_context(
                DatagramClient(looking_often.path("gate"), looking_often.path(f"c{number}"), **how)
            )
            client.send_frame(b"VFKT")
        wait_for_members(path, 50)
        assert looking_often.fds() >= before + 50
    wait_for_members(path, 0)
    eventually(lambda: looking_often.fds() <= before, message=f"{looking_often.fds()} descriptors, {before} before")


# -- who is turned away --------------------------------------------------------------------------------------------


def test_a_socket_without_an_address_is_turned_away_once(ipnd: RunningDaemon, path: str, gate: str) -> None:
    with DatagramClient(gate, "") as nameless, joined(ipnd, "one") as one, joined(ipnd, "two") as two:
        for _ in range(10):
            nameless.send_frame(frame(1))
        one.send_frame(frame(2))
        assert two.recv_frame() == frame(2)
        assert "without an address: bind it" in ipnd.wait_for_log("is turned away")
        assert counts(path) == {"refused": 1, "datagrams of those turned away": 9}
        assert admin.show_network(path)["refused"] == 1
        assert len([line for line in ipnd.log if "is turned away" in line]) == 1


def test_a_path_forges_no_lines_of_the_log(ipnd: RunningDaemon, path: str, gate: str) -> None:
    with joined(ipnd, "a\nready \x1b[2J"):
        assert ports(path)[0]["description"] == ipnd.path("a?ready ?[2J")


@requires_root
def test_an_address_belongs_to_the_user_who_has_it(
    ipnd: RunningDaemon, path: str, gate: str, short_directory: Path
) -> None:
    short_directory.chmod(0o777)
    with joined(ipnd, "mine") as mine:
        os.chmod(gate, 0o666)
        os.rename(ipnd.path("mine"), ipnd.path("elsewhere"))
        with Somebody(gate, ipnd.path("mine"), frame(1)):
            assert f"{ipnd.path('mine')} is the address of another user's" in ipnd.wait_for_log("is turned away")
            assert [port["uid"] for port in ports(path)] == [0]
        mine.send_frame(b"VFKT")
        assert len(ports(path)) == 1


@requires_root
def test_a_socket_file_that_somebody_else_put_there_is_not_written_to(
    ipnd: RunningDaemon, path: str, gate: str, short_directory: Path
) -> None:
    """The sender's address is only a name: the file behind it may be another by now."""
    short_directory.chmod(0o777)
    mine = short_directory / "mine"
    mine.mkdir(0o777)
    mine.chmod(0o777)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as roots:
        roots.bind(ipnd.path("roots"))
        with stopped(ipnd.process.pid):
            somebody = Somebody(gate, f"{mine}/s", frame(1))
            os.rename(ipnd.path("roots"), f"{mine}/s")
        with somebody:
            ipnd.wait_for_log(f"its data socket {mine}/s belongs to user 0")
            assert ports(path) == []


@requires_root
def test_other_users_have_the_rights_that_the_networks_file_gives(ipnd: RunningDaemon, short_directory: Path) -> None:
    short_directory.chmod(0o777)
    for mode, rights in ((0o774, "r"), (0o772, "w"), (0o776, "rw"), (0o771, "")):
        path, gate = ipnd.path(f"net{mode:o}"), ipnd.path(f"gate{mode:o}")
        admin.create_network(path, mode=0o777, gateways=[("dgram", gate)])
        os.chmod(path, mode)
        with RawMember(path) as raw:
            wait_for_members(path, 1)
            with Somebody(gate, ipnd.path(f"somebody{mode:o}"), frame(1)) as somebody:
                if not rights:
                    ipnd.wait_for_log(f"of user {NOBODY} neither r nor w")
                    continue
                wait_for_members(path, 2)
                if "w" in rights:
                    assert raw.recv_frame() == frame(1)
                if "r" in rights:
                    raw.send_frame(frame(2))
                    assert somebody.recv_frame() == frame(2)
                port = ports(path)[1]
                assert (port["uid"], port["rights"]) == (NOBODY, rights)
                assert (port["rx_frames"], port["tx_frames"]) == ("w" in rights, "r" in rights)
