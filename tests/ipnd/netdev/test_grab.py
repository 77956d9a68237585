"""Grabbed interfaces: a wire of the host on a network.

``house`` is the machine whose interface ``eth1`` is grabbed; ``lan`` is what hangs on the other end of its wire. The
wire is a veth pair with all its offloads: the kernel passes frames of 64 KiB and leaves checksums unfinished.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from ipn import admin
from tests.ipnd.netdev.transfer import transfers
from tests.lab import Host, Lab
from tests.peers import requires, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

ETHERTYPE = "88b5"
"""For local experiments (IEEE 802): no stack of the kernel answers."""


@attrs.frozen
class World:
    """A network, the house with the grabbed ``eth1``, and the LAN on its other end."""

    ipnd: RunningDaemon
    lab: Lab
    path: str
    house: Host
    lan: Host

    def row(self) -> dict[str, Any]:
        return next((p for p in admin.show_network(self.path)["ports"] if p["kind"] == "grab"), {})

    def grab(self) -> None:
        self.house.ipnctl("net", "attach-grab", self.path, "eth1")


@pytest.fixture
def lab(ipnd: RunningDaemon) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def wired(ipnd: RunningDaemon, lab: Lab, policy: str = "vdeswitch", **options: Any) -> World:
    path = ipnd.path("net")
    admin.create_network(path, policy, **options)
    house, lan = lab.bare("house"), lab.bare("lan")
    lab.wire(house, "eth1", lan, "eth0")
    lan.ip("address", "add", "192.168.7.1/24", "dev", "eth0")
    return World(ipnd, lab, path, house, lan)


@pytest.fixture
def world(ipnd: RunningDaemon, lab: Lab) -> World:
    world = wired(ipnd, lab)
    world.grab()
    return world


def send_frame(host: Host, frame: str, interface: str = "eth0") -> None:
    """Send one frame, given in hexadecimal, out of an interface."""
    host.run(
        sys.executable, "-c",
        "import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((sys.argv[1], 0));"
        "s.send(bytes.fromhex(sys.argv[2]))",
        interface, frame,
    )  # fmt: skip


def frames(member: RawMember, seconds: float = 0.5) -> list[bytes]:
    """Return the frames of these tests' own type that come within so long after the last."""
    found = []
    deadline = time.monotonic() + seconds
    member.settimeout(seconds)
    try:
        while time.monotonic() < deadline and (frame := member.recv_frame()) is not None:
            if bytes.fromhex(ETHERTYPE) in frame[12:18]:
                found.append(frame)
    except TimeoutError:
        pass
    return found


# -- a LAN for guests --------------------------------------------------------------------------------------------------


def test_guests_reach_the_lan_and_the_lan_reaches_them(world: World) -> None:
    guest = world.lab.host("guest", world.path, "192.168.7.2/24")
    assert guest.pings("192.168.7.1", count=2)
    assert world.lan.pings("192.168.7.2", "-M", "do", "-s", "1472")


def test_tcp_between_guest_and_lan_is_cut_and_checksummed(world: World) -> None:
    guest = world.lab.host("guest", world.path, "192.168.7.2/24")
    assert transfers(guest, world.lan, "192.168.7.2")
    assert transfers(world.lan, guest, "192.168.7.1")
    assert world.row()["oversize"] == 0


def test_tcp_between_a_tap_and_the_lan_crosses_whole(world: World) -> None:
    host = world.lab.attached("host", world.path, "192.168.7.2/24")
    assert transfers(host, world.lan, "192.168.7.2")
    assert transfers(world.lan, host, "192.168.7.1")
    row = world.row()
    assert row["rx_bytes"] / row["rx_frames"] > 2000
    assert row["oversize"] == row["dropped"] == 0


@requires("dnsmasq", "udhcpc")
def test_a_guest_gets_its_address_from_the_lan_by_dhcp(world: World) -> None:
    guest = world.lab.host("guest", world.path)
    leases = world.ipnd.path("leases")
    server = world.lan.start(
        "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--log-dhcp", "--user=root",
        "--dhcp-range=192.168.7.100,192.168.7.110", f"--dhcp-leasefile={leases}", "--pid-file", stderr=subprocess.PIPE,
    )  # fmt: skip
    assert server.stderr is not None
    try:
        while "DHCP, IP range" not in (line := server.stderr.readline()):
            assert line, "dnsmasq never listened"
        done = guest.run("udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-s", "/bin/true", timeout=30)
        assert "lease of 192.168.7.1" in done.stdout + done.stderr
    finally:
        server.kill()
        server.communicate()


def test_the_hosts_own_stack_goes_on_using_the_interface(world: World) -> None:
    world.house.ip("address", "add", "192.168.7.3/24", "dev", "eth1")
    assert world.lan.pings("192.168.7.3", count=2)
    assert world.house.pings("192.168.7.1", count=2)


def test_a_frame_goes_out_once_and_never_comes_back(ipnd: RunningDaemon, lab: Lab) -> None:
    world = wired(ipnd, lab, "broadcast")
    world.grab()
    with RawMember(world.path) as one, RawMember(world.path) as other:
        eventually(lambda: admin.show_network(world.path)["readers"] == 3)
        one.send_frame(bytes.fromhex("ff" * 6 + "020000000001" + ETHERTYPE) + bytes(50))
        assert len(frames(other)) == 1
        assert frames(one) == []
    assert world.row()["tx_frames"] >= 1


# -- VLAN tags ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["broadcast", "vdeswitch"])
@pytest.mark.parametrize("tag", ["8100600a", "88a80014"])
def test_vlan_tags_come_back_into_the_frame(ipnd: RunningDaemon, lab: Lab, policy: str, tag: str) -> None:
    world = wired(ipnd, lab, policy)
    world.grab()
    longest = 1500 if tag.startswith("8100") else 1496  # what the kernel lets a packet socket send
    frame = "ff" * 6 + "020000000001" + tag + ETHERTYPE + "00" * longest
    with RawMember(world.path) as member:
        eventually(lambda: admin.show_network(world.path)["readers"] == 2)
        send_frame(world.lan, frame)
        assert [got.hex() for got in frames(member)] == [frame]


@requires("tcpdump")
def test_vlan_tags_of_guests_go_out_on_the_wire(ipnd: RunningDaemon, lab: Lab) -> None:
    world = wired(ipnd, lab, "broadcast", mtu=1518)
    world.grab()
    heard = world.lan.start(
        "tcpdump", "-e", "-n", "-c1", "-l", "-i", "eth0", "vlan", "10", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert heard.stderr is not None
    try:
        while "listening" not in (line := heard.stderr.readline()):
            assert line, "tcpdump never listened"
        with RawMember(world.path) as member:
            member.send_frame(bytes.fromhex("ff" * 6 + "020000000001" + "8100000a" + ETHERTYPE) + bytes(1500))
            assert "vlan 10" in heard.communicate(timeout=10)[0]
    finally:
        heard.kill()
        heard.wait()


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_grabbed_is_refused_with_its_reason(world: World) -> None:
    for name, words in (
        ("lo", "is the loopback interface"),
        ("none0", "there is no interface none0"),
        ("eth1", "is grabbed already"),
        ("../eth1", "is no interface's name"),
    ):
        done = world.house.ipnctl("net", "attach-grab", world.path, name, check=False)
        assert done.returncode == 1
        assert words in done.stderr
    assert len(admin.show_network(world.path)["ports"]) == 1


def test_another_daemons_network_cannot_grab_it_either(world: World, short_directory: Any) -> None:
    (short_directory / "other").mkdir()
    other = RunningDaemon(short_directory / "other")
    other.start()
    try:
        command = ("net", "create", other.path("net"))
        env = ("env", f"IPND_SOCKET={other.control}", sys.executable, "-m", "ipnctl")
        world.house.run(*env, *command)
        done = world.house.run(*env, "net", "attach-grab", other.path("net"), "eth1", check=False)
        assert done.returncode == 1
        assert "is grabbed already" in done.stderr
        admin.detach(world.path, "eth1")
        world.house.run(*env, "net", "attach-grab", other.path("net"), "eth1")
    finally:
        other.close()


# -- what happens to the interface -------------------------------------------------------------------------------------


def promiscuity(host: Host) -> int:
    words = host.ip("-d", "link", "show", "eth1").split()
    return int(words[words.index("promiscuity") + 1])


def test_it_is_promiscuous_while_it_is_grabbed(world: World) -> None:
    assert promiscuity(world.house) == 1
    admin.detach(world.path, "eth1")
    assert promiscuity(world.house) == 0


def test_down_and_up_again_is_shown_and_recovered_from(world: World) -> None:
    guest = world.lab.host("guest", world.path, "192.168.7.2/24")
    world.house.ip("link", "set", "eth1", "down")
    eventually(lambda: world.row()["interface"]["up"] is False)
    assert not guest.pings("192.168.7.1", wait=1)
    world.house.ip("link", "set", "eth1", "up")
    eventually(lambda: world.row()["interface"]["running"])
    assert guest.pings("192.168.7.1", count=3)
    assert promiscuity(world.house) == 1


@pytest.mark.parametrize("direction", ["shut_rd", "shut_wr"])
def test_one_that_only_sends_or_only_receives_stays_when_it_goes_down(
    ipnd: RunningDaemon, lab: Lab, direction: str
) -> None:
    world = wired(ipnd, lab)
    script = (
        "import ipn, sys; s = ipn.bind(sys.argv[1]);"
        "s.shutdown(ipn.SHUT_RD if sys.argv[2] == 'shut_rd' else ipn.SHUT_WR);"
        "s.attach_grab('eth1', lifetime='network')"
    )
    world.house.run(sys.executable, "-c", script, world.path, direction)
    world.house.ip("link", "set", "eth1", "down")
    eventually(lambda: world.row()["interface"]["up"] is False)
    world.house.ip("link", "set", "eth1", "up")
    eventually(lambda: world.row()["interface"]["running"])
    if direction == "shut_wr":
        with RawMember(world.path) as member:
            heard = world.row()["tx_frames"]
            member.send_frame(bytes.fromhex("ff" * 6 + "020000000001" + ETHERTYPE) + bytes(50))
            eventually(lambda: world.row()["tx_frames"] > heard)


def test_another_name_is_followed(world: World) -> None:
    world.house.ip("link", "set", "eth1", "down")
    world.house.ip("link", "set", "eth1", "name", "lan0", "up")
    eventually(lambda: world.row()["interface"]["name"] == "lan0" and world.row()["interface"]["up"])
    guest = world.lab.host("guest", world.path, "192.168.7.2/24")
    assert guest.pings("192.168.7.1", count=2)
    admin.detach(world.path, "lan0")


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_an_interface_that_is_gone_leaves_with_a_line_in_the_log(world: World, how: str) -> None:
    if how == "deleted":
        world.house.ip("link", "del", "eth1")
    else:
        world.house.ip("link", "set", "eth1", "netns", world.lab.bare("elsewhere").namespace)
    eventually(lambda: not world.row())
    world.ipnd.wait_for_log("the interface eth1 on port 0 is gone")
    assert admin.show_network(world.path)["members"] == 0


def test_frames_longer_than_the_networks_are_left_out_and_counted(world: World) -> None:
    for host, interface in ((world.house, "eth1"), (world.lan, "eth0")):
        host.ip("link", "set", interface, "mtu", "4000")
    guest = world.lab.host("guest", world.path, "192.168.7.2/24")
    assert guest.pings("192.168.7.1")
    assert not world.lan.pings("192.168.7.2", "-s", "3000", wait=1)
    assert world.row()["oversize"] > 0
    assert guest.pings("192.168.7.1")


@requires_root
def test_a_persistent_network_grabs_it_again_after_a_restart(ipnd: RunningDaemon, lab: Lab) -> None:
    world = wired(ipnd, lab)
    ipnd.end()
    ipnd.prefix = world.house.prefix
    ipnd.start()
    world.grab()
    ipnd.kill()
    ipnd.start()
    assert eventually(world.row)["interface"]["name"] == "eth1"
    guest = world.lab.host("guest", world.path, "192.168.7.2/24")
    assert guest.pings("192.168.7.1", count=2)
