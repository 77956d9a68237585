"""Stories of the layer-3 switch. The frames are built and judged by scapy, which is not ours."""

from __future__ import annotations

import errno
from ipaddress import IPv6Address
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from ipnd.policies.base import Ask, Deliver, Drop, Forward, LookAt
from ipnd.policies.l3switch import L3Switch

from .net import FakeNet

A_MAC, B_MAC, C_MAC = "02:aa:00:00:00:01", "02:bb:00:00:00:01", "02:cc:00:00:00:01"
A, B, C = 1, 2, 3
ALL = "ff:ff:ff:ff:ff:ff"


@attrs.define(eq=False)
class Net(FakeNet):
    """Time in which a nearer tick overtakes an earlier request, as the layer-3 switch needs."""

    def tick_in(self, seconds: float) -> None:
        due = self.now + seconds
        self.tick_at = due if self.tick_at is None else min(self.tick_at, due)


@attrs.define(eq=False)
class World:
    """A layer-3 switch with three ports, and what came out of each of them."""

    net: Net
    switch: L3Switch

    @property
    def mac(self) -> str:
        return self.switch.router.interfaces.mac.hex(":")

    def verb(self, name: str, **arguments: Any) -> Any:
        return L3Switch.verbs[name][0](self.switch, arguments)

    def send(self, port: int, frame: Packet | bytes) -> dict[int, list[Packet]]:
        """Let a frame in; return what each port gets. Drops are counted by reason, as the plane does."""
        raw = bytes(frame)
        assert self.switch.key_bytes is not None
        decision = self.switch.decide(port, raw[: self.switch.key_bytes])
        if isinstance(decision, LookAt):
            decision = self.switch.decide(port, raw[: decision.octets])
        if isinstance(decision, Ask):
            decision = self.switch.handlemsg(port, raw, 0)
        assert not isinstance(decision, Ask | LookAt)
        if isinstance(decision, Drop):
            self.net.count(decision.reason)
            return {}
        got: dict[int, list[Packet]] = {}
        for part in [decision] if isinstance(decision, Forward) else list(decision):
            answer = Forward([part]) if isinstance(part, int) else part
            out = answer.frame if isinstance(answer, Deliver) else (answer.edit or bytes)(raw)
            for to in answer.ports:
                got.setdefault(to, []).append(Ether(out))
        return got

    def one(self, port: int, frame: Packet, to: int) -> Packet:
        """Let a frame in from which one frame is to come out, at port ``to``."""
        got = self.send(port, frame)
        assert {number: len(frames) for number, frames in got.items()} == {to: 1}, (got, self.net.counted)
        return got[to][0]

    def later(self, seconds: float) -> list[tuple[int, Packet]]:
        """Let time pass; return what the switch sends by itself."""
        self.net.sent.clear()
        self.net.advance(self.switch, seconds)
        return [(port, Ether(frame)) for port, frame in self.net.sent]

    def introduce(self, port: int, mac: str, address: str) -> None:
        """Let a host ask for its gateway."""
        if ":" in address:
            self.send(port, solicit(mac, address, gateway_of(address)))
        else:
            self.send(port, Ether(src=mac, dst=ALL) / ARP(hwsrc=mac, psrc=address, pdst=gateway_of(address)))


def gateway_of(address: str) -> str:
    return address.rpartition(":")[0] + ":1" if ":" in address else address.rpartition(".")[0] + ".1"


def group(address: str) -> tuple[str, str]:
    """Return the solicited-node group of an address, as MAC and as IP."""
    last = IPv6Address(address).packed[13:].hex()
    return f"33:33:ff:{last[:2]}:{last[2:4]}:{last[4:]}", str(IPv6Address(f"ff02::1:ff{last[:2]}:{last[2:]}"))


def solicit(mac: str, source: str, target: str) -> Packet:
    to_mac, to = group(target)
    return (
        Ether(src=mac, dst=to_mac) / IPv6(src=source, dst=to, hlim=255) / ICMPv6ND_NS(tgt=target)
        / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    )  # fmt: skip


def valid(frame: Packet) -> bool:
    """Whether all lengths and checksums are those that scapy would have written."""
    fresh = Ether(bytes(frame))
    for layer in fresh.layers():
        for field in ("chksum", "cksum", "len", "plen"):
            if field in fresh[layer].fields and layer is not ARP and not str(layer.__name__).endswith("error"):
                del fresh[layer].fields[field]
    return bytes(fresh) == bytes(frame)


@pytest.fixture
def world() -> World:
    return fresh_world()


def fresh_world() -> World:
    net = Net()
    world = World(net, L3Switch(net))
    net.join(world.switch, A, B, C)
    for address in ("10.0.1.1/24", "10.0.2.1/24", "fd00:1::1/64", "fd00:2::1/64"):
        world.verb("address.add", address=address)
    world.introduce(A, A_MAC, "10.0.1.10")
    world.introduce(B, B_MAC, "10.0.2.10")
    world.introduce(A, A_MAC, "fd00:1::10")
    world.introduce(B, B_MAC, "fd00:2::10")
    net.sent.clear()
    net.counted.clear()
    return world


def from_a(world: World, destination: str = "10.0.2.10", **fields: Any) -> Packet:
    return Ether(src=A_MAC, dst=world.mac) / IP(src="10.0.1.10", dst=destination, **fields)


def from_a6(world: World, destination: str = "fd00:2::10", **fields: Any) -> Packet:
    return Ether(src=A_MAC, dst=world.mac) / IPv6(src="fd00:1::10", dst=destination, **fields)


# -- being found -------------------------------------------------------------------------------------------------------


def test_an_arp_request_for_the_gateway_is_answered_and_bridged_besides(world: World) -> None:
    got = world.send(A, Ether(src=A_MAC, dst=ALL) / ARP(hwsrc=A_MAC, psrc="10.0.1.10", pdst="10.0.1.1"))
    assert sorted(got) == [A, B, C]
    answer = got[A][0]
    assert (answer.dst, answer.src) == (A_MAC, world.mac)
    assert (answer[ARP].op, answer[ARP].hwsrc, answer[ARP].psrc) == (2, world.mac, "10.0.1.1")
    assert (answer[ARP].hwdst, answer[ARP].pdst) == (A_MAC, "10.0.1.10")


def test_a_neighbour_solicitation_for_the_gateway_is_answered(world: World) -> None:
    answer = world.send(A, solicit(A_MAC, "fd00:1::10", "fd00:1::1"))[A][0]
    assert (answer.dst, answer.src, answer[IPv6].src, answer[IPv6].dst) == (A_MAC, world.mac, "fd00:1::1", "fd00:1::10")
    assert (answer[IPv6].hlim, answer[ICMPv6ND_NA].R, answer[ICMPv6ND_NA].S, answer[ICMPv6ND_NA].O) == (255, 1, 1, 1)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == world.mac
    assert valid(answer)


def test_who_is_about_to_take_the_gateways_address_is_told_so(world: World) -> None:
    mac, to = group("fd00:1::1")
    probe = Ether(src=C_MAC, dst=mac) / IPv6(src="::", dst=to, hlim=255) / ICMPv6ND_NS(tgt="fd00:1::1")
    answer = world.send(C, probe)[C][0]
    assert (answer.dst, answer[IPv6].dst, answer[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)
    arp = world.send(C, Ether(src=C_MAC, dst=ALL) / ARP(hwsrc=C_MAC, psrc="0.0.0.0", pdst="10.0.1.1"))[C][0]
    assert arp[ARP].psrc == "10.0.1.1"


def test_a_router_solicitation_is_answered_with_the_prefixes(world: World) -> None:
    ask = Ether(src=C_MAC, dst="33:33:00:00:00:02") / IPv6(src="fe80::c", dst="ff02::2", hlim=255) / ICMPv6ND_RS()
    answer = world.send(C, ask)[C][0]
    assert valid(answer)
    assert answer[IPv6].src == world.verb("router.show")["link_local"]
    prefix = answer[ICMPv6NDOptPrefixInfo]
    assert (prefix.prefix, prefix.prefixlen, prefix.L, prefix.A) == ("fd00:1::", 64, 1, 1)
    world.verb("router.set", advertise=False)
    assert ICMPv6ND_RA not in world.send(C, ask).get(C, [Ether()])[0]


def test_the_gateway_answers_echoes_from_any_subnet(world: World) -> None:
    for gateway in ("10.0.1.1", "10.0.2.1"):
        answer = world.one(A, from_a(world, gateway) / ICMP(id=7, seq=3) / b"hello", A)
        assert valid(answer)
        assert (answer[IP].src, answer[IP].dst, answer[ICMP].type) == (gateway, "10.0.1.10", 0)
        assert (answer[ICMP].id, answer[ICMP].seq, answer[Raw].load) == (7, 3, b"hello")
    for gateway in ("fd00:1::1", "fd00:2::1"):
        answer = world.one(A, from_a6(world, gateway) / ICMPv6EchoRequest(id=7, seq=3, data=b"hello"), A)
        assert valid(answer)
        assert (answer[IPv6].src, answer[ICMPv6EchoReply].data) == (gateway, b"hello")


# -- routing -----------------------------------------------------------------------------------------------------------


def test_a_packet_is_routed_with_one_hop_less_and_a_right_checksum(world: World) -> None:
    out = world.one(A, from_a(world, ttl=17) / UDP(dport=9) / b"x", B)
    assert (out.src, out.dst, out[IP].ttl, out[Raw].load) == (world.mac, B_MAC, 16, b"x")
    assert valid(out)
    out = world.one(A, from_a6(world, hlim=17) / UDP(dport=9) / b"x", B)
    assert (out.src, out.dst, out[IPv6].hlim, out[Raw].load) == (world.mac, B_MAC, 16, b"x")
    assert valid(out)


def test_within_a_subnet_frames_are_switched_and_remembered(world: World) -> None:
    frame = Ether(src=A_MAC, dst=B_MAC) / IP(src="10.0.1.10", dst="10.0.1.11", ttl=1) / UDP()
    assert world.switch.decide(A, bytes(frame)[:14]) == (B,)


def test_padding_does_not_go_along(world: World) -> None:
    out = world.one(A, bytes(from_a(world) / UDP() / b"x") + bytes(17), B)
    assert len(out) == 14 + 20 + 8 + 1


def test_the_last_hop_is_reported_from_the_address_on_the_senders_side(world: World) -> None:
    answer = world.one(A, from_a(world, ttl=1) / UDP(dport=33434), A)
    assert valid(answer)
    assert (answer[IP].src, answer[IP].dst, answer[ICMP].type, answer[ICMP].code) == ("10.0.1.1", "10.0.1.10", 11, 0)
    answer = world.one(A, from_a6(world, hlim=1) / UDP(dport=33434), A)
    assert valid(answer)
    assert (answer[IPv6].src, answer[ICMPv6TimeExceeded].code) == ("fd00:1::1", 0)
    assert world.net.counted["hop limit reached"] == 2


def test_without_a_route_the_net_is_unreachable(world: World) -> None:
    answer = world.one(A, from_a(world, "192.0.2.1") / UDP(), A)
    assert (answer[ICMP].type, answer[ICMP].code, valid(answer)) == (3, 0, True)
    answer = world.one(A, from_a6(world, "2001:db8::1") / UDP(), A)
    assert (answer[ICMPv6DestUnreach].code, valid(answer)) == (0, True)
    assert world.net.counted["no route"] == 2


def test_the_longest_static_route_wins_and_leads_to_its_router(world: World) -> None:
    world.verb("route.add", prefix="0.0.0.0/0", via="10.0.1.10")
    world.verb("route.add", prefix="192.0.2.0/24", via="10.0.2.10")
    assert world.one(A, from_a(world, "192.0.2.1") / UDP(), B).dst == B_MAC
    assert world.one(A, from_a(world, "198.51.100.1") / UDP(), A).dst == A_MAC
    world.verb("route.remove", prefix="192.0.2.0/24")
    assert world.one(A, from_a(world, "192.0.2.1") / UDP(), A).dst == A_MAC


def test_a_packet_that_must_not_be_cut_is_reported_with_the_mtu(world: World) -> None:
    world.verb("router.set", mtu=1300)
    answer = world.one(A, from_a(world, flags="DF") / UDP() / bytes(1400), A)
    assert (answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu, valid(answer)) == (3, 4, 1300, True)
    assert len(answer[IP]) <= 576
    answer = world.one(A, from_a6(world) / UDP() / bytes(1400), A)
    assert (answer[ICMPv6PacketTooBig].mtu, valid(answer)) == (1300, True)
    assert len(answer[IPv6]) <= 1280


def test_a_packet_that_may_be_cut_is_cut(world: World) -> None:
    world.verb("router.set", mtu=600)
    payload = bytes(range(256)) * 5
    parts = world.send(A, from_a(world, id=77) / UDP(sport=1, dport=2) / payload)[B]
    assert all(valid(part) and len(part[IP]) <= 600 and part[IP].id == 77 for part in parts)
    body = b"".join(bytes(part[IP].payload) for part in parts)
    assert body == bytes(Ether(bytes(from_a(world) / UDP(sport=1, dport=2) / payload))[IP].payload)
    assert [int(part[IP].frag) * 8 for part in parts] == [0, 576, 1152]
    assert [bool(part[IP].flags.MF) for part in parts] == [True, True, False]


def test_ports_of_the_gateway_are_unreachable(world: World) -> None:
    for transport in (UDP(), TCP()):
        answer = world.one(A, from_a(world, "10.0.2.1") / transport, A)
        assert (answer[ICMP].type, answer[ICMP].code, valid(answer)) == (3, 3, True)
        answer = world.one(A, from_a6(world, "fd00:2::1") / transport, A)
        assert (answer[ICMPv6DestUnreach].code, valid(answer)) == (4, True)


# -- neighbours --------------------------------------------------------------------------------------------------------


def test_packets_wait_until_their_neighbour_has_answered(world: World) -> None:
    got = world.send(A, from_a(world, "10.0.2.20") / UDP(dport=1))
    question = got[C][0]
    assert (question.dst, question[ARP].psrc, question[ARP].pdst) == (ALL, "10.0.2.1", "10.0.2.20")
    world.send(A, from_a(world, "10.0.2.20") / UDP(dport=2))
    assert [row["queued"] for row in world.verb("neigh.list") if row["address"] == "10.0.2.20"] == [2]
    reply = Ether(src=C_MAC, dst=world.mac) / ARP(op=2, hwsrc=C_MAC, psrc="10.0.2.20", hwdst=world.mac, pdst="10.0.2.1")
    got = world.send(C, reply)
    assert [frame[UDP].dport for frame in got[C]] == [1, 2]
    assert world.later(10) == []


def test_ipv6_packets_wait_until_their_neighbour_has_answered(world: World) -> None:
    question = world.send(A, from_a6(world, "fd00:2::20") / UDP(dport=1))[C][0]
    assert (question.dst, question[IPv6].dst) == group("fd00:2::20")
    assert valid(question)
    answer = (
        Ether(src=C_MAC, dst=world.mac) / IPv6(src="fd00:2::20", dst="fd00:2::1", hlim=255)
        / ICMPv6ND_NA(tgt="fd00:2::20", S=1, O=1, R=0) / ICMPv6NDOptDstLLAddr(lladdr=C_MAC)
    )  # fmt: skip
    assert [frame[UDP].dport for frame in world.send(C, answer)[C]] == [1]


@pytest.mark.parametrize("version", [4, 6])
def test_a_neighbour_that_does_not_answer_three_times_is_unreachable(world: World, version: int) -> None:
    packet = from_a(world, "10.0.2.99") if version == 4 else from_a6(world, "fd00:2::99")
    world.send(A, packet / UDP())
    sent = world.later(5)
    assert sum(port == C for port, _ in sent) == 2
    port, report = sent[-1]
    assert port == A
    assert valid(report)
    if version == 4:
        assert (report[ICMP].type, report[ICMP].code) == (3, 1)
    else:
        assert report[ICMPv6DestUnreach].code == 3
    assert world.net.counted["neighbour does not answer"] == 1
    assert world.verb("neigh.list")[-1]["address"] != "10.0.2.99"


def test_no_more_than_sixteen_packets_wait_for_one_neighbour(world: World) -> None:
    for _ in range(20):
        world.send(A, from_a(world, "10.0.2.99") / UDP())
    assert world.net.counted["neighbour queue full"] == 4


def test_who_scans_a_subnet_does_not_push_out_the_neighbours_that_are_there(world: World) -> None:
    world.verb("address.add", address="10.4.0.1/16")
    for number in range(600):
        world.send(A, from_a(world, f"10.4.{number // 250}.{number % 250 + 2}") / UDP())
    assert world.net.counted["too many neighbours asked for"] == 600 - 256
    assert world.one(A, from_a(world) / UDP(), B).dst == B_MAC


def test_an_old_neighbour_is_asked_again_while_packets_go_on_to_it(world: World) -> None:
    world.later(100)
    got = world.send(A, from_a(world) / UDP())[B]
    assert [ARP in frame for frame in got] == [False, True]
    assert (got[1].dst, got[1][ARP].pdst) == (B_MAC, "10.0.2.10")
    world.later(10)
    assert all(row["address"] != "10.0.2.10" for row in world.verb("neigh.list"))


def test_an_idle_router_without_ipv6_does_not_tick(world: World) -> None:
    for address in ("fd00:1::1", "fd00:2::1"):
        world.verb("address.remove", address=address)
    world.net.advance(world.switch, 1300)
    assert world.net.advance(world.switch, 10_000) == 0


def test_advertisements_are_repeated_while_there_is_ipv6(world: World) -> None:
    assert sum(ICMPv6ND_RA in frame for port, frame in world.later(3000) if port == C) == 5
    world.verb("router.set", advertise=False)
    assert world.later(3000) == []


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_nobody_else_may_claim_the_gateways_address_by_arp(world: World) -> None:
    claim = ARP(op=2, hwsrc=C_MAC, psrc="10.0.1.1", hwdst=A_MAC, pdst="10.0.1.10")
    for to in (ALL, A_MAC, ALL):
        assert world.send(C, Ether(src=C_MAC, dst=to) / claim) == {}
    assert world.net.counted["arp claims the gateway's address"] == 3
    assert len(world.net.logged) == 1
    assert C_MAC in world.net.logged[0]


def test_nobody_else_may_claim_the_gateways_address_by_neighbour_discovery(world: World) -> None:
    claim = ICMPv6ND_NA(tgt="fd00:1::1", O=1) / ICMPv6NDOptDstLLAddr(lladdr=C_MAC)
    frame = Ether(src=C_MAC, dst="33:33:00:00:00:01") / IPv6(src="fe80::c", dst="ff02::1", hlim=255) / claim
    assert world.send(C, frame) == {}
    assert world.send(C, solicit(C_MAC, "fd00:1::1", "fd00:2::1")) == {}
    assert world.net.counted["nd claims the gateway's address"] == 2
    assert len(world.net.logged) == 1


def test_neighbour_discovery_does_not_hide_behind_extension_headers(world: World) -> None:
    claim = ICMPv6ND_NA(tgt="fd00:1::1", O=1) / ICMPv6NDOptDstLLAddr(lladdr=C_MAC)
    head = Ether(src=C_MAC, dst="33:33:00:00:00:01") / IPv6(src="fe80::c", dst="ff02::1", hlim=255)
    assert world.send(C, head / IPv6ExtHdrHopByHop() / claim) == {}
    assert world.send(C, head / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment() / claim) == {}
    assert world.net.counted["nd behind extension headers"] == 2
    report = ICMPv6MLReport2()
    assert sorted(world.send(C, head / IPv6ExtHdrHopByHop() / report)) == [A, B]


def test_frames_from_the_gateways_mac_address_are_dropped(world: World) -> None:
    assert world.send(C, Ether(src=world.mac, dst=A_MAC) / IP() / UDP()) == {}
    assert world.net.counted["source is the gateway's mac"] == 1


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"chksum": 1}, "ip checksum wrong"),
        ({"len": 9000}, "ip length wrong"),
        ({"len": 4}, "ip length wrong"),
        ({"version": 5}, "ip version wrong"),
        ({"options": [IPOption_NOP()] * 4}, "ip options"),
        ({"src": "127.0.0.1"}, "ip source martian"),
        ({"src": "224.0.0.1"}, "ip source martian"),
        ({"src": "0.0.0.0"}, "ip source martian"),
        ({"src": "10.0.1.255"}, "ip source martian"),
        ({"src": "10.0.2.1"}, "source is the gateway's address"),
        ({"dst": "10.0.2.255"}, "ip destination not routable"),
        ({"dst": "255.255.255.255"}, "ip destination not routable"),
        ({"dst": "224.0.0.5"}, "ip destination not routable"),
    ],
)
def test_a_bad_packet_is_dropped_and_counted(world: World, fields: dict[str, Any], reason: str) -> None:
    header = IP(**{"src": "10.0.1.10", "dst": "10.0.2.10", **fields})
    assert world.send(A, Ether(src=A_MAC, dst=world.mac) / header / UDP()) == {}
    assert dict(world.net.counted) == {reason: 1}


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"plen": 9000}, "ip length wrong"),
        ({"version": 4}, "ip version wrong"),
        ({"src": "::1"}, "ip source martian"),
        ({"src": "ff02::1"}, "ip source martian"),
        ({"src": "fd00:2::1"}, "source is the gateway's address"),
        ({"dst": "fe80::9"}, "ip destination not routable"),
        ({"dst": "ff05::9"}, "ip destination not routable"),
    ],
)
def test_a_bad_ipv6_packet_is_dropped_and_counted(world: World, fields: dict[str, Any], reason: str) -> None:
    header = IPv6(**{"src": "fd00:1::10", "dst": "fd00:2::10", **fields})
    assert world.send(A, Ether(src=A_MAC, dst=world.mac) / header / UDP()) == {}
    assert dict(world.net.counted) == {reason: 1}


def test_errors_are_not_reported_about_errors_or_later_fragments(world: World) -> None:
    error = ICMP(type=3, code=1) / IP(src="10.0.2.10", dst="10.0.1.10") / UDP()
    assert world.send(A, from_a(world, ttl=1) / error) == {}
    assert world.send(A, from_a(world, ttl=1, frag=5) / Raw(bytes(40))) == {}
    inner = IPv6(src="fd00:2::10", dst="fd00:1::10") / UDP()
    assert world.send(A, from_a6(world, hlim=1) / ICMPv6DestUnreach() / inner) == {}


def test_errors_are_held_back_beyond_a_rate(world: World) -> None:
    reports = sum(bool(world.send(A, from_a(world, ttl=1) / UDP())) for _ in range(200))
    assert reports == 50
    assert world.net.counted["icmp errors held back"] == 150
    world.net.now += 0.1
    assert sum(bool(world.send(A, from_a(world, ttl=1) / UDP())) for _ in range(20)) == 10


VALID = [
    lambda w: from_a(w) / UDP() / b"payload",
    lambda w: from_a(w, "10.0.1.1") / ICMP() / b"payload",
    lambda w: from_a(w, ttl=1) / TCP(),
    lambda w: from_a6(w) / UDP() / b"payload",
    lambda w: from_a6(w, "fd00:1::1") / ICMPv6EchoRequest(data=b"x"),
    lambda w: solicit(A_MAC, "fd00:1::10", "fd00:1::1"),
    lambda w: Ether(src=A_MAC, dst=ALL) / ARP(hwsrc=A_MAC, psrc="10.0.1.10", pdst="10.0.1.1"),
    lambda w: (
        Ether(src=A_MAC, dst=w.mac)
        / IPv6(src="fd00:1::10", dst="fd00:1::1", hlim=255)
        / ICMPv6ND_NA(tgt="fd00:1::10")
        / ICMPv6NDOptDstLLAddr(lladdr=A_MAC)
    ),
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
    st.integers(0, 130),
)
def test_a_valid_packet_changed_anywhere_does_no_harm(make: Any, changes: list[tuple[int, int]], length: int) -> None:
    world = fresh_world()
    raw = bytearray(bytes(make(world)))
    for place, value in changes:
        raw[place % len(raw)] = value
    for frame in (bytes(raw), bytes(raw[:length])):
        got = world.send(A, frame)
        assert all(len(out) <= world.net.mtu for frames in got.values() for out in frames)
    assert all(len(out) <= world.net.mtu for _, out in world.later(10))


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from(["router", "all", "group", "nodes"]),
    st.sampled_from([0x0800, 0x0806, 0x86DD, 0x8100]),
    st.binary(max_size=120),
)
def test_any_bytes_do_no_harm(to: str, kind: int, body: bytes) -> None:
    world = fresh_world()
    destination = {"router": world.mac, "all": ALL, "group": group("fd00:1::1")[0], "nodes": "33:33:00:00:00:01"}[to]
    head = bytes.fromhex((destination + A_MAC).replace(":", ""))
    world.send(A, head + kind.to_bytes(2, "big") + body)
    world.send(A, head[: len(body)])
    world.switch.handlemsg(A, body, 0)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8]), st.integers(0, 0xFFFF), st.binary(max_size=80))
def test_any_tagged_bytes_do_no_harm(kind: int, tag: int, body: bytes) -> None:
    world = fresh_world()
    world.verb("port.set", port=A, tagged="1,20")
    world.verb("address.add", address="10.0.20.1/24", vlan=20)
    head = bytes.fromhex((world.mac + A_MAC).replace(":", ""))
    for vlan in (tag, 1, 20):
        world.send(A, head + b"\x81\0" + vlan.to_bytes(2, "big") + kind.to_bytes(2, "big") + body)
    world.switch.handlemsg(A, head + b"\x81\0" + body[:3], 0)


def test_a_tag_within_a_tag_is_not_routed() -> None:
    world = fresh_world()
    world.verb("port.set", port=A, tagged="20")
    world.verb("address.add", address="10.0.20.1/24", vlan=20)
    inner = IP(src="10.0.20.9", dst="10.0.1.10") / UDP()
    assert world.send(A, Ether(src=A_MAC, dst=world.mac) / Dot1Q(vlan=20) / Dot1Q(vlan=20) / inner) == {}
    assert world.net.counted["not ip, to the gateway"] == 1


# -- VLANs -------------------------------------------------------------------------------------------------------------


def test_it_routes_between_vlans_over_a_trunk() -> None:
    net = Net(mtu=1518)
    world = World(net, L3Switch(net))
    net.join(world.switch, A, B, C)
    world.verb("port.set", port=A, pvid=10)
    world.verb("port.set", port=B, pvid=20)
    world.verb("port.set", port=C, pvid=0, tagged="10,20")
    world.verb("address.add", address="10.0.1.1/24", vlan=10)
    world.verb("address.add", address="10.0.2.1/24", vlan=20)
    got = world.send(A, Ether(src=A_MAC, dst=ALL) / ARP(hwsrc=A_MAC, psrc="10.0.1.10", pdst="10.0.1.1"))
    assert sorted(got) == [A, C]
    tagged = Ether(src=C_MAC, dst=ALL) / Dot1Q(vlan=20) / ARP(hwsrc=C_MAC, psrc="10.0.2.30", pdst="10.0.2.1")
    assert world.send(C, tagged)[C][0][Dot1Q].vlan == 20
    out = world.one(A, from_a(world, "10.0.2.30") / UDP() / b"x", C)
    assert (out.dst, out[Dot1Q].vlan, out[IP].ttl) == (C_MAC, 20, 63)
    back = Ether(src=C_MAC, dst=world.mac) / Dot1Q(vlan=20) / IP(src="10.0.2.30", dst="10.0.1.10") / UDP() / b"y"
    out = world.one(C, back, A)
    assert (out.dst, Dot1Q in out, out[Raw].load) == (A_MAC, False, b"y")


def test_an_address_for_the_network_is_in_the_default_vlan() -> None:
    net = Net()
    world = World(net, L3Switch(net))
    net.join(world.switch, A, B)
    world.verb("port.set", port=B, pvid=20)
    world.verb("address.add", address="10.0.1.1/24")
    ask = ARP(hwsrc=A_MAC, psrc="10.0.1.10", pdst="10.0.1.1")
    assert world.send(A, Ether(src=A_MAC, dst=ALL) / ask)[A][0][ARP].psrc == "10.0.1.1"
    assert world.send(B, Ether(src=B_MAC, dst=ALL) / ask) == {}


# -- management --------------------------------------------------------------------------------------------------------


def test_what_is_set_is_listed_and_survives(world: World) -> None:
    world.verb("route.add", prefix="192.0.2.0/24", via="10.0.2.10")
    world.verb("neigh.add", address="10.0.2.77", mac=C_MAC)
    world.verb("router.set", mac="02:00:00:00:00:99", mtu=1400)
    assert {"prefix": "192.0.2.0/24", "via": "10.0.2.10", "vlan": 0, "kind": "static"} in world.verb("route.list")
    again = World(Net(), L3Switch(Net()))
    again.switch.restore(world.switch.state())
    assert again.switch.state() == world.switch.state()
    assert again.verb("address.list") == world.verb("address.list")
    assert again.verb("address.list")[0] == {"address": "10.0.1.1/24", "vlan": 0}
    assert again.verb("route.list") == world.verb("route.list")
    assert [row["state"] for row in again.verb("neigh.list")] == ["static"]
    assert again.verb("router.show")["mac"] == "02:00:00:00:00:99"


def test_a_state_that_makes_no_sense_is_refused(world: World) -> None:
    for router in (
        [],
        {"x": 1},
        {"addresses": [1]},
        {"addresses": 5},
        {"mac": "no"},
        {"routes": [{"prefix": "10.0.0.0/8"}]},
    ):
        with pytest.raises(ValueError, match=r"."):
            world.switch.restore({"router": router})


def test_a_static_neighbour_cannot_be_moved_and_flushing_leaves_it(world: World) -> None:
    world.verb("neigh.add", address="10.0.2.10", mac=C_MAC)
    world.introduce(B, B_MAC, "10.0.2.10")
    assert world.send(A, from_a(world) / UDP())[C][0].dst == C_MAC
    assert world.verb("neigh.flush") == {"removed": 3}
    assert [row["address"] for row in world.verb("neigh.list")] == ["10.0.2.10"]
    world.verb("neigh.remove", address="10.0.2.10")
    assert world.verb("neigh.list") == []


def test_without_its_address_the_router_is_a_switch(world: World) -> None:
    for row in world.verb("address.list"):
        world.verb("address.remove", address=row["address"])
    got = world.send(A, Ether(src=A_MAC, dst=ALL) / ARP(hwsrc=A_MAC, psrc="10.0.1.10", pdst="10.0.1.1"))
    assert sorted(got) == [B, C]


@pytest.mark.parametrize(
    "name, arguments, number",
    [
        ("address.add", {}, errno.EINVAL),
        ("address.add", {"address": 5}, errno.EINVAL),
        ("address.add", {"address": "10.0.3.1"}, errno.EINVAL),
        ("address.add", {"address": "10.0.3.0/24"}, errno.EINVAL),
        ("address.add", {"address": "10.0.3.255/24"}, errno.EINVAL),
        ("address.add", {"address": "10.0.3.1/33"}, errno.EINVAL),
        ("address.add", {"address": "224.0.0.1/24"}, errno.EINVAL),
        ("address.add", {"address": "fe80::1/64"}, errno.EINVAL),
        ("address.add", {"address": "fe80::1%eth0/64"}, errno.EINVAL),
        ("address.add", {"address": "10.0.3.1/24", "vlan": 4095}, errno.EINVAL),
        ("address.add", {"address": "10.0.3.1/24", "vlan": True}, errno.EINVAL),
        ("address.add", {"address": "10.0.3.1/24", "colour": 1}, errno.EINVAL),
        ("address.add", {"address": "10.0.1.1/24"}, errno.EEXIST),
        ("address.add", {"address": "10.0.1.2/16", "vlan": 5}, errno.EINVAL),
        ("address.remove", {"address": "10.0.9.1"}, errno.ENOENT),
        ("route.add", {"prefix": "10.9.0.0/16"}, errno.EINVAL),
        ("route.add", {"prefix": "10.9.0.1/16", "via": "10.0.1.9"}, errno.EINVAL),
        ("route.add", {"prefix": "10.9.0.0/16", "via": "10.0.1.1"}, errno.EINVAL),
        ("route.add", {"prefix": "10.9.0.0/16", "via": "10.8.1.1"}, errno.EINVAL),
        ("route.add", {"prefix": "10.9.0.0/16", "via": "fd00:1::9"}, errno.EINVAL),
        ("route.add", {"prefix": "10.0.1.0/24", "via": "10.0.2.9"}, errno.EEXIST),
        ("route.remove", {"prefix": "10.0.1.0/24"}, errno.ENOENT),
        ("neigh.add", {"address": "10.0.1.9", "mac": "01:00:5e:00:00:01"}, errno.EINVAL),
        ("neigh.add", {"address": "10.7.1.9", "mac": A_MAC}, errno.EINVAL),
        ("neigh.add", {"address": "10.0.1.1", "mac": A_MAC}, errno.EINVAL),
        ("neigh.remove", {"address": "10.0.1.99"}, errno.ENOENT),
        ("router.set", {"mac": "00:00:00:00:00:00"}, errno.EINVAL),
        ("router.set", {"advertise": 1}, errno.EINVAL),
        ("router.set", {"mtu": -1}, errno.EINVAL),
    ],
)
def test_a_wrong_argument_is_refused_with_a_sentence(
    world: World, name: str, arguments: dict[str, Any], number: int
) -> None:
    before = world.switch.state()
    with pytest.raises(OSError, match=r".") as refused:
        world.verb(name, **arguments)
    assert refused.value.errno == number
    assert len(str(refused.value)) > 20
    assert world.switch.state() == before


def test_what_changes_something_needs_the_right_to_manage() -> None:
    changing = {"add", "remove", "flush", "set"}
    for name, (_, manages) in L3Switch.verbs.items():
        assert manages == (name.split(".")[1] in changing), name
