from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP

from ipnd.policies.routing import arp
from ipnd.policies.routing.packet import Discard

REQUEST = ARP(op=1, hwsrc="02:00:00:00:00:01", psrc="10.0.0.1", hwdst="00:00:00:00:00:00", pdst="10.0.0.2")


def test_a_message_is_read_and_written_as_scapy_does() -> None:
    message = arp.decode(bytes(REQUEST) + bytes(18))
    assert message == arp.Arp(1, bytes.fromhex("020000000001"), bytes([10, 0, 0, 1]), bytes(6), bytes([10, 0, 0, 2]))
    assert arp.encode(message) == bytes(REQUEST)


def test_a_message_cut_anywhere_is_refused() -> None:
    for length in range(28):
        with pytest.raises(Discard, match="arp truncated"):
            arp.decode(bytes(REQUEST)[:length])


@pytest.mark.parametrize("fields", [{"hwtype": 6}, {"ptype": 0x86DD}, {"hwlen": 8}, {"plen": 16}, {"op": 9}])
def test_what_is_about_other_addresses_or_asks_other_things_is_left_alone(fields: dict[str, int]) -> None:
    assert arp.decode(bytes(REQUEST)[:0] + bytes(ARP(**{"hwsrc": "02:00:00:00:00:01", **fields}))) is None


@pytest.mark.parametrize(
    "fields", [{"hwsrc": "01:00:5e:00:00:01"}, {"hwsrc": "00:00:00:00:00:00"}, {"psrc": "224.0.0.1"}]
)
def test_a_sender_that_can_be_none_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(Discard, match="arp sender malformed"):
        arp.decode(bytes(ARP(**{"hwsrc": "02:00:00:00:00:01", "psrc": "10.0.0.1", **fields})))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_refused(block: bytes) -> None:
    with contextlib.suppress(Discard):
        arp.decode(block)
