"""Cables to another machine: a network namespace with programs that are none of ours, or this one through sshd."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.ipnd.cables.test_ssh import sshd
from tests.lab import Host, Lab
from tests.netns import ip, own_namespace
from tests.peers import requires
from tests.raw import RawMember
from tests.waiting import eventually

from .lab import SECONDS, Network
from .vdestream import Plug, exchange

__all__ = ["sshd"]

HERE, THERE = "192.0.2.1", "192.0.2.2"
ADDRESSES = {"HERE": HERE, "THERE": THERE}

Networks = Callable[[str], Network]
Seen = Callable[[str, str], None]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Be on a machine of its own. Before ``ipnd``, so that the daemon is there, too."""
    with own_namespace(), Lab() as lab:
        ip("link", "set", "lo", "up")
        yield lab


@pytest.fixture
def there(lab: Lab) -> Host:
    """Give the other machine."""
    host = lab.bare("there")
    ip("link", "add", "u0", "type", "veth", "peer", "name", "u0", "netns", host.namespace)
    ip("address", "add", f"{HERE}/24", "dev", "u0")
    ip("link", "set", "u0", "up")
    host.ip("address", "add", f"{THERE}/24", "dev", "u0")
    host.ip("link", "set", "u0", "up")
    return host


def test_the_kernels_vxlan_device_is_on_a_network(lab: Lab, there: Host, networks: Networks, seen: Seen) -> None:
    network = networks("net")
    network.run("vxlan", **ADDRESSES)
    network.run("vxlan-there", prefix=there.prefix, **ADDRESSES)
    there.ip("address", "add", "10.7.0.1/24", "dev", "vxlan7")
    there.ip("link", "set", "vxlan7", "up")
    host = lab.host("host", network.path, "10.7.0.2/24")
    assert host.pings("10.7.0.1", count=3)
    assert there.pings("10.7.0.2", count=3)
    seen("vxlan", "hosts on either side ping each other")


@requires("vde_plug")
def test_a_vde_plug_is_on_a_network_by_udp(lab: Lab, there: Host, networks: Networks, seen: Seen) -> None:
    network = networks("net")
    network.run("udp", **ADDRESSES)
    plug = Plug(network.start("udp-there", prefix=there.prefix, **ADDRESSES))
    eventually(lambda: ":5000 " in there.run("ss", "-Hlnu").stdout, SECONDS)
    with RawMember(network.path) as member:
        network.wait_for_ports("raw", 1)
        exchange(plug, member)
    seen("udp", "frames pass both ways")


@requires("sshd", "ssh", "ssh-keygen")
def test_two_networks_are_joined_by_ssh(sshd: int, networks: Networks, seen: Seen) -> None:
    near, far = networks("near"), networks("far")
    near.run("ssh", THERE=f"127.0.0.1:{sshd}", FAR=far.path)
    near.wait_for_ports("ssh", 1)
    with RawMember(near.path) as one, RawMember(far.path) as other:
        for network in (near, far):
            network.wait_for_ports("raw", 1)
        exchange(one, other)
    seen("ssh", "frames pass both ways")
