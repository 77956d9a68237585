"""VXLAN's header: as RFC 7348 draws it, and nothing read from what is too short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.cables.vxlan_header import HEADER, HeaderError, decode_header, encode_header

vnis = st.integers(0, (1 << 24) - 1)


def test_a_header_is_the_i_flag_and_the_vni_and_nothing_else() -> None:
    assert encode_header(0x123456) == bytes.fromhex("08000000 12345600")
    assert encode_header(0) == bytes.fromhex("08000000 00000000")


@given(vnis, st.binary(max_size=40))
def test_the_vni_that_goes_in_comes_out_whatever_follows(vni: int, frame: bytes) -> None:
    datagram = encode_header(vni) + frame
    assert decode_header(datagram, len(datagram)) == vni


@given(st.binary(min_size=8, max_size=8), vnis)
def test_reserved_bits_change_nothing(noise: bytes, vni: int) -> None:
    clean = int.from_bytes(encode_header(vni), "big")
    reserved = 0xF7FFFFFF_000000FF & int.from_bytes(noise, "big")
    assert decode_header((clean | reserved).to_bytes(8, "big"), 8) == vni


@given(st.binary(min_size=8, max_size=64))
def test_without_the_i_flag_there_is_no_vni(data: bytes) -> None:
    datagram = bytes([data[0] & ~0x08 & 0xFF]) + data[1:]
    with pytest.raises(HeaderError, match="I flag"):
        decode_header(datagram, len(datagram))


@pytest.mark.parametrize("size", range(HEADER.size))
def test_what_is_shorter_than_a_header_is_not_read_even_where_an_older_one_lies(size: int) -> None:
    with pytest.raises(HeaderError, match="shorter"):
        decode_header(encode_header(7), size)
