"""Cables over VXLAN: with the kernel's own vxlan devices, and with endpoints that are nothing but UDP sockets."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipn import admin
from tests.ipnctl.command import Ipnctl
from tests.ipnd.cables.recipes import RECIPES, run_recipe
from tests.lab import Host, Lab
from tests.peers import NOBODY, as_user, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

HERE = "127.0.0.1"
IP_RECVTTL = 12
ALL = b"\xff" * 6
A, B, C = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3))


class Endpoint:
    """A tunnel endpoint written without ipn: a UDP socket at ``address``, with the port that all share."""

    def __init__(self, address: str, port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.settimeout(5)
        self.sock.bind((address, port))
        self.address = address
        self.port: int = self.sock.getsockname()[1]

    def send(self, frame: bytes, vni: int = 7, *, flags: int = 8, reserved: int = 0) -> None:
        """Send a frame to the daemon's endpoint."""
        header = struct.pack(">II", flags << 24 | reserved, vni << 8 | reserved & 0xFF)
        self.send_bare(header + frame)

    def send_bare(self, datagram: bytes) -> None:
        self.sock.sendto(datagram, ("::1" if ":" in self.address else HERE, self.port))

    def receive(self, vni: int = 7) -> bytes:
        """Return the next frame; its header must be clean."""
        datagram = self.sock.recv(70_000)
        assert datagram[:8] == struct.pack(">II", 0x08000000, vni << 8)
        return datagram[8:]

    def is_quiet(self) -> bool:
        """Tell whether nothing has come."""
        self.sock.setblocking(False)
        try:
            self.sock.recv(70_000)
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(5)
        return False


@pytest.fixture
def one() -> Iterator[Endpoint]:
    endpoint = Endpoint("127.0.0.2")
    yield endpoint
    endpoint.sock.close()


@pytest.fixture
def two(one: Endpoint) -> Iterator[Endpoint]:
    endpoint = Endpoint("127.0.0.3", one.port)
    yield endpoint
    endpoint.sock.close()


@pytest.fixture
def net(ipnd: RunningDaemon) -> str:
    path = ipnd.path("net")
    admin.create_network(path)
    return path


@pytest.fixture
def member(net: str) -> Iterator[RawMember]:
    with joined(net) as sock:
        yield sock


def joined(path: str) -> RawMember:
    """Return a member that the network knows of."""
    before = len(admin.show_network(path)["ports"])
    sock = RawMember(path)
    eventually(lambda: len(admin.show_network(path)["ports"]) > before)
    return sock


def url(*endpoints: Endpoint, vni: int = 7, more: str = "") -> str:
    """Return the URL of a cable from here to them."""
    hosts = ",".join(endpoint.address for endpoint in endpoints)
    return f"vxlan://{hosts}?vni={vni}&port={endpoints[0].port}&local={HERE}{more}"


def cable(path: str) -> dict[str, Any]:
    """Return the only cable of a network."""
    (found,) = admin.show_network(path)["fixtures"]
    return dict(found)


def counts(path: str) -> dict[str, int]:
    return dict(cable(path)["counts"])


def udp_sockets(ipnd: RunningDaemon) -> int:
    """Return how many UDP sockets the daemon has."""
    there = Path(f"/proc/{ipnd.process.pid}")
    inodes = {line.split()[9] for name in ("udp", "udp6") for line in (there / "net" / name).read_text().splitlines()}
    opened = [os.readlink(fd) for fd in (there / "fd").iterdir() if os.path.lexists(fd)]
    return len([name for name in opened if name.removeprefix("socket:[").removesuffix("]") in inodes])


def frame(to: bytes, sender: bytes, text: bytes = b"") -> bytes:
    return to + sender + b"\x08\x00" + text


# -- frames ----------------------------------------------------------------------------------------------------------


def test_frames_go_both_ways(net: str, member: RawMember, one: Endpoint) -> None:
    admin.add_fixture(net, "vxlan", url(one))
    member.send_frame(frame(ALL, A, b"out"))
    assert one.receive() == frame(ALL, A, b"out")
    one.send(frame(A, B, b"in"))
    assert member.recv_frame() == frame(A, B, b"in")
    port = next(port for port in admin.show_network(net)["ports"] if port["kind"] == "vxlan")
    assert (port["rx_frames"], port["tx_frames"], port["dropped"]) == (1, 1, 0)


def test_many_frames_keep_their_order(net: str, member: RawMember, one: Endpoint) -> None:
    admin.add_fixture(net, "vxlan", url(one))
    sent = [frame(ALL, A, bytes([n]) * (n + 1)) for n in range(100)]
    for each in sent:
        one.send(each)
    assert [member.recv_frame() for _ in sent] == sent
    for each in sent:
        member.send_frame(each)
    assert [one.receive() for _ in sent] == sent


def test_what_is_for_all_goes_to_each_remote_and_what_is_for_one_where_it_was_heard(
    net: str, member: RawMember, one: Endpoint, two: Endpoint
) -> None:
    admin.add_fixture(net, "vxlan", url(one, two))
    member.send_frame(frame(B, A, b"unknown"))
    assert one.receive() == two.receive() == frame(B, A, b"unknown")
    two.send(frame(ALL, B, b"here I am"))
    assert member.recv_frame() == frame(ALL, B, b"here I am")
    member.send_frame(frame(B, A, b"for B"))
    assert two.receive() == frame(B, A, b"for B")
    one.send(frame(ALL, B, b"moved"))
    assert member.recv_frame() == frame(ALL, B, b"moved")
    two.send(ALL)  # too short to have a sender: where that would be, B's address may lie from the frame before
    assert member.recv_frame() == ALL
    member.send_frame(frame(B, A, b"for B again"))
    assert one.receive() == frame(B, A, b"for B again")
    member.send_frame(frame(b"\x01\x00\x5e\x00\x00\x01", A, b"a group"))
    assert one.receive() == two.receive() == frame(b"\x01\x00\x5e\x00\x00\x01", A, b"a group")


def test_nothing_goes_from_one_remote_to_another_or_back(
    net: str, member: RawMember, one: Endpoint, two: Endpoint
) -> None:
    admin.add_fixture(net, "vxlan", url(one, two))
    one.send(frame(ALL, B, b"for all"))
    assert member.recv_frame() == frame(ALL, B, b"for all")
    member.send_frame(frame(ALL, A, b"last"))
    assert one.receive() == two.receive() == frame(ALL, A, b"last")


def test_two_networks_share_a_port_by_their_vnis(ipnd: RunningDaemon, net: str, one: Endpoint) -> None:
    other = ipnd.path("other")
    admin.create_network(other)
    admin.add_fixture(net, "vxlan", url(one))
    admin.add_fixture(other, "vxlan", url(one, vni=8))
    assert udp_sockets(ipnd) == 1
    with joined(net) as seven, joined(other) as eight:
        for vni in (7, 8, 8, 7):
            one.send(frame(ALL, B, b"to %d" % vni), vni)
        assert [seven.recv_frame() for _ in range(2)] == [frame(ALL, B, b"to 7")] * 2
        assert [eight.recv_frame() for _ in range(2)] == [frame(ALL, B, b"to 8")] * 2
        eight.send_frame(frame(ALL, A, b"from 8"))
        assert one.receive(vni=8) == frame(ALL, A, b"from 8")
    admin.remove_fixture(net, "vxlan", url(one))
    assert udp_sockets(ipnd) == 1
    admin.delete_network(other)
    assert udp_sockets(ipnd) == 0


def test_a_jumbo_frame_goes_in_fragments_and_what_no_datagram_takes_is_dropped(
    ipnd: RunningDaemon, one: Endpoint
) -> None:
    path = ipnd.path("jumbo")
    admin.create_network(path, mtu=100_000)
    admin.add_fixture(path, "vxlan", url(one))
    with joined(path) as member:
        member.send_frame(frame(ALL, A, bytes(70_000)))
        member.send_frame(frame(ALL, A, bytes(60_000)))
        assert one.receive() == frame(ALL, A, bytes(60_000))
        one.send(frame(ALL, B, bytes(60_000)))
        assert member.recv_frame() == frame(ALL, B, bytes(60_000))
    assert counts(path) == {"not sent: Message too long": 1}
    assert [port["dropped"] for port in admin.show_network(path)["ports"] if port["kind"] == "vxlan"] == [1]


def test_the_ttl_is_the_cables_own(net: str, member: RawMember, one: Endpoint) -> None:
    one.sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    admin.add_fixture(net, "vxlan", url(one, more="&ttl=9"))
    member.send_frame(frame(ALL, A))
    _, control, _, _ = one.sock.recvmsg(2000, 100)
    assert [struct.unpack("i", data) for *_, data in control] == [(9,)]


# -- bad input -------------------------------------------------------------------------------------------------------


def test_what_is_not_for_the_cable_is_counted_and_logged_once(
    ipnd: RunningDaemon, net: str, member: RawMember, one: Endpoint, two: Endpoint
) -> None:
    admin.add_fixture(net, "vxlan", url(one))
    for _ in range(2):
        one.send_bare(b"")
        one.send_bare(struct.pack(">II", 8 << 24, 7 << 8)[:7])
        one.send(frame(ALL, B), flags=0)
        one.send(frame(ALL, B), vni=9)
        one.send(b"")
        one.send(frame(ALL, B, bytes(1514 - 13)))
        two.send(frame(ALL, B))
    one.send(frame(ALL, B, b"good"), reserved=0xFFFFFF, flags=0xFF)
    assert member.recv_frame() == frame(ALL, B, b"good")
    assert counts(net) == {
        "shorter than a header": 4,
        "without the I flag": 2,
        "of another VNI": 2,
        "empty": 2,
        "longer than the MTU": 2,
        "from strangers": 2,
    }
    assert [port["oversize"] for port in admin.show_network(net)["ports"] if port["kind"] == "vxlan"] == [2]
    for what in counts(net):
        assert len([line for line in ipnd.log if what in line]) == 1, ipnd.log


def test_what_strangers_say_is_not_learned(net: str, member: RawMember, one: Endpoint, two: Endpoint) -> None:
    admin.add_fixture(net, "vxlan", url(one, two))
    stranger = Endpoint("127.0.0.4", one.port)
    stranger.send(frame(ALL, B))
    stranger.sock.close()
    eventually(lambda: counts(net) == {"from strangers": 1})
    member.send_frame(frame(B, A))
    assert one.receive() == two.receive() == frame(B, A)


def test_a_remote_that_is_not_there_yet_hurts_nobody(net: str, member: RawMember, one: Endpoint) -> None:
    hosts = "192.0.2.1,127.0.0.3,127.0.0.2"  # no route leads to the first: not from a loopback address
    admin.add_fixture(net, "vxlan", f"vxlan://{hosts}?vni=7&port={one.port}&local={HERE}")
    for n in range(10):
        member.send_frame(frame(ALL, A, b"%d" % n))
        assert one.receive() == frame(ALL, A, b"%d" % n)
    assert counts(net) == {"not sent: Invalid argument": 10}
    assert all(port["dropped"] == 0 for port in admin.show_network(net)["ports"])
    later = Endpoint("127.0.0.3", one.port)
    later.send(frame(ALL, C, b"now"))
    assert member.recv_frame() == frame(ALL, C, b"now")
    member.send_frame(frame(C, A, b"welcome"))
    assert later.receive() == frame(C, A, b"welcome")
    later.sock.close()


# -- adding and removing ---------------------------------------------------------------------------------------------


def test_the_command_adds_lists_and_removes_a_cable(ipnd: RunningDaemon, net: str, one: Endpoint) -> None:
    ipnctl = Ipnctl(ipnd)
    ipnctl.run("cable", "add", net, url(one)).ok()
    assert [row["address"] for row in ipnctl.run("cable", "list", net, "--json").ok().json] == [url(one)]
    ipnctl.run("cable", "add", net, url(one)).failed("already")
    ipnctl.run("cable", "add", net, "vxlan://127.0.0.2").failed("?vni=N")
    ipnctl.run("cable", "remove", net, f"vxlan://?local={HERE}&remote=127.0.0.2&port={one.port}&vni=07").ok()
    assert admin.show_network(net)["fixtures"] == admin.show_network(net)["ports"] == []


def test_a_vni_belongs_to_one_cable(ipnd: RunningDaemon, net: str, one: Endpoint, two: Endpoint) -> None:
    admin.add_fixture(net, "vxlan", url(one))
    with pytest.raises(OSError, match=r"VNI 7 .* belongs to the cable") as refusal:
        admin.add_fixture(net, "vxlan", url(two))
    assert refusal.value.errno == errno.EADDRINUSE
    assert len(admin.show_network(net)["ports"]) == 1
    assert udp_sockets(ipnd) == 1
    admin.remove_fixture(net, "vxlan", url(one))
    admin.add_fixture(net, "vxlan", url(two))


@pytest.mark.parametrize("address, number, words", [
    ("vxlan://127.0.0.2?vni=7&port={port}&local=192.0.2.1", errno.EADDRNOTAVAIL, "no address of this machine"),
    ("vxlan://127.0.0.3?vni=7&port={port}&local=127.0.0.2", errno.EADDRINUSE, "has that port"),
    ("vxlan://127.0.0.3?vni=7&port={port}&local=127.0.0.3", errno.EINVAL, "end where it begins"),
    ("vxlan://127.0.0.3?vni=7", errno.EINVAL, "end where it begins"),
    ("vxlan://127.0.0.2,[::1]?vni=7&port={port}", errno.EINVAL, "end where it begins"),
    ("vxlan://[fe80::1%25nowhere]?vni=7", errno.ENODEV, "cannot be an address here"),
])
def test_a_cable_that_cannot_be_is_refused_and_leaves_nothing(
    ipnd: RunningDaemon, net: str, one: Endpoint, address: str, number: int, words: str
) -> None:
    with pytest.raises(OSError, match=words) as refusal:
        admin.add_fixture(net, "vxlan", address.format(port=one.port))
    assert refusal.value.errno == number
    assert admin.show_network(net)["ports"] == admin.show_network(net)["fixtures"] == []
    assert udp_sockets(ipnd) == 0


def test_a_name_is_looked_up_and_one_that_is_nobodys_is_tried_again(
    ipnd: RunningDaemon, net: str, member: RawMember, one: Endpoint
) -> None:
    unknown = f"vxlan://127.0.0.2,nowhere.invalid?vni=7&port={one.port}&local={HERE}"
    admin.add_fixture(net, "vxlan", unknown)
    eventually(lambda: "nowhere.invalid" in cable(net)["problem"], 60)
    assert cable(net)["state"] != "up"
    member.send_frame(frame(ALL, A))
    assert one.receive() == frame(ALL, A)
    admin.remove_fixture(net, "vxlan", unknown)
    admin.add_fixture(net, "vxlan", f"vxlan://127.0.0.2,localhost?vni=7&port={one.port}&local=127.0.0.9")
    eventually(lambda: cable(net)["state"] == "up", 60)


def test_a_persistent_network_has_its_cable_again_after_a_restart(ipnd: RunningDaemon, net: str, one: Endpoint) -> None:
    admin.add_fixture(net, "vxlan", url(one))
    ipnd.kill()
    ipnd.start()
    with joined(net) as member:
        eventually(lambda: cable(net)["state"] == "up")
        member.send_frame(frame(ALL, A))
        assert one.receive() == frame(ALL, A)


@requires_root
def test_a_user_gets_no_port_that_is_roots(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    admin.create_network(path, mode=0o777)
    low = f"vxlan://127.0.0.2?vni=7&port=53&local={HERE}"
    ran = Ipnctl(ipnd).run("cable", "add", path, low, prefix=as_user(NOBODY))
    ran.failed("not for you")


# -- the kernel's own ------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Lab, Host, RunningDaemon]]:
    """Give a daemon on a host of its own."""
    with Lab() as made:
        ground = made.bare("ground")
        daemon = RunningDaemon(short_directory, prefix=ground.prefix)
        monkeypatch.setenv("IPND_SOCKET", daemon.control)
        daemon.start()
        try:
            yield made, ground, daemon
        finally:
            daemon.close()


def kernel(lab: Lab, ground: Host, number: int) -> Host:
    """Return a host beside the daemon's whose kernel has an endpoint, at 192.0.2.(4n+2), of VNI 7: 10.7.0.n."""
    host = lab.bare(f"k{number}")
    lab.wire(ground, f"u{number}", host, "eth0")
    base = 4 * number
    ground.ip("address", "add", f"192.0.2.{base + 1}/30", "dev", f"u{number}")
    host.ip("address", "add", f"192.0.2.{base + 2}/30", "dev", "eth0")
    host.run("sh", "-euc", f"HERE=192.0.2.{base + 1}\n{RECIPES['vxlan-kernel']}")
    host.ip("address", "add", f"10.7.0.{number}/24", "dev", "vx0")
    return host


def test_hosts_on_a_network_and_behind_the_kernels_vxlan_devices_ping_each_other(
    lab: tuple[Lab, Host, RunningDaemon],
) -> None:
    made, ground, daemon = lab
    path = daemon.path("net")
    admin.create_network(path, policy="vdeswitch")
    kernels = [kernel(made, ground, number) for number in (1, 2)]
    run_recipe(RECIPES["vxlan"], daemon, NET=path, A="192.0.2.6", B="192.0.2.10")
    guest = made.host("guest", path, "10.7.0.9/24")
    assert guest.pings("10.7.0.1", count=3)
    assert guest.pings("10.7.0.2", count=3)
    assert all(host.pings("10.7.0.9", count=3) for host in kernels)
    assert not kernels[0].pings("10.7.0.2", wait=1), "what one remote sends must not go to another"
    assert guest.pings("10.7.0.1", "-s", "1472"), "a full frame does not come through in fragments"
    assert counts(path) == {}


def test_a_cable_comes_up_after_a_restart_when_its_address_does(lab: tuple[Lab, Host, RunningDaemon]) -> None:
    made, ground, daemon = lab
    made.wire(ground, "u1", made.bare("far"), "u1")
    ground.ip("address", "add", "192.0.2.1/30", "dev", "u1")
    path = daemon.path("net")
    admin.create_network(path)
    admin.add_fixture(path, "vxlan", "vxlan://192.0.2.2?vni=7&local=192.0.2.1")
    daemon.kill()
    ground.ip("address", "flush", "dev", "u1")
    daemon.start()
    eventually(lambda: "no address of this machine" in cable(path)["problem"])
    ground.ip("address", "add", "192.0.2.1/30", "dev", "u1")
    eventually(lambda: cable(path)["state"] == "up", 20)
    assert udp_sockets(daemon) == 1


@pytest.mark.parametrize("addresses, hosts", [
    (("192.0.2.1/30", "192.0.2.2/30"), ("192.0.2.1", "192.0.2.2")),
    (("fd00::1/64", "fd00::2/64"), ("[fd00::1]", "[fd00::2]")),
    ((), ("[fe80::1%25u1]", "[fe80::2%25u1]")),
], ids=["IPv4", "IPv6", "link-local"])
def test_two_daemons_join_their_networks(
    lab: tuple[Lab, Host, RunningDaemon], addresses: tuple[str, ...], hosts: tuple[str, str]
) -> None:
    made, ground, daemon = lab
    far = made.bare("far", ipv6=True)
    made.wire(ground, "u1", far, "u1")
    for host, address in zip((ground, far), addresses or ("fe80::1/64", "fe80::2/64"), strict=True):
        host.run("sysctl", "-qw", "net.ipv6.conf.u1.disable_ipv6=0", "net.ipv6.conf.u1.accept_dad=0")
        host.ip("address", "add", address, "dev", "u1")
    directory = daemon.directory / "far"
    directory.mkdir()
    other = RunningDaemon(directory, prefix=far.prefix)
    other.start()
    try:
        for here, remote in ((daemon, hosts[1]), (other, hosts[0])):
            Ipnctl(here).run("net", "create", here.path("net")).ok()
            Ipnctl(here).run("cable", "add", here.path("net"), f"vxlan://{remote}?vni=42").ok()
        with joined(daemon.path("net")) as one, RawMember(other.path("net")) as two:
            two.send_frame(frame(ALL, B, b"hello"))
            assert one.recv_frame() == frame(ALL, B, b"hello")
            one.send_frame(frame(ALL, A, b"hello yourself"))
            assert two.recv_frame() == frame(ALL, A, b"hello yourself")
    finally:
        other.close()
