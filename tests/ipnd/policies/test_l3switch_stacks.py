"""Real IP stacks on an l3switch network: hosts of two subnets reach each other through it, and see it on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipn import admin
from tests.lab import Host, Lab
from tests.peers import requires
from tests.running import RunningDaemon
from tests.waiting import eventually

GATEWAYS = ("10.8.1.1/24", "10.8.2.1/24", "fd08:1::1/64", "fd08:2::1/64")


@pytest.fixture
def lab(ipnd: RunningDaemon) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def path(ipnd: RunningDaemon) -> str:
    path = ipnd.path("router")
    admin.create_network(path, policy="l3switch")
    for address in GATEWAYS:
        admin.policy_verb(path, "address.add", address=address)
    admin.policy_verb(path, "router.set", advertise=False)  # the hosts here have their addresses from us
    return path


def ipv4_host(lab: Lab, path: str, name: str, subnet: int) -> Host:
    host = lab.host(name, path, f"10.8.{subnet}.10/24")
    host.run("ip", "route", "add", "default", "via", f"10.8.{subnet}.1")
    return host


def ipv6_host(lab: Lab, path: str, name: str, subnet: int) -> Host:
    host = lab.host(name, path, f"fd08:{subnet}::10/64", ipv6=True)
    host.run("ip", "-6", "route", "add", "default", "via", f"fd08:{subnet}::1")
    return host


def show(path: str) -> Any:
    return admin.policy_verb(path, "router.show")


def test_hosts_of_two_subnets_ping_each_other_through_it(lab: Lab, path: str) -> None:
    a, b = (ipv4_host(lab, path, name, subnet) for name, subnet in (("a", 1), ("b", 2)))
    assert a.pings("10.8.2.10", "-s1472", count=20)
    assert "ttl=63" in b.run("ping", "-n", "-c1", "10.8.1.10").stdout
    rows = {row["address"]: row["mac"] for row in admin.policy_verb(path, "neigh.list")}
    assert rows == {"10.8.1.10": a.mac, "10.8.2.10": b.mac}


def test_ipv6_hosts_of_two_subnets_ping_each_other_through_it(lab: Lab, path: str) -> None:
    a, b = (ipv6_host(lab, path, name, subnet) for name, subnet in (("a", 1), ("b", 2)))
    assert a.pings("fd08:2::10", "-6", "-s1452", count=20)
    assert "ttl=63" in b.run("ping", "-6", "-n", "-c1", "fd08:1::10").stdout


def test_the_gateway_answers_pings_from_both_sides(lab: Lab, path: str) -> None:
    a = ipv4_host(lab, path, "a", 1)
    assert a.pings("10.8.1.1", count=5)
    assert a.pings("10.8.2.1", count=5)
    six = ipv6_host(lab, path, "six", 1)
    assert six.pings("fd08:1::1", "-6", count=5)
    assert six.pings("fd08:2::1", "-6", count=5)


@requires("arping")
def test_arping_finds_the_gateway_at_the_routers_mac_address(lab: Lab, path: str) -> None:
    a = ipv4_host(lab, path, "a", 1)
    said = a.run("arping", "-c2", "-w5", "-I", "eth0", "10.8.1.1").stdout
    assert show(path)["mac"].upper() in said.upper()
    duplicate = a.run("arping", "-D", "-c1", "-w2", "-I", "eth0", "10.8.1.1", check=False)
    assert duplicate.returncode == 1, "the gateway did not defend its address"


@requires("traceroute")
def test_traceroute_shows_it_as_the_hop(lab: Lab, path: str) -> None:
    a = ipv4_host(lab, path, "a", 1)
    ipv4_host(lab, path, "b", 2)
    lines = a.run("traceroute", "-n", "-q1", "-w2", "-m4", "10.8.2.10").stdout.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["10.8.1.1", "10.8.2.10"]


@requires("traceroute")
def test_an_ipv6_traceroute_shows_it_as_the_hop(lab: Lab, path: str) -> None:
    a = ipv6_host(lab, path, "a", 1)
    ipv6_host(lab, path, "b", 2)
    lines = a.run("traceroute", "-6", "-n", "-q1", "-w2", "-m4", "fd08:2::10").stdout.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["fd08:1::1", "fd08:2::10"]


def test_the_path_mtu_is_told_and_what_may_be_cut_arrives(lab: Lab, path: str) -> None:
    a = ipv4_host(lab, path, "a", 1)
    ipv4_host(lab, path, "b", 2)
    admin.policy_verb(path, "router.set", mtu=1300)
    told = a.run("ping", "-n", "-c1", "-W2", "-Mdo", "-s1400", "10.8.2.10", check=False)
    assert "mtu = 1300" in told.stdout + told.stderr
    assert a.pings("10.8.2.10", "-Mdont", "-s1400", count=3)
    assert "1300" in a.run("ip", "route", "get", "10.8.2.10").stdout


def test_the_ipv6_path_mtu_is_told_and_then_kept(lab: Lab, path: str) -> None:
    a = ipv6_host(lab, path, "a", 1)
    ipv6_host(lab, path, "b", 2)
    admin.policy_verb(path, "router.set", mtu=1300)
    a.pings("fd08:2::10", "-6", "-s1400")
    assert a.pings("fd08:2::10", "-6", "-s1400", count=3)
    assert "1300" in a.run("ip", "-6", "route", "get", "fd08:2::10").stdout


def test_what_cannot_be_reached_is_said_to_be_unreachable(lab: Lab, path: str) -> None:
    a = ipv4_host(lab, path, "a", 1)
    assert "Destination Net Unreachable" in a.run("ping", "-n", "-c1", "-W2", "192.0.2.1", check=False).stdout
    assert "Destination Host Unreachable" in a.run("ping", "-n", "-c1", "-W8", "10.8.2.99", check=False).stdout
    six = ipv6_host(lab, path, "six", 1)
    assert "No route" in six.run("ping", "-6", "-n", "-c1", "-W2", "2001:db8::1", check=False).stdout
    said = six.run("ping", "-6", "-n", "-c1", "-W8", "fd08:2::99", check=False).stdout
    assert "Address unreachable" in said


def test_an_ipv6_host_finds_address_and_router_by_itself(lab: Lab, path: str) -> None:
    for address in ("fd08:2::1", "10.8.2.1", "10.8.1.1"):
        admin.policy_verb(path, "address.remove", address=address)
    a = lab.host("a", path, ipv6=True)
    admin.policy_verb(path, "router.set", advertise=True)
    eventually(
        lambda: "fd08:1::" in a.run("ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "global").stdout,
        message="no address by router advertisement",
    )
    assert show(path)["link_local"] in a.run("ip", "-6", "route", "show", "default").stdout
    assert a.pings("fd08:1::1", "-6")


def test_it_routes_between_vlans(lab: Lab, ipnd: RunningDaemon) -> None:
    path = ipnd.path("vlans")
    admin.create_network(path, policy="l3switch", mtu=1518)
    a, b = (ipv4_host(lab, path, name, subnet) for name, subnet in (("a", 1), ("b", 2)))
    for host, vlan in ((a, 10), (b, 20)):
        admin.policy_verb(path, "port.set", port=host.port, pvid=vlan)
        admin.policy_verb(path, "address.add", address=f"10.8.{vlan // 10}.1/24", vlan=vlan)
    assert a.pings("10.8.2.10", "-s1472", count=5)
    assert admin.policy_verb(path, "route.list")[0] == {
        "prefix": "10.8.1.0/24", "via": None, "kind": "connected", "vlan": 10,
    }  # fmt: skip


def test_a_host_that_claims_the_gateways_address_reaches_nobody_with_it(
    lab: Lab, path: str, ipnd: RunningDaemon
) -> None:
    a = ipv4_host(lab, path, "a", 1)
    assert a.pings("10.8.1.1")
    thief = lab.host("thief", path, "10.8.1.66/24")
    thief.run("ip", "address", "add", "10.8.1.1/32", "dev", "eth0")
    thief.pings("10.8.1.10", "-I10.8.1.1", wait=1)
    assert a.run("ip", "neigh", "show", "10.8.1.1").stdout.split()[4] == show(path)["mac"]
    eventually(
        lambda: admin.show_network(path)["drops"].get("arp claims the gateway's address", 0) > 0,
        message="the claim was not counted",
    )
