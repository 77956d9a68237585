"""Cables of bare frames in UDP datagrams: with VDE's udp:// plug, with QEMU, and with plain sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipn import admin
from tests.ipnctl.command import Ipnctl
from tests.ipnd.cables.recipes import RECIPES, run_recipe
from tests.lab import Lab
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

HERE, THERE = "127.0.0.1", "127.0.0.2"
FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x08\x00" + bytes(46)
BURST = (struct.pack(">I", len(FRAME)) + FRAME) * 200
OTHER = b"\xff" * 6 + b"\x02\0\0\0\0\x02" + b"\x08\x00" + bytes(46)


def bound(address: str, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


@pytest.fixture
def remote() -> Iterator[socket.socket]:
    with bound(THERE) as sock:
        yield sock


@pytest.fixture
def port(remote: socket.socket) -> int:
    """Both ends have the same port, at different addresses."""
    number: int = remote.getsockname()[1]
    return number


@pytest.fixture
def net(ipnd: RunningDaemon) -> str:
    path = ipnd.path("net")
    admin.create_network(path)
    return path


@pytest.fixture
def member(net: str) -> Iterator[RawMember]:
    with RawMember(net) as sock:
        eventually(lambda: admin.show_network(net)["ports"])
        yield sock


def cable(path: str) -> dict[str, Any]:
    (found,) = admin.show_network(path)["fixtures"]
    return dict(found)


def row(path: str) -> dict[str, Any]:
    """Return the cable's port."""
    return next(port for port in admin.show_network(path)["ports"] if port["kind"] == "udp")


def url(port: int) -> str:
    return f"udp://{THERE}:{port}?local={HERE}:{port}"


# -- plain sockets ---------------------------------------------------------------------------------------------------


def test_frames_go_both_ways_in_their_order(net: str, member: RawMember, remote: socket.socket, port: int) -> None:
    admin.add_fixture(net, "udp", url(port))
    frames = [FRAME + bytes([n]) * n for n in range(100)]
    for frame in frames:
        member.send_frame(frame)
    assert [remote.recvfrom(2000) for _ in frames] == [(frame, (HERE, port)) for frame in frames]
    for frame in frames:
        remote.sendto(frame, (HERE, port))
    assert [member.recv_frame() for _ in frames] == frames
    assert (row(net)["rx_frames"], row(net)["tx_frames"], row(net)["dropped"]) == (100, 100, 0)


def test_only_the_remote_is_heard(net: str, member: RawMember, remote: socket.socket, port: int) -> None:
    admin.add_fixture(net, "udp", url(port))
    with bound("127.0.0.3", port) as stranger, bound(THERE) as other_port:
        for sock in (stranger, other_port):
            sock.sendto(OTHER, (HERE, port))
    remote.sendto(FRAME, (HERE, port))
    assert member.recv_frame() == FRAME
    assert row(net)["rx_frames"] == 1


def test_empty_and_oversize_datagrams_are_counted(
    net: str, member: RawMember, remote: socket.socket, port: int
) -> None:
    admin.add_fixture(net, "udp", url(port))
    for datagram in (b"", bytes(1515), bytes(60_000), FRAME):
        remote.sendto(datagram, (HERE, port))
    assert member.recv_frame() == FRAME
    assert (row(net)["oversize"], row(net)["rx_frames"]) == (3, 1)


def test_a_remote_that_is_not_there_is_reported_once_and_served_when_it_comes(
    ipnd: RunningDaemon, net: str, member: RawMember, remote: socket.socket, port: int
) -> None:
    admin.add_fixture(net, "udp", url(port))
    remote.close()
    for _ in range(5):
        member.send_frame(FRAME)
    eventually(lambda: cable(net)["counts"].get("ECONNREFUSED", 0) >= 2)
    assert len([line for line in ipnd.log if "nobody takes datagrams there" in line]) == 1
    with bound(THERE, port) as back:
        back.sendto(OTHER, (HERE, port))
        assert member.recv_frame() == OTHER
        member.send_frame(FRAME)
        assert back.recv(2000) == FRAME


@requires_root
def test_a_cable_that_may_only_receive_survives_a_remote_that_is_not_there(
    ipnd: RunningDaemon, remote: socket.socket, port: int
) -> None:
    path = ipnd.path("net")
    admin.create_network(path, mode=0o775)
    Ipnctl(ipnd).run("cable", "add", path, url(port), prefix=as_user(NOBODY)).ok()
    assert row(path)["rights"] == "r"
    remote.close()
    with RawMember(path) as member:
        member.send_frame(FRAME)
        eventually(lambda: cable(path)["counts"].get("ECONNREFUSED"))
        with bound(THERE, port) as back:
            member.send_frame(OTHER)
            assert back.recv(2000) == OTHER


def test_a_burst_to_nobody_is_lost_and_waits_for_nothing(net: str, remote: socket.socket, port: int) -> None:
    admin.add_fixture(net, "udp", url(port))
    remote.close()
    with RawMember(net) as member, RawMember(net) as other:
        eventually(lambda: len(admin.show_network(net)["ports"]) == 3)
        member.sock.sendall(BURST)
        assert [other.recv_frame() for _ in range(200)] == [FRAME] * 200
    eventually(lambda: row(net)["queued"] == 0)
    assert cable(net)["counts"]["ECONNREFUSED"] > 0


def test_what_no_datagram_takes_is_dropped(ipnd: RunningDaemon, remote: socket.socket, port: int) -> None:
    path = ipnd.path("jumbo")
    admin.create_network(path, mtu=100_000)
    admin.add_fixture(path, "udp", url(port))
    with RawMember(path) as member:
        member.send_frame(bytes(70_000))
        member.send_frame(FRAME)
        assert remote.recv(2000) == FRAME
    assert cable(path)["counts"] == {"EMSGSIZE": 1}
    assert row(path)["dropped"] == 1


def test_the_local_port_is_the_remotes_unless_it_is_said(net: str, port: int) -> None:
    admin.add_fixture(net, "udp", f"udp://{THERE}:{port}?local={HERE}")
    with pytest.raises(OSError, match="Address already in use"):
        bound(HERE, port)
    assert cable(net)["address"] == url(port)


@pytest.mark.parametrize("address, number, words", [
    ("udp://127.0.0.1:{port}", errno.EINVAL, "end where it begins"),
    ("udp://127.0.0.1:{port}?local=127.0.0.2", errno.EADDRINUSE, "has that port"),
    ("udp://127.0.0.1:{port}?local=192.0.2.1", errno.EADDRNOTAVAIL, "no address of this machine"),
    ("udp://192.0.2.1:{port}?local=127.0.0.1", errno.EINVAL, "no datagrams go from"),
    ("udp://127.0.0.1", errno.EINVAL, "names no port"),
])
def test_a_cable_that_cannot_be_is_refused_and_leaves_nothing(
    net: str, port: int, address: str, number: int, words: str
) -> None:
    with pytest.raises(OSError, match=words) as refusal:
        admin.add_fixture(net, "udp", address.format(port=port))
    assert refusal.value.errno == number
    assert admin.show_network(net)["ports"] == admin.show_network(net)["fixtures"] == []


def test_a_name_is_looked_up(net: str, member: RawMember) -> None:
    with bound(HERE) as there, bound(THERE) as free:
        port, own = there.getsockname()[1], free.getsockname()[1]
        free.close()
        admin.add_fixture(net, "udp", f"udp://localhost:{port}?local={THERE}:{own}")
        eventually(lambda: cable(net)["state"] == "up", 60)
        member.send_frame(FRAME)
        assert there.recvfrom(2000) == (FRAME, (THERE, own))


def test_a_remote_that_no_route_leads_to_is_tried_again(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lab() as lab:
        ground = lab.bare("ground")
        daemon = RunningDaemon(short_directory, prefix=ground.prefix)
        monkeypatch.setenv("IPND_SOCKET", daemon.control)
        daemon.start()
        try:
            path = daemon.path("net")
            admin.create_network(path)
            admin.add_fixture(path, "udp", "udp://192.0.2.1:5000")
            eventually(lambda: "unreachable" in cable(path)["problem"])
            ground.ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
            ground.ip("address", "add", "192.0.2.2/24", "dev", "d0")
            ground.ip("link", "set", "d0", "up")
            eventually(lambda: cable(path)["state"] == "up" and row(path), 20)
            ground.ip("link", "set", "d0", "down")
            with RawMember(path) as member:
                member.sock.sendall(BURST)
                eventually(lambda: row(path)["dropped"] == 200)
            assert cable(path)["counts"] == {"ENETUNREACH": 200}
        finally:
            daemon.close()


def test_removing_a_cable_frees_its_port_and_a_restart_brings_a_persistent_one_back(
    ipnd: RunningDaemon, net: str, remote: socket.socket, port: int
) -> None:
    admin.add_fixture(net, "udp", url(port))
    ipnd.kill()
    ipnd.start()
    eventually(lambda: cable(net)["state"] == "up")
    with RawMember(net) as member:
        member.send_frame(FRAME)
        assert remote.recv(2000) == FRAME
    admin.remove_fixture(net, "udp", url(port))
    bound(HERE, port).close()
    assert admin.show_network(net)["fixtures"] == []


@requires_root
def test_a_user_gets_no_port_that_is_roots(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    admin.create_network(path, mode=0o777)
    ran = Ipnctl(ipnd).run("cable", "add", path, f"udp://{THERE}:5000?local={HERE}:53", prefix=as_user(NOBODY))
    ran.failed("not for you")


# -- other programs --------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(bound(HERE)).getsockname()[1] for _ in range(count)]


def bound_ports() -> set[int]:
    """Return the UDP ports that somebody has (proc(5))."""
    rows = Path("/proc/net/udp").read_text().splitlines()[1:]
    return {int(row.split()[1].rpartition(":")[2], 16) for row in rows}


@contextlib.contextmanager
def program(recipe: str, variables: Mapping[str, str], at: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a recipe's one program until the end, and go on when it has the UDP port ``at``."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    process = subprocess.Popen(["sh", "-euc", f"exec {recipe}"], env={**os.environ, **variables}, **pipes)
    try:
        eventually(lambda: at in bound_ports(), 20)
        yield process
    finally:
        process.kill()
        process.communicate()


@requires("vde_plug")
def test_a_network_and_vdes_udp_plug_exchange_frames(ipnd: RunningDaemon, net: str, member: RawMember) -> None:
    ours, theirs = free_ports(2)
    places = {"HERE": HERE, "A": HERE, "OURS": str(ours), "THEIRS": str(theirs)}
    run_recipe(RECIPES["udp"], ipnd, NET=net, **places)
    with program(RECIPES["udp-vde"], places, at=theirs) as plug:
        assert plug.stdin is not None
        assert plug.stdout is not None
        plug.stdin.write(struct.pack(">H", len(OTHER)) + OTHER)
        assert member.recv_frame() == OTHER
        member.send_frame(FRAME)
        assert plug.stdout.read(2 + len(FRAME)) == struct.pack(">H", len(FRAME)) + FRAME


@requires("qemu-system-x86_64")
@pytest.mark.parametrize("recipe", ["udp-qemu-dgram", "udp-qemu"])
def test_a_network_and_qemu_exchange_frames(ipnd: RunningDaemon, net: str, member: RawMember, recipe: str) -> None:
    """Instead of a guest a hub, which hands on what comes to another socket of ours."""
    ours, theirs, hub = free_ports(3)
    with bound(HERE) as beyond:
        guest = (
            "-machine none -nodefaults -nographic -monitor none -netdev hubport,id=h0,hubid=0,netdev=net0"
            f" -netdev socket,id=net1,udp={HERE}:{beyond.getsockname()[1]},localaddr={HERE}:{hub}"
            " -netdev hubport,id=h1,hubid=0,netdev=net1"
        )
        places = {"HERE": HERE, "A": HERE, "OURS": str(ours), "THEIRS": str(theirs)}
        run_recipe(RECIPES["udp"], ipnd, NET=net, **places)
        with program(RECIPES[recipe], {**places, "GUEST": guest}, at=hub):
            member.send_frame(FRAME)
            assert beyond.recv(2000) == FRAME
            beyond.sendto(OTHER, (HERE, hub))
            assert member.recv_frame() == OTHER
