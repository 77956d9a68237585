from __future__ import annotations

from ipaddress import ip_address, ip_interface

from ipnd.policies.routing.interfaces import Gateway, Interfaces, mac_for


def made(*addresses: tuple[int, str]) -> Interfaces:
    interfaces = Interfaces()
    interfaces.replace(Gateway(vlan, ip_interface(address)) for vlan, address in addresses)
    return interfaces


def packed(address: str) -> bytes:
    return ip_address(address).packed


def test_the_mac_address_follows_from_the_first_address_and_stays() -> None:
    interfaces = made((0, "10.0.0.1/24"), (0, "10.0.1.1/24"))
    assert interfaces.mac == mac_for(ip_interface("10.0.0.1/24")) != mac_for(ip_interface("10.0.1.1/24"))
    assert interfaces.mac[0] & 3 == 2, "locally administered, and one host's"
    interfaces.replace(interfaces.gateways[1:])
    assert interfaces.mac == mac_for(ip_interface("10.0.0.1/24"))


def test_addresses_are_the_routers_only_in_their_vlan() -> None:
    interfaces = made((1, "10.0.1.1/24"), (2, "fd00::1/64"))
    assert interfaces.is_own(1, packed("10.0.1.1"))
    assert not interfaces.is_own(2, packed("10.0.1.1"))
    assert interfaces.is_own(2, interfaces.link_local)
    assert not interfaces.is_own(1, interfaces.link_local)
    assert [interfaces.serves(vlan) for vlan in (0, 1, 2)] == [False, True, True]


def test_it_speaks_from_the_address_in_the_others_subnet() -> None:
    interfaces = made((1, "10.0.1.1/24"), (1, "10.0.2.1/24"), (1, "fd00::1/64"))
    assert interfaces.source_for(1, packed("10.0.2.9")) == packed("10.0.2.1")
    assert interfaces.source_for(1, packed("192.0.2.1")) == packed("10.0.1.1")
    assert interfaces.source_for(1, packed("fd00::9")) == packed("fd00::1")
    assert interfaces.source_for(1, packed("fe80::9")) == interfaces.link_local
    assert interfaces.source_for(2, packed("10.0.2.9")) is None


def test_a_neighbour_is_in_a_subnet_or_on_the_link() -> None:
    interfaces = made((1, "10.0.1.1/24"), (2, "fd00::1/64"))
    assert interfaces.near(1, packed("10.0.1.200"))
    assert not interfaces.near(1, packed("10.0.2.1"))
    assert not interfaces.near(1, packed("fe80::1"))
    assert interfaces.near(2, packed("fe80::1"))


def test_broadcasts_are_known_but_not_of_links_between_two() -> None:
    interfaces = made((1, "10.0.1.1/24"), (1, "10.0.9.0/31"))
    assert [interfaces.is_broadcast(packed(a)) for a in ("10.0.1.255", "10.0.1.0", "10.0.1.1")] == [True, True, False]
    assert not interfaces.is_broadcast(packed("10.0.9.1"))


def test_it_hears_its_own_groups_only() -> None:
    interfaces = made((1, "fd00::1/64"), (2, "10.0.0.1/24"))
    groups = ("3333ff000001", "333300000001", "333300000002", "3333ff" + interfaces.link_local[13:].hex())
    assert all(interfaces.listens(1, bytes.fromhex(group)) for group in groups)
    assert not interfaces.listens(1, bytes.fromhex("3333ff000002"))
    assert not interfaces.listens(2, bytes.fromhex("333300000001"))
