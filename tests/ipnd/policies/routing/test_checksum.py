from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum as scapy_checksum

from ipnd.policies.routing.checksum import checksum, fold, right, update

WORDS = st.integers(0, 0xFFFF)


@given(st.binary(max_size=200))
def test_it_is_what_scapy_computes(block: bytes) -> None:
    assert checksum(block) == scapy_checksum(block)


def test_only_zeros_add_up_to_zero() -> None:
    assert fold(b"") == fold(bytes(20)) == 0
    assert fold(b"\xff\xff") == fold(b"\x80\x00\x7f\xff") == fold(b"\xff\xff\0\0\xff\xff") == 0xFFFF


@given(st.binary(min_size=2, max_size=60).filter(lambda block: len(block) % 2 == 0))
def test_a_block_with_its_checksum_is_right_and_with_another_it_is_not(block: bytes) -> None:
    value = checksum(block)
    assert right(block + value.to_bytes(2, "big"))
    assert not right(block + (value ^ 1).to_bytes(2, "big"))


@given(st.lists(WORDS, min_size=3, max_size=20), st.data())
def test_an_update_gives_what_a_new_sum_would(words: list[int], data: st.DataObject) -> None:
    words[0] = words[0] or 1  # an IP header is never all zero
    place = data.draw(st.integers(1, len(words) - 1))
    becomes = data.draw(WORDS)
    before = b"".join(word.to_bytes(2, "big") for word in words)
    was, words[place] = words[place], becomes
    after = b"".join(word.to_bytes(2, "big") for word in words)
    assert update(checksum(before), was, becomes) == checksum(after)
