from __future__ import annotations

import contextlib
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.packet import Packet, Raw

from ipnd.policies.routing import ipv6, ndp
from ipnd.policies.routing.packet import Discard

MAC = bytes.fromhex("020000000001")
A, B = IPv6Address("fd00::1").packed, IPv6Address("fd00::2").packed
GROUP = ipv6.solicited(B)


def ours(packet: Packet) -> ndp.Discovery | None:
    return ndp.decode(ipv6.decode(bytes(packet)))


def header(**fields: Any) -> Packet:
    return IPv6(**{"src": "fd00::1", "dst": "fd00::2", "hlim": 255, **fields})


def test_a_solicitation_is_as_scapy_writes_it() -> None:
    theirs = header(dst="ff02::1:ff00:2") / ICMPv6ND_NS(tgt="fd00::2") / ICMPv6NDOptSrcLLAddr(lladdr=MAC.hex(":"))
    assert ndp.neighbour_solicitation(A, GROUP, B, MAC) == bytes(theirs)
    assert ours(theirs) == ndp.Discovery(ndp.NEIGHBOUR_SOLICITATION, B, MAC)


def test_an_advertisement_is_as_scapy_writes_it() -> None:
    theirs = header() / ICMPv6ND_NA(tgt="fd00::1", R=1, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=MAC.hex(":"))
    flags = ndp.IS_ROUTER | ndp.SOLICITED | ndp.OVERRIDE
    assert ndp.neighbour_advertisement(A, B, A, MAC, flags) == bytes(theirs)
    assert ours(theirs) == ndp.Discovery(ndp.NEIGHBOUR_ADVERTISEMENT, A, MAC, flags)


def test_a_router_advertisement_is_as_scapy_writes_it() -> None:
    theirs = (
        header(dst="ff02::1")
        / ICMPv6ND_RA(chlim=64, routerlifetime=1800, prf=0)
        / ICMPv6NDOptSrcLLAddr(lladdr=MAC.hex(":"))
        / ICMPv6NDOptMTU(mtu=1500)
        / ICMPv6NDOptPrefixInfo(prefix="fd00::", prefixlen=64, validlifetime=86400, preferredlifetime=14400)
        / ICMPv6NDOptPrefixInfo(prefix="fd01::", prefixlen=48, A=0, validlifetime=86400, preferredlifetime=14400)
    )
    prefixes = [(IPv6Address("fd00::").packed, 64), (IPv6Address("fd01::").packed, 48)]
    assert ndp.router_advertisement(A, ipv6.ALL_NODES, MAC, 1500, prefixes) == bytes(theirs)


@pytest.mark.parametrize(
    "packet, reason",
    [
        (header(hlim=254) / ICMPv6ND_NS(tgt="fd00::2"), "nd hop limit wrong"),
        (header() / ICMPv6ND_NS(tgt="fd00::2", cksum=1), "icmp checksum wrong"),
        (header() / ICMPv6ND_NS(tgt="fd00::2", code=1), "nd malformed"),
        (header() / ICMPv6ND_NS(tgt="ff02::2"), "nd malformed"),
        (header(dst="ff02::1") / ICMPv6ND_NA(tgt="fd00::2", S=1), "nd malformed"),
        (header(src="::") / ICMPv6ND_NS(tgt="fd00::2") / ICMPv6NDOptSrcLLAddr(lladdr=MAC.hex(":")), "nd malformed"),
        (header() / ICMPv6ND_NS(tgt="fd00::2") / ICMPv6NDOptSrcLLAddr(lladdr="01:00:00:00:00:01"), "nd malformed"),
        (header() / ICMPv6ND_NS(tgt="fd00::2") / Raw(b"\1\0" + bytes(6)), "nd options malformed"),
        (header() / ICMPv6ND_NS(tgt="fd00::2") / Raw(b"\1\2" + bytes(6)), "nd options malformed"),
        (header() / ICMPv6ND_NS(tgt="fd00::2") / Raw(b"\1"), "nd options malformed"),
    ],
)
def test_what_is_not_valid_is_refused(packet: Packet, reason: str) -> None:
    with pytest.raises(Discard, match=reason):
        ours(packet)


@given(st.integers(133, 137), st.binary(max_size=60))
def test_any_message_is_read_or_refused(kind: int, body: bytes) -> None:
    message = ipv6.sealed(A, B, bytes([kind, 0, 0, 0]) + body)
    packet = ipv6.decode(ipv6.encode(A, B, ipv6.ICMP, message, 255))
    assert ndp.is_discovery(packet)
    with contextlib.suppress(Discard):
        ndp.decode(packet)
