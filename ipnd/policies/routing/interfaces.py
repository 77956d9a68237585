"""The router's own addresses: which it has in which VLAN, and the MAC address it answers with. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Final

import attrs

from . import ipv6

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
BROADCAST: Final = b"\xff" * 6
MAX_GATEWAYS: Final = 4096
"""One for each VLAN; each change of them is looked through as a whole."""


@attrs.frozen
class Gateway:
    """One address of the router, with its subnet, in one VLAN (0: the network, or its default VLAN)."""

    vlan: int
    interface: Interface

    @property
    def address(self) -> bytes:
        """The address as in packets."""
        return self.interface.ip.packed


def mac_for(interface: Interface) -> bytes:
    """Return a locally administered MAC address that is always the same for ``interface``, and hardly another's."""
    return b"\x02" + hashlib.blake2s(str(interface).encode(), digest_size=5).digest()


class Interfaces:
    """All gateways of a router. The first one decides the MAC address, unless that has been set."""

    def __init__(self) -> None:
        self.mac: bytes = b""
        self.gateways: tuple[Gateway, ...] = ()
        self.addresses: frozenset[bytes] = frozenset()
        self._vlans: dict[int, tuple[Gateway, ...]] = {}
        self._groups: dict[int, frozenset[bytes]] = {}
        self._broadcasts: frozenset[bytes] = frozenset()

    def replace(self, gateways: Iterable[Gateway], mac: bytes = b"") -> None:
        """Have these gateways and this MAC address; b"": as before, or derived from the first gateway."""
        self.gateways = tuple(gateways)
        self.mac = mac or self.mac or (mac_for(self.gateways[0].interface) if self.gateways else b"")
        vlans = {g.vlan for g in self.gateways}
        self._vlans = {vlan: tuple(g for g in self.gateways if g.vlan == vlan) for vlan in vlans}
        self.addresses = frozenset(g.address for g in self.gateways) | frozenset(
            {self.link_local} if any(self.speaks(vlan, 6) for vlan in vlans) else ()
        )
        self._groups = {vlan: self._groups_in(vlan) for vlan in vlans}
        self._broadcasts = frozenset(_broadcasts(g.interface for g in self.gateways))

    def _groups_in(self, vlan: int) -> frozenset[bytes]:
        addresses = [g.address for g in self._vlans[vlan] if g.interface.version == 6]
        if not addresses:
            return frozenset()
        groups = [ipv6.ALL_NODES, ipv6.ALL_ROUTERS, *map(ipv6.solicited, [*addresses, self.link_local])]
        return frozenset(map(ipv6.group_mac, groups))

    @property
    def link_local(self) -> bytes:
        """The router's link-local address, the same in every VLAN."""
        return ipv6.from_mac(self.mac)

    def serves(self, vlan: int) -> bool:
        """Tell whether the router has an address in ``vlan``."""
        return vlan in self._vlans

    def vlans(self) -> Iterable[int]:
        """Return the VLANs it has an address in."""
        return self._vlans.keys()

    def in_vlan(self, vlan: int) -> tuple[Gateway, ...]:
        """Return its addresses in ``vlan``."""
        return self._vlans.get(vlan, ())

    def speaks(self, vlan: int, version: int) -> bool:
        """Tell whether it has an address of that IP version in ``vlan``."""
        return any(g.interface.version == version for g in self.in_vlan(vlan))

    def listens(self, vlan: int, mac: bytes) -> bool:
        """Tell whether frames to the multicast address ``mac`` are for the router too."""
        return mac in self._groups.get(vlan, ())

    def is_own(self, vlan: int, address: bytes) -> bool:
        """Tell whether ``address`` is the router's within ``vlan``."""
        if any(g.address == address for g in self.in_vlan(vlan)):
            return True
        return len(address) == 16 and self.speaks(vlan, 6) and address == self.link_local

    def is_broadcast(self, address: bytes) -> bool:
        """Tell whether ``address`` stands for all hosts of a subnet."""
        return address in self._broadcasts

    def subnet(self, vlan: int, address: bytes) -> Gateway | None:
        """Return the gateway in ``vlan`` whose subnet holds ``address``."""
        number = int.from_bytes(address, "big")
        for gateway in self.in_vlan(vlan):
            interface = gateway.interface
            if interface.max_prefixlen == len(address) * 8:
                shift = interface.max_prefixlen - interface.network.prefixlen
                if number >> shift == int(interface.ip) >> shift:
                    return gateway
        return None

    def near(self, vlan: int, address: bytes) -> bool:
        """Tell whether ``address`` can be a neighbour in ``vlan``."""
        if len(address) == 16 and ipv6.link_local(address):
            return self.speaks(vlan, 6)
        return self.subnet(vlan, address) is not None

    def source_for(self, vlan: int, address: bytes) -> bytes | None:
        """Return the address to speak to ``address`` from, in ``vlan``; None when there is none of that IP version."""
        version = 4 if len(address) == 4 else 6
        if version == 6 and ipv6.link_local(address):
            return self.link_local if self.speaks(vlan, 6) else None
        same = self.subnet(vlan, address)
        if same is not None:
            return same.address
        return next((g.address for g in self.in_vlan(vlan) if g.interface.version == version), None)


def _broadcasts(interfaces: Iterable[Interface]) -> Iterable[bytes]:
    for interface in interfaces:
        if isinstance(interface, IPv4Interface) and interface.network.prefixlen < 31:
            yield interface.network.network_address.packed
            yield interface.network.broadcast_address.packed
