from __future__ import annotations

import contextlib
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, in6_getnsma, in6_getnsmac
from scapy.packet import Raw
from scapy.utils6 import in6_mactoifaceid

from ipnd.policies.routing import ipv6
from ipnd.policies.routing.packet import Discard

A, B = IPv6Address("fd00::1").packed, IPv6Address("fd00:1::1").packed


@given(st.binary(max_size=100), st.integers(0, 255))
def test_what_is_written_is_what_scapy_writes(payload: bytes, hops: int) -> None:
    ours = ipv6.encode(A, B, 253, payload, hops)
    assert ours == bytes(IPv6(src="fd00::1", dst="fd00:1::1", nh=253, hlim=hops) / Raw(payload))
    packet = ipv6.decode(ours + b"padding")
    assert (packet.source, packet.destination, packet.hops, packet.payload) == (A, B, hops, payload)
    if hops:
        assert ipv6.hop(ours) == ipv6.encode(A, B, 253, payload, hops - 1)


def test_a_packet_cut_anywhere_is_refused() -> None:
    whole = ipv6.encode(A, B, 17, bytes(30))
    for length in range(len(whole)):
        with pytest.raises(Discard, match="ip truncated" if length < 40 else "ip length wrong"):
            ipv6.decode(whole[:length])
    with pytest.raises(Discard, match="ip version wrong"):
        ipv6.decode(b"\x45" + whole[1:])


def test_a_later_fragment_is_known_as_such() -> None:
    first, later = (ipv6.decode(bytes(IPv6() / IPv6ExtHdrFragment(offset=n, m=1) / Raw(bytes(8)))) for n in (0, 7))
    assert (first.fragment, first.later) == (True, False)
    assert (later.fragment, later.later) == (True, True)


@given(st.binary(max_size=90))
def test_any_bytes_are_a_packet_or_refused(block: bytes) -> None:
    with contextlib.suppress(Discard):
        assert block.startswith(ipv6.decode(block).raw)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=6, max_size=6))
def test_groups_and_link_local_addresses_are_those_of_scapy(address: bytes, mac: bytes) -> None:
    group = ipv6.solicited(address)
    assert group == in6_getnsma(address)
    assert ipv6.group_mac(group).hex(":") == in6_getnsmac(group)
    interface = in6_mactoifaceid(mac.hex(":")).lower()
    assert ipv6.from_mac(mac) == IPv6Address("fe80::" + interface).packed
