"""TAP interfaces on a network: the host's own stack is a member."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipn import admin
from tests.ipnd.netdev.transfer import transfers
from tests.lab import Host, Lab
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

TCP_SECONDS = "1"


@pytest.fixture
def lab(ipnd: RunningDaemon) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def network(ipnd: RunningDaemon, policy: str = "vdeswitch", **options: Any) -> str:
    path = ipnd.path("net")
    admin.create_network(path, policy, **options)
    return path


def interface_of(path: str, number: int = 0) -> dict[str, Any]:
    shown: dict[str, Any] = next(p for p in admin.show_network(path)["ports"] if p["port"] == number)["interface"]
    return shown


def throughput(server: Host, client: Host, address: str, *options: str) -> dict[str, Any]:
    """Send by iperf3 from ``client`` to ``server``; return what was received, in bits per second, and more."""
    listening = server.start("iperf3", "-s", "-1", "--forceflush", stdout=subprocess.PIPE)
    assert listening.stdout is not None
    try:
        while "listening" not in (line := listening.stdout.readline()):
            assert line, "iperf3 never listened"
        done = client.run("iperf3", "-J", "-c", address, *(options or ("-t", TCP_SECONDS)), timeout=30)
        end: dict[str, Any] = json.loads(done.stdout)["end"]
        return end
    finally:
        listening.kill()
        listening.stdout.close()
        listening.wait()


# -- being a member ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["broadcast", "vdeswitch"])
def test_hosts_reach_each_other_through_their_taps(ipnd: RunningDaemon, lab: Lab, policy: str) -> None:
    path = network(ipnd, policy)
    one = lab.attached("one", path, "10.0.0.1/24")
    lab.attached("two", path, "10.0.0.2/24")
    lab.host("guest", path, "10.0.0.3/24")
    assert one.pings("10.0.0.2", count=3)
    assert one.pings("10.0.0.3", count=3)


def test_ipv6_works_as_well(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    one = lab.attached("one", path, "fd00::1/64", ipv6=True)
    lab.attached("two", path, "fd00::2/64", ipv6=True)
    assert one.pings("fd00::2", count=2)


def test_full_size_packets_pass_unfragmented(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd, "broadcast")
    one = lab.attached("one", path, "10.0.0.1/24")
    lab.attached("two", path, "10.0.0.2/24")
    lab.host("guest", path, "10.0.0.3/24")
    for address in ("10.0.0.2", "10.0.0.3"):
        assert one.pings(address, "-M", "do", "-s", "1472")
        assert not one.pings(address, "-M", "do", "-s", "1473")


def test_a_tap_has_the_mtu_of_a_jumbo_network(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd, mtu=9014)
    one = lab.attached("one", path, "10.0.0.1/24")
    lab.attached("two", path, "10.0.0.2/24")
    lab.host("guest", path, "10.0.0.3/24", mtu=9000)
    for address in ("10.0.0.2", "10.0.0.3"):
        assert one.pings(address, "-M", "do", "-s", str(9000 - 28))
    assert interface_of(path)["mtu"] == 9000


@pytest.mark.parametrize("policy", ["broadcast", "vdeswitch"])
def test_a_full_size_frame_with_a_vlan_tag_passes(ipnd: RunningDaemon, lab: Lab, policy: str) -> None:
    path = network(ipnd, policy)
    one = lab.attached("one", path, "10.0.0.1/24")
    two = lab.attached("two", path, "10.0.0.2/24")
    script = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300); s.bind(('eth0', 3));"
        "s.settimeout(5); print('ready', flush=True)\n"
        "while True:\n"
        "    frame = s.recv(2000)\n"
        "    if frame[12:14] == b'\\x88\\xb5' or frame[16:18] == b'\\x88\\xb5': print(len(frame)); break"
    )
    # Sent tagged: the kernel's driver takes the tag out for who listens with a packet socket, so it arrives 4 shorter.
    listener = two.start("python3", "-c", script, stdout=subprocess.PIPE)
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    frame = "ff" * 6 + "020000000001" + "8100000a" + "88b5" + "00" * 1500
    send = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0));"
        f"s.send(bytes.fromhex('{frame}'))"
    )
    one.run("python3", "-c", send)
    assert listener.communicate(timeout=10)[0].strip() in ("1514", "1518")


# -- what crosses whole, and what is finished --------------------------------------------------------------------------


@requires("iperf3")
def test_tcp_crosses_whole_between_taps(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    one = lab.attached("one", path, "10.0.0.1/24")
    two = lab.attached("two", path, "10.0.0.2/24")
    throughput(two, one, "10.0.0.2")
    sent = one.row()
    assert sent["rx_bytes"] / sent["rx_frames"] > 5000


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("policy", ["broadcast", "vdeswitch"])
def test_tcp_reaches_members_that_take_finished_frames_only(
    ipnd: RunningDaemon, lab: Lab, policy: str, lossless: bool
) -> None:
    path = network(ipnd, policy, lossless=lossless, pool=1024)
    host = lab.attached("host", path, "10.0.0.1/24")
    guest = lab.host("guest", path, "10.0.0.2/24")
    with RawMember(path) as listener:
        listener.settimeout(None)
        drain = threading.Thread(target=_listen, args=(listener,), daemon=True)
        drain.start()
        assert transfers(guest, host, "10.0.0.2")
        assert transfers(host, guest, "10.0.0.1")
        listener.sock.shutdown(socket.SHUT_RDWR)
        drain.join()
    assert guest.row()["oversize"] == 0


@requires("iperf3")
def test_udp_crosses_both_ways(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    host = lab.attached("host", path, "10.0.0.1/24")
    guest = lab.host("guest", path, "10.0.0.2/24")
    for server, client, address in ((guest, host, "10.0.0.2"), (host, guest, "10.0.0.1")):
        done = throughput(server, client, address, "-u", "-b", "5M", "-t", TCP_SECONDS)
        assert done["sum"]["packets"] > 100
        assert done["sum"]["lost_percent"] < 50


def _listen(listener: RawMember) -> None:
    """Take what comes, and check that nothing unfinished does: a frame longer than the MTU."""
    while (frame := listener.recv_frame()) is not None:
        assert len(frame) <= 1514


def test_tcp_crosses_a_router(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd, "l3switch")
    for address in ("10.1.0.254/24", "10.2.0.254/24"):
        admin.policy_verb(path, "address.add", address=address)
    one = lab.attached("one", path, "10.1.0.1/24")
    two = lab.attached("two", path, "10.2.0.1/24")
    one.ip("route", "add", "default", "via", "10.1.0.254")
    two.ip("route", "add", "default", "via", "10.2.0.254")
    assert one.pings("10.2.0.1", count=2)
    assert transfers(two, one, "10.2.0.1")


# -- how it is, and how long it stays ----------------------------------------------------------------------------------


def test_net_show_follows_the_interface(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    host = lab.attached("one", path, "10.0.0.1/24", "--mac", "02:00:00:00:00:07")
    assert interface_of(path) | {"index": 0} == {
        "name": "eth0",
        "index": 0,
        "up": True,
        "running": True,
        "mtu": 1500,
        "mac": "02:00:00:00:00:07",
        "lifetime": "network",
    }
    host.ip("link", "set", "eth0", "down")
    eventually(lambda: interface_of(path)["up"] is False)
    host.ip("link", "set", "eth0", "name", "lan7")
    eventually(lambda: interface_of(path)["name"] == "lan7")
    host.ip("link", "set", "lan7", "up", "mtu", "1400", "address", "02:00:00:00:00:08")
    eventually(lambda: interface_of(path)["up"] and interface_of(path)["mtu"] == 1400)
    assert interface_of(path)["mac"] == "02:00:00:00:00:08"


def test_a_tap_that_is_moved_to_another_namespace_goes_on(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    here = lab.attached("here", path, "10.0.0.1/24")
    there = lab.bare("there")
    lab.attached("two", path, "10.0.0.2/24")
    here.ip("link", "set", "eth0", "netns", there.namespace)
    eventually(lambda: interface_of(path)["up"] is None)
    there.ip("address", "add", "10.0.0.3/24", "dev", "eth0")
    there.ip("link", "set", "eth0", "up")
    assert there.pings("10.0.0.2")
    there.ip("link", "del", "eth0")
    eventually(lambda: len(admin.show_network(path)["ports"]) == 1)


def test_a_tap_that_is_deleted_leaves_with_a_line_in_the_log(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    host = lab.attached("one", path, "10.0.0.1/24")
    host.ip("link", "del", "eth0")
    eventually(lambda: not admin.show_network(path)["ports"])
    ipnd.wait_for_log("the interface eth0 on port 0 is gone")


def test_an_interface_that_is_down_loses_what_is_meant_for_it_and_recovers(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd, "broadcast")
    host = lab.attached("one", path, "10.0.0.1/24")
    guest = lab.host("guest", path, "10.0.0.2/24")
    host.ip("link", "set", "eth0", "down")
    assert not guest.pings("10.0.0.1", wait=1)
    assert host.row()["dropped"] > 0
    host.ip("link", "set", "eth0", "up")
    assert guest.pings("10.0.0.1", count=2)


def test_detaching_ends_a_tap(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    host = lab.attached("one", path, "10.0.0.1/24")
    admin.detach(path, "eth0")
    assert not admin.show_network(path)["ports"]
    assert "eth0" not in host.ip("link")


def test_interfaces_that_are_called_the_same_are_told_apart_by_their_port(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    one = lab.attached("one", path, "10.0.0.1/24")
    two = lab.attached("two", path, "10.0.0.2/24")
    done = one.ipnctl("net", "detach", path, "eth0", check=False)
    assert done.returncode == 1
    assert "on the ports 0, 1" in done.stderr
    one.ipnctl("net", "detach", path, "eth0", "--port", "1")
    assert "eth0" not in two.ip("link")
    one.ipnctl("net", "detach", path, "eth0")
    assert "eth0" not in one.ip("link")


def test_a_whole_group_shares_a_tap_by_the_mode_of_the_socket(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd, mode=0o770, gid=4242)
    host = lab.attached("host", path, "10.0.0.1/24")
    ping = (
        "import ipn, sys; s = ipn.connect(sys.argv[1]); s.settimeout(5);"
        "s.send(bytes.fromhex('ffffffffffff020000000042' '0806' '0001080006040001' '020000000042' '0a000002'"
        " '000000000000' '0a000001')); print(s.recv().hex())"
    )
    environment = {**ipnd.env, "PYTHONPATH": str(Path(__file__).parents[3])}
    for groups, answered in (((4242,), True), ((), False)):
        command = [*as_user(NOBODY, *groups), sys.executable, "-c", ping, path]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        # An answer of ARP: the host's stack says where 10.0.0.1 is.
        assert ("08060001080006040002" in done.stdout) is answered, done
        assert answered or "PermissionError" in done.stderr
    assert host.row()["dropped"] == 0


def test_the_end_of_the_network_ends_its_taps_persistent_ones_too(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    host = lab.attached("one", path, "10.0.0.1/24", "--persist")
    admin.delete_network(path)
    assert "eth0" not in host.ip("link")


# -- persistence -------------------------------------------------------------------------------------------------------


@pytest.fixture
def housed(lab: Lab, ipnd: RunningDaemon) -> Iterator[tuple[RunningDaemon, Host]]:
    """Give a daemon that runs in a namespace of its own, and that namespace: restarts find its interfaces there."""
    house = lab.bare("house")
    ipnd.end()
    ipnd.prefix = house.prefix
    ipnd.start()
    yield ipnd, house
    ipnd.end()


@requires_root
@pytest.mark.parametrize("ending", ["SIGTERM", "SIGKILL"])
def test_a_persistent_tap_survives_the_daemon_with_its_addresses(
    housed: tuple[RunningDaemon, Host], lab: Lab, ending: str
) -> None:
    ipnd, house = housed
    path = network(ipnd)
    house.ipnctl("net", "attach-tap", path, "--name", "keep0", "--persist", "--up", "--address", "10.0.0.1/24")
    house.ipnctl("net", "attach-tap", path, "--name", "goes0")
    before = interface_of(path)
    if ending == "SIGKILL":
        ipnd.kill()
    else:
        ipnd.end()
    assert "10.0.0.1/24" in house.ip("address", "show", "keep0")
    eventually(lambda: "goes0" not in house.ip("link"))
    ipnd.start()
    after = eventually(lambda: interface_of(path))
    assert {**after, "running": True} == {**before, "running": True}
    guest = lab.host("guest", path, "10.0.0.2/24")
    assert guest.pings("10.0.0.1", count=2)
    assert [port["interface"]["name"] for port in admin.show_network(path)["ports"] if port["kind"] == "tap"] == [
        "keep0"
    ]


@requires_root
def test_a_persistent_tap_is_made_again_after_a_restart_of_the_machine(housed: tuple[RunningDaemon, Host]) -> None:
    ipnd, house = housed
    path = network(ipnd)
    house.ipnctl("net", "attach-tap", path, "--name", "keep0", "--persist", "--up", "--mac", "02:00:00:00:00:09")
    eventually(lambda: interface_of(path)["up"])
    ipnd.end()
    house.ip("link", "del", "keep0")
    ipnd.start()
    again = interface_of(path)
    assert (again["name"], again["mac"], again["up"]) == ("keep0", "02:00:00:00:00:09", True)


@requires_root
def test_what_cannot_be_had_again_is_said_and_kept(housed: tuple[RunningDaemon, Host]) -> None:
    ipnd, house = housed
    path = network(ipnd)
    house.ipnctl("net", "attach-tap", path, "--name", "keep0", "--persist")
    ipnd.end()
    house.ip("link", "del", "keep0")
    house.ip("link", "add", "keep0", "type", "bridge")
    start = len(ipnd.log)
    ipnd.start()
    ipnd.wait_for_log("the interface keep0 of", start=start)
    assert admin.show_network(path)["missing"] == ["keep0"]
    ipnd.end()
    house.ip("link", "del", "keep0")
    ipnd.start()
    assert admin.show_network(path)["missing"] == []
    assert interface_of(path)["name"] == "keep0"


# -- stress ------------------------------------------------------------------------------------------------------------


@requires("iperf3")
def test_a_daemon_killed_in_full_traffic_leaves_no_interface_behind(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd)
    one = lab.attached("one", path, "10.0.0.1/24")
    two = lab.attached("two", path, "10.0.0.2/24")
    server = two.start("iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    client = one.start("iperf3", "-c", "10.0.0.2", "-t", "30", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: one.row()["rx_bytes"] > 1_000_000, 20)
        ipnd.kill()
        eventually(lambda: "eth0" not in one.ip("link"))
    finally:
        for process in (client, server):
            process.kill()
            process.wait()


def test_sixty_four_taps_on_one_network(ipnd: RunningDaemon, lab: Lab) -> None:
    path = network(ipnd, ports=128)
    house = lab.bare("house")
    script = (
        "from ipn import admin; import sys\n"
        "for i in range(64): admin.attach_tap(sys.argv[1], up=True, addresses=[f'10.{i}.0.1/24'])"
    )
    house.run(sys.executable, "-c", script, path, timeout=60)
    names = {port["interface"]["name"] for port in admin.show_network(path)["ports"]}
    assert names == {f"ipn{number}" for number in range(64)}
