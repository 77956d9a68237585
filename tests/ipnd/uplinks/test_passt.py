"""Uplinks to programs that listen: the real passt, and a server of the test's own that speaks QEMU's framing."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import IPNCTL
from tests.ipnd.uplinks.outside import (
    ADDRESS,
    ANSWER,
    GATEWAY,
    Outside,
    arp_answered,
    lease_of,
    tcp,
    udp,
    uplinks,
    wait_until_up,
)
from tests.lab import Lab
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

StartPasst = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def passt_socket(ipnd: RunningDaemon) -> str:
    """Give a path where passt, which leaves root, can listen."""
    directory = Path(ipnd.path("passt"))
    directory.mkdir()
    directory.chmod(0o777)
    return str(directory / "socket")


@pytest.fixture
def start_passt(passt_socket: str) -> Iterator[StartPasst]:
    """Start passt, which listens at ``passt_socket`` then; it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        Path(passt_socket).unlink(missing_ok=True)
        command = ["passt", "--foreground", "--mtu", "1500", "--socket", passt_socket]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        eventually(lambda: os.path.exists(passt_socket))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@requires("passt", "udhcpc")
def test_a_guest_gets_its_address_from_a_running_passt_and_reaches_the_host_and_its_dns(
    outside: Outside, ipnd: RunningDaemon, net: str, lab: Lab, passt_socket: str, start_passt: StartPasst
) -> None:
    process = start_passt()
    admin.add_fixture(net, "passt", passt_socket)
    port = wait_until_up(net)
    assert port["pid"] == process.pid
    assert port["command"].startswith("passt")
    guest = lab.host("guest", net)
    lease = lease_of(guest, ipnd.directory)
    assert (lease.address, lease.router) == (ADDRESS, GATEWAY)
    assert tcp(guest, GATEWAY, outside.port) == ANSWER
    if not outside.resolver.startswith("127."):
        assert lease.dns == outside.resolver
        assert udp(guest, lease.dns) == "answer to question"


@requires("passt")
def test_an_uplink_waits_for_passt_and_comes_back_with_it(
    outside: Outside, ipnd: RunningDaemon, net: str, passt_socket: str, start_passt: StartPasst
) -> None:
    made = admin.add_fixture(net, "passt", passt_socket)
    assert made["problem"] == f"there is no socket at {passt_socket}"
    assert admin.show_network(net)["ports"] == []
    process = start_passt()
    assert arp_answered(net, GATEWAY)
    end(process)
    eventually(lambda: uplinks(net)[0]["problem"] == f"nobody serves the socket {passt_socket}")
    eventually(lambda: admin.show_network(net)["ports"] == [])
    process = start_passt()
    assert arp_answered(net, GATEWAY)
    ipnd.restart()
    assert arp_answered(net, GATEWAY)


def listening(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that listens at ``path``."""
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.settimeout(5)
    listener.bind(path)
    listener.listen()
    return listener


def test_frames_go_both_ways_and_the_connection_ends_with_the_uplink(net: str, ipnd: RunningDaemon) -> None:
    with closing(listening(ipnd.path("server"))) as server, RawMember(net) as member:
        made = admin.add_fixture(net, "passt", ipnd.path("server"))
        assert (made["group"], made["problem"]) == ("uplink", "")
        sock, _ = server.accept()
        with sock:
            wait_until_up(net)
            frame = b"\xff" * 6 + bytes.fromhex("020000000001 88b5") + bytes(50)
            member.send_frame(frame)
            assert sock.recv(1000) == struct.pack(">I", len(frame)) + frame
            sock.sendall(struct.pack(">I", len(frame)) + frame)
            assert member.recv_frame() == frame
            admin.remove_fixture(net, "passt", ipnd.path("server"))
            assert sock.recv(1000) == b""
            assert [port["kind"] for port in admin.show_network(net)["ports"]] == ["raw"]


def test_an_uplink_does_not_keep_its_network_alive(ipnd: RunningDaemon) -> None:
    path = ipnd.path("brief")
    with closing(listening(ipnd.path("server"))) as server:
        with ipn.bind(path):
            admin.add_fixture(path, "passt", ipnd.path("server"))
            sock, _ = server.accept()
            wait_until_up(path)
        with sock:
            assert sock.recv(100) == b""
        eventually(lambda: admin.list_networks() == [])


def test_a_server_that_closes_is_connected_to_again(net: str, ipnd: RunningDaemon) -> None:
    with closing(listening(ipnd.path("server"))) as server:
        admin.add_fixture(net, "passt", ipnd.path("server"))
        for _ in range(3):
            sock, _ = server.accept()
            eventually(lambda: len(admin.show_network(net)["ports"]) == 1)
            sock.close()
        sock, _ = server.accept()
        with sock:
            wait_until_up(net)
    assert len([line for line in ipnd.log if "has closed the connection; it is tried again" in line]) == 3


def test_noise_from_the_server_ends_the_connection_and_nothing_else(net: str, ipnd: RunningDaemon) -> None:
    with closing(listening(ipnd.path("server"))) as server:
        admin.add_fixture(net, "passt", ipnd.path("server"))
        sock, _ = server.accept()
        with sock:
            sock.sendall(b"SSH-2.0-OpenSSH\r\n")
            assert sock.recv(100) == b""
        sock, _ = server.accept()
        with sock:
            wait_until_up(net)


def test_an_uplink_that_finds_no_free_port_says_so_and_waits_for_one(ipnd: RunningDaemon) -> None:
    path = ipnd.path("small")
    admin.create_network(path, ports=1)
    with closing(listening(ipnd.path("server"))):
        with RawMember(path):
            eventually(lambda: admin.show_network(path)["readers"] == 1)
            admin.add_fixture(path, "passt", ipnd.path("server"))
            eventually(lambda: "all 1 ports" in uplinks(path)[0]["problem"])
        wait_until_up(path)


def test_what_cannot_be_connected_to_is_told(net: str, ipnd: RunningDaemon) -> None:
    Path(ipnd.path("file")).touch()
    os.symlink(ipnd.path("file"), ipnd.path("link"))
    with closing(listening(ipnd.path("packets"), socket.SOCK_SEQPACKET)):
        for name, words in (
            ("nothing", "there is no socket at"),
            ("file", "nobody serves the socket"),
            ("link", "nobody serves the socket"),
            ("packets", "is a socket of another type"),
        ):
            made = admin.add_fixture(net, "passt", ipnd.path(name))
            assert words in made["problem"]
    for address, number in (("relative", errno.EINVAL), ("", errno.EINVAL), ("/" + 107 * "x", errno.ENAMETOOLONG)):
        with pytest.raises(OSError, match=r"path|too long") as refused:
            admin.add_fixture(net, "passt", address)
        assert refused.value.errno == number
    with pytest.raises(OSError, match="has no option 'mtu'"):
        admin.add_fixture(net, "passt", ipnd.path("other"), mtu=1500)
    assert len(uplinks(net)) == 4


@requires_root
def test_a_root_daemon_connects_as_the_user_who_asked(net: str, ipnd: RunningDaemon) -> None:
    with closing(listening(ipnd.path("roots"))) as server:
        os.chmod(ipnd.path("roots"), 0o600)
        run(ipnd, *as_user(NOBODY), *IPNCTL, "uplink", "add", net, "--passt", ipnd.path("roots"))
        assert uplinks(net)[0]["problem"] == f"user {NOBODY} may not connect to {ipnd.path('roots')}"
        os.chmod(ipnd.path("roots"), 0o666)
        sock, _ = server.accept()
        sock.close()


@requires_root
def test_a_users_ipnd_connects_for_that_user_only(ipnd: RunningDaemon) -> None:
    """Else its sockets, an agent's for example, would be open to all who may manage one of its networks."""
    other = RunningDaemon(Path(ipnd.path("other")), prefix=as_user(4242))
    other.directory.mkdir()
    other.directory.chmod(0o777)
    other.start()
    try:
        path = other.path("net")
        run(other, *as_user(4242), *IPNCTL, "net", "create", path, "--mode", "0777")
        with closing(listening(other.path("server"))) as server:
            os.chown(other.path("server"), 4242, 4242)
            add = (*IPNCTL, "uplink", "add", path, "--passt", other.path("server"))
            assert "can neither run programs nor connect as user 65534" in run(other, *as_user(NOBODY), *add, ok=False)
            server.settimeout(0)
            with pytest.raises(BlockingIOError):
                server.accept()
            server.settimeout(5)
            run(other, *as_user(4242), *add)
            server.accept()[0].close()
    finally:
        other.close()


def run(ipnd: RunningDaemon, *words: str, ok: bool = True) -> str:
    """Run a command that finds the daemon; return what it said on stderr."""
    done = subprocess.run(words, env=ipnd.env, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode == 0) == ok, done.stderr
    return done.stderr
