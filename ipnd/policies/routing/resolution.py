"""Who is where: the router's ARP and neighbour discovery, asking and answering, and router advertisements. Pure.

Nobody but the router may say where the router's addresses are: a message that does so is not passed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import arp, ipv6, ndp
from .interfaces import BROADCAST
from .neighbours import Neighbour
from .packet import ARP, IPV6, Discard, Packet

if TYPE_CHECKING:
    from .router import Router

_NOBODY: Final = bytes(6)


class Resolution:
    """The part of a router that finds neighbours and is found by them."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._complained: set[tuple[int, bytes]] = set()
        """Addresses of the router whose claim by another was logged: at most one line for each of them."""

    # -- claims --------------------------------------------------------------------------------------------------------

    def _refuse_claim(self, vlan: int, address: bytes, mac: bytes, protocol: str) -> None:
        router = self._router
        if not router.interfaces.is_own(vlan, address):
            return
        if (vlan, address) not in self._complained:
            self._complained.add((vlan, address))
            where = f" in VLAN {vlan}" if vlan else ""
            router.around.log(f"{mac.hex(':')} claims a gateway address{where} by {protocol}; its messages are dropped")
        raise Discard(f"{protocol} claims the gateway's address")

    def forgive(self) -> None:
        """Log the next claim of each address again: the addresses have changed."""
        self._complained.clear()

    # -- ARP -----------------------------------------------------------------------------------------------------------

    def arp(self, vlan: int, source_mac: bytes, block: bytes) -> None:
        """Take an ARP message: refuse claims, learn the sender, answer what is asked of the router."""
        message = arp.decode(block)
        if message is None:
            return
        interfaces = self._router.interfaces
        self._refuse_claim(vlan, message.sender, message.sender_mac, "arp")
        ours = interfaces.is_own(vlan, message.target)
        if message.sender != arp.NOBODY:
            self._learn(vlan, message.sender, message.sender_mac, source_mac, new=ours)
        if ours and message.operation == arp.REQUEST:
            answer = arp.Arp(arp.REPLY, interfaces.mac, message.target, message.sender_mac, message.sender)
            self._router.send(vlan, message.sender_mac, ARP, arp.encode(answer))

    def _learn(
        self, vlan: int, address: bytes, mac: bytes, source_mac: bytes, new: bool, override: bool = True
    ) -> None:
        """Note where ``address`` is, if it can be there and the frame's own source address says the same."""
        router = self._router
        if router.interfaces.is_broadcast(address) or not router.interfaces.near(vlan, address):
            return
        if mac != source_mac:
            router.around.count("neighbour claimed from another mac")
            return
        packets = router.neighbours.hear(vlan, address, mac, router.around.now, new=new, override=override)
        router.release(vlan, mac, packets)

    # -- neighbour discovery -------------------------------------------------------------------------------------------

    def discovery(self, vlan: int, source_mac: bytes, packet: Packet) -> None:
        """Take a neighbour discovery message: refuse claims, learn the sender, answer what is asked of the router."""
        message = ndp.decode(packet)
        self._refuse_claim(vlan, packet.source, source_mac, "nd")
        if message is None:
            return
        if message.kind == ndp.NEIGHBOUR_ADVERTISEMENT:
            self._refuse_claim(vlan, message.target, source_mac, "nd")
            override = bool(message.flags & ndp.OVERRIDE)
            mac = message.mac or source_mac
            self._learn(vlan, message.target, mac, source_mac, new=False, override=override)
            return
        ours = message.kind == ndp.NEIGHBOUR_SOLICITATION and self._router.interfaces.is_own(vlan, message.target)
        if message.mac is not None:
            self._learn(vlan, packet.source, message.mac, source_mac, new=ours)
        if ours:
            self._answer_solicitation(vlan, source_mac, packet, message)
        elif message.kind == ndp.ROUTER_SOLICITATION and self._router.advertise:
            self.advertise(vlan, source_mac)

    def _answer_solicitation(self, vlan: int, source_mac: bytes, packet: Packet, message: ndp.Discovery) -> None:
        """Answer the asker, or all nodes if it has no address yet: it is about to take the router's (RFC 4862, 5.4)."""
        mac = self._router.interfaces.mac
        flags = ndp.IS_ROUTER | ndp.OVERRIDE
        destination, to = packet.source, message.mac or source_mac
        if destination == ipv6.UNSPECIFIED:
            destination, to = ipv6.ALL_NODES, ipv6.group_mac(ipv6.ALL_NODES)
        else:
            flags |= ndp.SOLICITED
        answer = ndp.neighbour_advertisement(message.target, destination, message.target, mac, flags)
        self._router.send(vlan, to, IPV6, answer)

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(self, entry: Neighbour) -> None:
        """Ask for a neighbour: everybody, or itself when it is only to say that it is still there."""
        router, vlan, address = self._router, entry.vlan, entry.address
        source = router.interfaces.source_for(vlan, address)
        if source is None:
            return
        mac = router.interfaces.mac
        if len(address) == 4:
            request = arp.Arp(arp.REQUEST, mac, source, _NOBODY, address)
            router.send(vlan, entry.mac or BROADCAST, ARP, arp.encode(request))
        else:
            to = address if entry.mac else ipv6.solicited(address)
            request6 = ndp.neighbour_solicitation(source, to, address, mac)
            router.send(vlan, entry.mac or ipv6.group_mac(to), IPV6, request6)

    def announce(self) -> None:
        """Tell everybody where the router's addresses are: one is new, or the MAC address (RFC 5227, 2.3)."""
        router = self._router
        mac = router.interfaces.mac
        for gateway in router.interfaces.gateways:
            address = gateway.address
            if len(address) == 4:
                claim = arp.Arp(arp.REQUEST, mac, address, _NOBODY, address)
                router.send(gateway.vlan, BROADCAST, ARP, arp.encode(claim))
            else:
                flags = ndp.IS_ROUTER | ndp.OVERRIDE
                claim6 = ndp.neighbour_advertisement(address, ipv6.ALL_NODES, address, mac, flags)
                router.send(gateway.vlan, ipv6.group_mac(ipv6.ALL_NODES), IPV6, claim6)

    def advertise(self, vlan: int, to: bytes = ipv6.group_mac(ipv6.ALL_NODES)) -> None:
        """Tell the hosts in ``vlan``, or one of them, that this is their router, and their prefixes."""
        router = self._router
        interfaces = [g.interface for g in router.interfaces.in_vlan(vlan) if g.interface.version == 6]
        if not interfaces:
            return
        prefixes = {i.network.network_address.packed: i.network.prefixlen for i in interfaces}
        source, mac = router.interfaces.link_local, router.interfaces.mac
        told = ndp.router_advertisement(source, ipv6.ALL_NODES, mac, router.mtu(vlan), prefixes.items())
        router.send(vlan, to, IPV6, told)
