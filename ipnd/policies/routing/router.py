"""The router: packets in, frames out. Pure: frames are handed to ``Surroundings``, the time comes from there.

A packet for the router's MAC address is checked, answered if it is for the router itself, and else sent on: hop limit
lowered, cut if it must be, to the neighbour the table names. What cannot be done raises ``Discard`` with the reason it
is counted under, after an ICMP error where one is due (RFC 1812, RFC 4443).
"""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

from . import icmp, ipv4, ipv6, ndp
from .interfaces import Interfaces
from .neighbours import Neighbour, Neighbours, Waiting
from .packet import ARP, IPV4, IPV6, Discard, Packet, ethertype
from .resolution import Resolution
from .table import Hop, Table

SMALLEST: Final = 68
"""What any IPv4 link must carry (RFC 791)."""
_ERRORS_PER_SECOND: Final = 100.0
_ERRORS_AT_ONCE: Final = 50.0
_ADVERTISE_EVERY: Final = 600.0
"""Seconds between unasked router advertisements: a third of the lifetime they give."""
_TRANSPORTS: Final = frozenset({6, 17, 33, 132, 136})
"""TCP, UDP, DCCP, SCTP, UDP-Lite: what has ports, of which the router serves none."""


class Surroundings(Protocol):
    """What the router needs of the switch around it."""

    @property
    def now(self) -> float:
        """Seconds, monotonic."""

    def mtu(self, vlan: int) -> int:
        """Return how large an IP packet may be in ``vlan``, at least 68."""

    def send(self, vlan: int, frame: bytes) -> None:
        """Send an untagged frame into ``vlan``."""

    def count(self, reason: str, frames: int = 1) -> None:
        """Count a frame under ``reason``."""

    def log(self, text: str) -> None:
        """Say something of importance."""


class Router:
    """Forwards between the subnets of one network."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.interfaces = Interfaces()
        self.table = Table()
        self.neighbours = Neighbours()
        self.resolution = Resolution(self)
        self.advertise = True
        self.largest = 0
        """How large a packet may be that the router sends or sends on; 0: whatever fits into a frame."""
        self._advertise_at = inf
        self._errors = icmp.Allowance(_ERRORS_PER_SECOND, _ERRORS_AT_ONCE)

    # -- in ------------------------------------------------------------------------------------------------------------

    def overhear(self, vlan: int, source_mac: bytes, kind: int, block: bytes) -> bool:
        """Take what came in any frame, ``kind`` being its Ethernet type: ARP and neighbour discovery; was it that?"""
        if kind == ARP:
            self.resolution.arp(vlan, source_mac, block)
        elif kind == IPV6:
            packet = ipv6.decode(block)
            if ndp.is_hidden(packet):
                raise Discard("nd behind extension headers")
            if not ndp.is_discovery(packet):
                return False
            self.resolution.discovery(vlan, source_mac, packet)
        else:
            return False
        return True

    def receive(self, vlan: int, source_mac: bytes, kind: int, block: bytes) -> None:
        """Take what came in a frame to the router's MAC address; ``kind`` is its Ethernet type."""
        if self.overhear(vlan, source_mac, kind, block):
            return
        if kind == IPV4:
            packet = ipv4.decode(block)
        elif kind == IPV6:
            packet = ipv6.decode(block)
        else:
            raise Discard("not ip, to the gateway")
        self._check_source(packet)
        if packet.destination in self.interfaces.addresses:
            self._answer(vlan, packet)
        else:
            self._forward(vlan, packet)

    def _check_source(self, packet: Packet) -> None:
        source = packet.source
        if source in self.interfaces.addresses:
            raise Discard("source is the gateway's address")
        strange = ipv4.strange(source) if len(source) == 4 else ipv6.strange(source)
        if strange or self.interfaces.is_broadcast(source):
            raise Discard("ip source martian")

    def _answer(self, vlan: int, packet: Packet) -> None:
        if packet.fragment:
            raise Discard("fragment for the gateway")
        if icmp.is_icmp(packet):
            if not icmp.sound(packet):
                raise Discard("icmp checksum wrong")
            if icmp.is_echo(packet):
                self.originate(vlan, icmp.echo(packet), packet.source)
            return
        if packet.protocol in _TRANSPORTS:
            self._report(icmp.NO_PORT, vlan, packet)
            raise Discard("no such port")
        self._report(icmp.NO_PROTOCOL, vlan, packet, 0 if packet.version == 4 else 6)
        raise Discard("no such protocol")

    # -- on ------------------------------------------------------------------------------------------------------------

    def _forward(self, vlan: int, packet: Packet) -> None:
        self._check_destination(vlan, packet)
        if packet.hops <= 1:
            self._report(icmp.EXPIRED, vlan, packet)
            raise Discard("hop limit reached")
        hop = self.table.lookup(packet.destination)
        if hop is None:
            self._report(icmp.NO_ROUTE, vlan, packet)
            raise Discard("no route")
        raw = ipv4.hop(packet.raw) if packet.version == 4 else ipv6.hop(packet.raw)
        mtu = self.mtu(hop.vlan)
        if len(raw) <= mtu:
            self.transmit(hop, raw, (vlan, packet))
        elif packet.whole:
            self._report(icmp.TOO_BIG, vlan, packet, mtu)
            raise Discard("packet too big")
        else:
            for part in ipv4.cut(raw, mtu):
                self.transmit(hop, part, (vlan, packet))

    def _check_destination(self, vlan: int, packet: Packet) -> None:
        destination = packet.destination
        if packet.version == 6:
            if ipv6.link_local(destination):
                raise Discard("ip destination not routable")
            if ipv6.link_local(packet.source):
                self._report(icmp.BEYOND_SCOPE, vlan, packet)
                raise Discard("ip source not routable")
        strange = ipv4.strange(destination) if packet.version == 4 else ipv6.strange(destination)
        if strange or self.interfaces.is_broadcast(destination):
            raise Discard("ip destination not routable")

    # -- out -----------------------------------------------------------------------------------------------------------

    def originate(self, vlan: int, raw: bytes, destination: bytes) -> None:
        """Send a packet of the router's own; ``vlan`` is where it goes if the destination is link-local."""
        local = len(destination) == 16 and ipv6.link_local(destination)
        hop = Hop(vlan, destination) if local else self.table.lookup(destination)
        if hop is None:
            raise Discard("no route")
        mtu = self.mtu(hop.vlan)
        if len(raw) > mtu and len(destination) == 4:
            for part in ipv4.cut(raw, mtu):
                self.transmit(hop, part)
        else:
            self.transmit(hop, raw)

    def transmit(self, hop: Hop, raw: bytes, origin: tuple[int, Packet] | None = None) -> None:
        """Send a packet to a neighbour, as soon as its MAC address is known."""
        entry, ask = self.neighbours.use(hop.vlan, hop.address, self.around.now)
        if entry is None:
            raise Discard("too many neighbours asked for")
        if entry.mac is not None:
            self.send(hop.vlan, entry.mac, ethertype(hop.address), raw)
        elif not self.neighbours.wait(entry, Waiting(raw, origin)):
            raise Discard("neighbour queue full")
        if ask:
            self.resolution.ask(entry)

    def send(self, vlan: int, mac: bytes, kind: int, block: bytes) -> None:
        """Send ``block`` in a frame from the router."""
        self.around.send(vlan, b"%b%b%b%b" % (mac, self.interfaces.mac, kind.to_bytes(2, "big"), block))

    def release(self, vlan: int, mac: bytes, packets: list[Waiting]) -> None:
        """Send what waited for the neighbour with this MAC address."""
        for waiting in packets:
            self.send(vlan, mac, IPV4 if waiting.packet[0] >> 4 == 4 else IPV6, waiting.packet)

    def _report(self, trouble: icmp.Trouble, vlan: int, packet: Packet, value: int = 0) -> None:
        """Tell the sender of ``packet``, which came from ``vlan``, of the trouble it is in, if that may be told."""
        if not icmp.reportable(packet):
            return
        source = self.interfaces.source_for(vlan, packet.source)
        if source is None:
            return
        if not self._errors.take(self.around.now):
            self.around.count("icmp errors held back")
            return
        try:
            self.originate(vlan, icmp.error(trouble, source, packet, value), packet.source)
        except Discard as discard:
            self.around.count(discard.reason)

    def mtu(self, vlan: int) -> int:
        """Return how large a packet may be that goes into ``vlan``."""
        fits = self.around.mtu(vlan)
        return min(fits, max(self.largest, SMALLEST)) if self.largest else fits

    # -- time ----------------------------------------------------------------------------------------------------------

    def next_due(self) -> float:
        """Return when ``tick`` has something to do; infinity: not before something happens."""
        return min(self.neighbours.next_due(), self._advertise_at)

    def tick(self) -> None:
        """Ask again for neighbours that have not answered, give up on those asked for often enough, advertise."""
        if self._advertise_at <= self.around.now:
            self.advertise_all()
        asked, lost = self.neighbours.due(self.around.now)
        for entry in asked:
            self.resolution.ask(entry)
        for entry, packets in lost:
            self.lost(entry, packets)

    def advertise_all(self) -> None:
        """Tell all hosts that speak IPv6 of their router, now and from time to time, if it is to do so."""
        vlans = [vlan for vlan in self.interfaces.vlans() if self.interfaces.speaks(vlan, 6)] if self.advertise else []
        for vlan in vlans:
            self.resolution.advertise(vlan)
        self._advertise_at = self.around.now + _ADVERTISE_EVERY if vlans else inf

    def reconfigured(self) -> None:
        """Take in that gateways, MAC address, routes or the advertising have changed."""
        self.table.rebuild(self.interfaces.gateways)
        self.resolution.forgive()
        for entry in list(self.neighbours.entries.values()):
            if not self.interfaces.near(entry.vlan, entry.address) or entry.address in self.interfaces.addresses:
                self.lost(entry, self.neighbours.forget(entry))

    def lost(self, entry: Neighbour, packets: list[Waiting]) -> None:
        """Tell the senders of packets that waited for ``entry`` in vain."""
        if packets:
            self.around.count("neighbour does not answer", len(packets))
        for waiting in packets:
            if waiting.origin is not None:
                self._report(icmp.NO_HOST, *waiting.origin)
