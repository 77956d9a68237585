from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet as Scapy
from scapy.packet import Raw

from ipnd.policies.routing import icmp, ipv4, ipv6
from ipnd.policies.routing.packet import Packet

R4, R6 = bytes([10, 0, 0, 254]), IPv6Address("fd00::ff").packed


def read(packet: Scapy) -> Packet:
    raw = bytes(packet)
    return ipv4.decode(raw) if raw[0] >> 4 == 4 else ipv6.decode(raw)


V4, V6 = IP(src="10.0.0.1", dst="10.0.1.1"), IPv6(src="fd00::1", dst="fd00:1::1")


def test_echoes_are_answered_as_scapy_would() -> None:
    answer = icmp.echo(read(V4 / ICMP(id=1, seq=2) / b"abc"))
    assert answer == bytes(IP(src="10.0.1.1", dst="10.0.0.1", id=0) / ICMP(type=0, id=1, seq=2) / b"abc")
    answer = icmp.echo(read(V6 / ICMPv6EchoRequest(id=1, seq=2, data=b"abc")))
    assert answer == bytes(IPv6(src="fd00:1::1", dst="fd00::1") / ICMPv6EchoReply(id=1, seq=2, data=b"abc"))


def test_errors_quote_the_packet_as_scapy_would() -> None:
    packet = read(V4 / UDP() / bytes(1000))
    told = icmp.error(icmp.TOO_BIG, R4, packet, 900)
    quoted = Raw(packet.raw[:548])
    assert told == bytes(IP(src="10.0.0.254", dst="10.0.0.1", id=0) / ICMP(type=3, code=4, nexthopmtu=900) / quoted)
    packet = read(V6 / UDP() / bytes(1400))
    quoted = Raw(packet.raw[:1232])
    told = icmp.error(icmp.TOO_BIG, R6, packet, 1300)
    assert told == bytes(IPv6(src="fd00::ff", dst="fd00::1") / ICMPv6PacketTooBig(mtu=1300) / quoted)
    told = icmp.error(icmp.NO_HOST, R6, packet)
    assert told == bytes(IPv6(src="fd00::ff", dst="fd00::1") / ICMPv6DestUnreach(code=3) / quoted)


@pytest.mark.parametrize(
    "packet, may",
    [
        (V4 / TCP(), True),
        (V4 / ICMP(type=8), True),
        (V4 / ICMP(type=0), True),
        (V4 / ICMP(type=3), False),
        (V4 / ICMP(type=5), False),
        (V4 / ICMP(type=11), False),
        (IP(frag=1) / Raw(bytes(20)), False),
        (V6 / UDP(), True),
        (V6 / ICMPv6EchoRequest(), True),
        (V6 / ICMPv6PacketTooBig(), False),
        (V6 / ICMPv6DestUnreach(), False),
    ],
)
def test_about_what_an_error_may_be_reported(packet: Scapy, may: bool) -> None:
    assert icmp.reportable(read(packet)) is may


def test_an_allowance_is_used_up_and_comes_back() -> None:
    allowance = icmp.Allowance(rate=10, burst=3)
    assert [allowance.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert allowance.take(100.125)
    assert not allowance.take(100.125)
    assert [allowance.take(500.0) for _ in range(4)] == [True, True, True, False]
