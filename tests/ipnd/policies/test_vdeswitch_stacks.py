"""Real IP stacks on a vdeswitch network: they reach each other, only each other, and VLANs and isolation hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipn import admin
from tests.lab import Host, Lab
from tests.running import RunningDaemon


@pytest.fixture
def lab(ipnd: RunningDaemon) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def path(ipnd: RunningDaemon) -> str:
    path = ipnd.path("switch")
    admin.create_network(path, policy="vdeswitch", mtu=1518)
    return path


def settle(*hosts: Host) -> None:
    """Let each of the hosts be known to the others and to the switch."""
    for host in hosts:
        for other in hosts:
            if other is not host:
                assert host.pings(address_of(other))


def address_of(host: Host) -> str:
    shown = host.run("ip", "-4", "-o", "address", "show", "dev", "eth0").stdout
    return shown.split()[3].partition("/")[0]


def test_two_hosts_ping_and_a_third_sees_nothing_of_it(lab: Lab, path: str) -> None:
    a, b, c = (lab.host(name, path, f"10.9.0.{n}/24") for n, name in enumerate("abc", 1))
    settle(a, b)
    before = c.row()["tx_frames"]
    assert a.pings("10.9.0.2", "-s1472", count=20)
    assert c.row()["tx_frames"] - before <= 2, "unicast between two known hosts reached a third"
    assert b.row()["tx_frames"] >= 20


def test_the_switch_knows_which_host_is_where(lab: Lab, path: str) -> None:
    a = lab.host("a", path, "10.9.0.1/24", mac="02:00:00:00:00:0a")
    b = lab.host("b", path, "10.9.0.2/24", mac="02:00:00:00:00:0b")
    settle(a, b)
    for host in (a, b):
        assert [row["port"] for row in admin.policy_verb(path, "fdb.find", mac=host.mac)] == [host.port]


def test_a_vlan_interface_on_a_trunk_talks_with_the_access_ports_of_its_vlan(lab: Lab, path: str) -> None:
    trunk = lab.host("trunk", path, vlans=[10, 20])
    ten = lab.host("ten", path, "10.9.10.1/24")
    twenty = lab.host("twenty", path, "10.9.20.1/24")
    admin.policy_verb(path, "port.set", port=trunk.port, tagged="10,20")
    admin.policy_verb(path, "port.set", port=ten.port, pvid=10)
    admin.policy_verb(path, "port.set", port=twenty.port, pvid=20)
    for vid in (10, 20):
        trunk.run("ip", "address", "add", f"10.9.{vid}.9/24", "dev", f"eth0.{vid}")
    assert ten.pings("10.9.10.9", "-s1472", count=3)
    assert trunk.pings("10.9.20.1")
    twenty.run("ip", "address", "add", "10.9.10.2/24", "dev", "eth0")
    assert not ten.pings("10.9.10.2", wait=1), "a host of VLAN 20 answered one of VLAN 10"


def test_isolated_hosts_reach_the_server_and_not_each_other(lab: Lab, path: str) -> None:
    server, a, b = (lab.host(name, path, f"10.9.0.{n}/24") for n, name in enumerate(["server", "a", "b"], 1))
    for host in (a, b):
        admin.policy_verb(path, "port.set", port=host.port, isolate=True)
    assert a.pings("10.9.0.1")
    assert b.pings("10.9.0.1")
    assert not a.pings("10.9.0.3", wait=1)
    admin.policy_verb(path, "port.set", port=b.port, isolate=False)
    assert a.pings("10.9.0.3")
    assert server.pings("10.9.0.3")


def test_a_cable_that_closes_a_loop_is_cut_and_the_hosts_go_on(lab: Lab, path: str, ipnd: RunningDaemon) -> None:
    a, b = (lab.host(name, path, f"10.9.0.{n}/24") for n, name in enumerate("ab", 1))
    loop = lab.host("loop", path, second_tap=True)
    loop.run("ip", "link", "add", "br0", "type", "bridge")
    for device in ("eth0", "eth1"):
        loop.run("ip", "link", "set", device, "master", "br0")
    loop.run("ip", "link", "set", "br0", "up")
    a.run("ping", "-c3", "-i0.2", "-W1", "10.9.0.2", check=False)
    ipnd.wait_for_log("is blocked for 30 s")
    blocked = [row["port"] for row in admin.policy_verb(path, "port.show") if row["blocked"]]
    assert len(blocked) == 1
    assert blocked[0] not in (a.port, b.port)
    assert a.pings("10.9.0.2", count=3)


def test_what_is_set_up_outlives_the_daemon(path: str, ipnd: RunningDaemon) -> None:
    admin.policy_verb(path, "port.set", port=3, tagged="10,20", isolate=True)
    admin.policy_verb(path, "fdb.add", mac="02:00:00:00:00:0a", port=3, vlan=10)
    admin.policy_verb(path, "switch.set", ageing=60)
    kept = [admin.policy_verb(path, verb) for verb in ("port.show", "fdb.show", "switch.show")]
    ipnd.kill()
    ipnd.restart()
    assert [admin.policy_verb(path, verb) for verb in ("port.show", "fdb.show", "switch.show")] == kept
