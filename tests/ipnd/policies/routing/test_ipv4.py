from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, defragment
from scapy.packet import Raw

from ipnd.policies.routing import ipv4
from ipnd.policies.routing.packet import Discard

A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 1, 1])


def reason(block: bytes) -> str:
    with pytest.raises(Discard) as refused:
        ipv4.decode(block)
    return refused.value.reason


@given(st.integers(0, 255), st.binary(max_size=100), st.integers(0, 255))
def test_what_is_written_is_what_scapy_writes(protocol: int, payload: bytes, hops: int) -> None:
    ours = ipv4.encode(A, B, protocol, payload, hops)
    assert ours == bytes(IP(src="10.0.0.1", dst="10.0.1.1", proto=protocol, ttl=hops, id=0, flags="DF") / Raw(payload))
    packet = ipv4.decode(ours + b"padding")
    assert (packet.source, packet.destination, packet.protocol, packet.hops) == (A, B, protocol, hops)
    assert (packet.payload, packet.raw, packet.whole, packet.fragment) == (payload, ours, True, False)


@given(st.integers(1, 255), st.integers(0, 255), st.integers(0, 0xFFFF))
def test_a_hop_leaves_the_checksum_right(hops: int, protocol: int, number: int) -> None:
    packet = bytes(IP(src="10.0.0.1", dst="10.0.1.1", ttl=hops, proto=protocol, id=number) / Raw(b"x"))
    assert ipv4.hop(packet) == bytes(
        IP(src="10.0.0.1", dst="10.0.1.1", ttl=hops - 1, proto=protocol, id=number) / Raw(b"x")
    )


def test_a_packet_cut_anywhere_is_refused() -> None:
    whole = ipv4.encode(A, B, 17, bytes(30))
    assert {reason(whole[:length]) for length in range(20)} == {"ip truncated"}
    assert {reason(whole[:length]) for length in range(20, 50)} == {"ip length wrong"}


def test_what_a_header_must_not_be() -> None:
    assert reason(bytes(IP(version=6))) == "ip version wrong"
    assert reason(bytes(IP(ihl=4))) == "ip length wrong"
    assert reason(bytes(IP(len=19))) == "ip length wrong"
    assert reason(bytes(IP(chksum=0x1234))) == "ip checksum wrong"
    assert reason(bytes(IP(options=b"\x01" * 4))) == "ip options"


@given(st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_refused(block: bytes) -> None:
    with contextlib.suppress(Discard):
        assert ipv4.decode(block).raw == block[: int.from_bytes(block[2:4], "big")]


@given(st.binary(min_size=1, max_size=3000), st.integers(28, 1500))
def test_fragments_fit_and_scapy_puts_them_together_again(payload: bytes, mtu: int) -> None:
    whole = bytes(IP(src="10.0.0.1", dst="10.0.1.1", proto=253, id=99, flags=0) / Raw(payload))
    parts = list(ipv4.cut(whole, mtu))
    assert all(len(part) <= mtu for part in parts)
    assert all(ipv4.decode(part).raw == part for part in parts)
    again = bytearray(len(payload))
    for part in parts:
        offset = int(IP(part).frag) * 8
        again[offset : offset + len(part) - 20] = part[20:]
    assert bytes(again) == payload
    if len(parts) > 1 and len(payload) < 400:
        (joined,) = defragment([IP(part) for part in parts])
        assert bytes(joined[IP].payload) == payload


def test_a_fragment_is_cut_into_fragments_of_the_whole() -> None:
    middle = bytes(IP(src="10.0.0.1", dst="10.0.1.1", flags="MF", frag=100) / Raw(bytes(800)))
    parts = [IP(part) for part in ipv4.cut(middle, 420)]
    assert [(int(part.frag), bool(part.flags.MF)) for part in parts] == [(100, True), (150, True)]
