"""Bare SEQPACKET connections, as User-Mode Linux's bess and slirp4netns make them, against a real daemon."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from ipn import admin
from tests.peers import NOBODY, as_user, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

from .clients import PacketClient, frame, number_of, resting_fds, stopped

SPEAK: Final = """
import socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.settimeout(10)
sock.connect(sys.argv[1])
print("connected", flush=True)
for line in sys.stdin:
    try:
        if line.strip():
            sock.send(bytes.fromhex(line))
            print("sent", flush=True)
        else:
            print(sock.recv(2000).hex(), flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


@pytest.fixture
def path(ipnd: RunningDaemon) -> str:
    """Make a network that takes SEQPACKET connections at ``bess``, and return its path."""
    admin.create_network(ipnd.path("net"), mode=0o777, gateways=[("seqpacket", ipnd.path("bess"))])
    return ipnd.path("net")


@pytest.fixture
def bess(ipnd: RunningDaemon, path: str) -> str:
    """Return the address of the gateway."""
    return ipnd.path("bess")


def ports(path: str) -> list[dict[str, Any]]:
    return list(admin.show_network(path)["ports"])


def wait_for_members(path: str, count: int) -> None:
    eventually(lambda: len(ports(path)) == count, message=f"the members are {ports(path)}")


def test_every_message_is_a_frame_and_nothing_else_is_said(path: str, bess: str) -> None:
    with PacketClient(bess) as one, PacketClient(bess) as two:
        wait_for_members(path, 2)
        for size in (1, 60, 1514):
            one.send_frame(bytes([size & 0xFF]) * size)
            assert two.recv_frame() == bytes([size & 0xFF]) * size
        two.send_frame(b"IPN1")  # not a control connection here
        assert one.recv_frame() == b"IPN1"
        assert one.is_silent()
        assert two.is_silent()
        shown = ports(path)
        assert [(port["kind"], port["pid"], port["rights"]) for port in shown] == [("seqpacket", os.getpid(), "rw")] * 2
        assert [(port["rx_frames"], port["rx_bytes"], port["tx_frames"]) for port in shown] == [(3, 1575, 1), (1, 4, 3)]
    wait_for_members(path, 0)


def test_empty_and_oversize_messages_are_counted_and_the_rest_arrives(path: str, bess: str) -> None:
    with PacketClient(bess) as one, PacketClient(bess) as two:
        wait_for_members(path, 2)
        for size in (0, 1515, 100_000, 0):
            one.send_frame(bytes(size))
        one.send_frame(frame(1, 1514))
        assert two.recv_frame() == frame(1, 1514)
        assert two.is_silent()
        assert sorted(port["oversize"] for port in ports(path)) == [0, 4]
        for number in range(200):  # in bursts, too
            one.send_frame(b"" if number % 3 else frame(number))
        for number in range(0, 200, 3):
            assert number_of(two.recv_frame()) == number
        assert sorted(port["oversize"] for port in ports(path)) == [0, 4 + 133]


def test_a_member_that_never_reads_costs_the_others_nothing(path: str, bess: str) -> None:
    with PacketClient(bess) as _stuck:
        wait_for_members(path, 1)
        with PacketClient(bess) as one, PacketClient(bess) as two:
            wait_for_members(path, 3)
            for number in range(3000):
                one.send_frame(frame(number, 1514))
                assert number_of(two.recv_frame()) == number
            shown = ports(path)
            assert shown[0]["dropped"] > 1000
            assert sum(port["dropped"] for port in shown[1:]) == 0


def test_frames_sent_before_the_end_still_arrive(ipnd: RunningDaemon, path: str, bess: str) -> None:
    with RawMember(path) as listener:
        wait_for_members(path, 1)
        with stopped(ipnd.process.pid), PacketClient(bess) as sender:
            for number in range(50):
                sender.send_frame(frame(number))
        for number in range(50):
            assert listener.recv_frame() == frame(number)
    wait_for_members(path, 0)


def test_a_member_that_sends_no_more_still_receives(path: str, bess: str) -> None:
    with RawMember(path) as raw, PacketClient(bess) as listener:
        wait_for_members(path, 2)
        listener.sock.shutdown(socket.SHUT_WR)
        eventually(lambda: sorted(port["rights"] for port in ports(path)) == ["r", "rw"])
        raw.send_frame(frame(1))
        assert listener.recv_frame() == frame(1)
    wait_for_members(path, 0)


def test_a_member_that_dies_is_gone(path: str, bess: str) -> None:
    command = [sys.executable, "-S", "-E", "-c", SPEAK, bess]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for_members(path, 1)
    process.kill()
    process.communicate()
    wait_for_members(path, 0)


def test_descriptors_sent_along_are_closed(ipnd: RunningDaemon, path: str, bess: str) -> None:
    with PacketClient(bess) as one, PacketClient(bess) as two:
        wait_for_members(path, 2)
        one.send_frame(frame(0))
        assert two.recv_frame() == frame(0)
        before = resting_fds(ipnd)
        fds = array.array("i", [0, 1, 2])
        for number in range(50):
            one.sock.sendmsg([frame(number)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            assert two.recv_frame() == frame(number)
        assert resting_fds(ipnd) <= before


@requires_root
def test_other_users_have_the_rights_that_the_networks_file_gives(ipnd: RunningDaemon, path: str, bess: str) -> None:
    for mode, rights in ((0o774, "r"), (0o772, "w"), (0o771, "")):
        os.chmod(path, mode)
        with RawMember(path) as raw:
            wait_for_members(path, 1)
            command = [*as_user(NOBODY), sys.executable, "-S", "-E", "-c", SPEAK, bess]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
            try:
                if not rights:
                    ipnd.wait_for_log(f"of user {NOBODY} neither r nor w")
                    assert len(ports(path)) == 1
                    continue
                wait_for_members(path, 2)
                assert [port["rights"] for port in ports(path)] == ["rw", rights]
                if rights == "r":
                    raw.send_frame(frame(1))
                process.stdin.write("\n" if rights == "r" else frame(2).hex() + "\n")
                process.stdin.flush()
                assert process.stdout.readline().strip() == (frame(1).hex() if rights == "r" else "sent")
                if rights == "w":
                    assert raw.recv_frame() == frame(2)
            finally:
                process.kill()
                process.communicate()
        wait_for_members(path, 0)


def test_a_full_network_closes_the_connection(ipnd: RunningDaemon, short_directory: Path) -> None:
    path, bess = ipnd.path("net"), ipnd.path("bess")
    admin.create_network(path, ports=1, gateways=[("seqpacket", bess)])
    with PacketClient(bess):
        wait_for_members(path, 1)
        with PacketClient(bess) as other:
            assert other.recv_frame() == b""
        assert "all 1 ports" in ipnd.wait_for_log("is turned away")
        assert admin.show_network(path)["refused"] == 1
    wait_for_members(path, 0)
    with PacketClient(bess):
        wait_for_members(path, 1)


def test_closing_the_gateway_puts_its_members_out_and_removes_its_socket(
    ipnd: RunningDaemon, path: str, bess: str
) -> None:
    admin.add_gateway(path, "seqpacket", ipnd.path("other"))
    with ExitStack() as stack:
        gone = [stack.enter_context(PacketClient(bess)) for _ in range(3)]
        stays = stack.enter_context(PacketClient(ipnd.path("other")))
        raw = stack.enter_context(RawMember(path))
        wait_for_members(path, 5)
        gone.pop().close()
        wait_for_members(path, 4)
        admin.remove_gateway(path, "seqpacket", bess)
        assert all(client.recv_frame() == b"" for client in gone)
        assert sorted(port["kind"] for port in ports(path)) == ["raw", "seqpacket"]
        raw.send_frame(frame(1))
        assert stays.recv_frame() == frame(1)
    assert not os.path.exists(bess)


def test_descriptors_are_given_back(ipnd: RunningDaemon) -> None:
    path, bess = ipnd.path("net"), ipnd.path("bess")
    admin.create_network(path, ports=64, gateways=[("seqpacket", bess)])
    PacketClient(bess).close()
    wait_for_members(path, 0)
    before = resting_fds(ipnd)
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(PacketClient(bess))
        wait_for_members(path, 50)
        assert ipnd.fds() >= before + 50
    wait_for_members(path, 0)
    eventually(lambda: ipnd.fds() <= before, message=f"{ipnd.fds()} descriptors, {before} before")
