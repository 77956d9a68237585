"""Addresses and tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.policies.ethernet import (
    format_mac,
    is_group,
    is_reserved,
    parse_mac,
    pop_tag,
    push_tag,
    set_vid,
    tag_edit,
    tag_vid,
)

PLAIN = bytes.fromhex("ffffffffffff 020000000001 0800") + b"payload"


@pytest.mark.parametrize("text", ["02:00:5e:10:00:01", "02-00-5E-10-00-01", "2:0:5e:10:0:1"])
def test_an_address_is_read_in_the_usual_spellings(text: str) -> None:
    assert format_mac(parse_mac(text)) == "02:00:5e:10:00:01"


@pytest.mark.parametrize(
    "text", ["", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "02:00:5e:10:00:0g", "02005e100001", "\u0661:0:0:0:0:0"]
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="02:00:5e:10:00:01"):
        parse_mac(text)


@given(st.binary(min_size=6, max_size=6))
def test_every_address_is_read_back_from_its_text(mac: bytes) -> None:
    assert parse_mac(format_mac(mac)) == mac


def test_group_and_reserved_addresses_are_known() -> None:
    assert is_group(parse_mac("ff:ff:ff:ff:ff:ff"))
    assert is_group(parse_mac("01:00:5e:00:00:01"))
    assert not is_group(parse_mac("02:00:00:00:00:01"))
    assert [is_reserved(parse_mac(f"01:80:c2:00:00:{last}")) for last in ("00", "0f", "10")] == [True, True, False]


@given(st.integers(1, 4094), st.binary(min_size=14, max_size=80))
def test_a_tag_put_in_is_read_and_taken_out_again(vid: int, frame: bytes) -> None:
    tagged = push_tag(vid)(frame)
    assert tagged[:12] == frame[:12]
    assert tagged[12:14] == b"\x81\x00"
    assert tag_vid(tagged) == vid
    assert pop_tag(tagged) == frame


def test_another_vlan_leaves_priority_drop_bit_and_payload() -> None:
    tagged = PLAIN[:12] + bytes.fromhex("8100 b000") + PLAIN[12:]
    assert set_vid(0xABC)(tagged) == PLAIN[:12] + bytes.fromhex("8100 babc") + PLAIN[12:]


def test_only_the_outer_of_two_tags_is_touched() -> None:
    double = push_tag(10)(push_tag(20)(PLAIN))
    assert tag_vid(double) == 10
    assert pop_tag(double) == push_tag(20)(PLAIN)
    assert set_vid(30)(double) == push_tag(30)(push_tag(20)(PLAIN))


def test_equal_edits_are_the_same_object_so_that_decisions_share_them() -> None:
    assert push_tag(10) is push_tag(10)
    assert set_vid(10) is set_vid(10)


@pytest.mark.parametrize(
    "tag, tagged, expected",
    [
        (None, False, None),
        (None, True, push_tag(7)),
        (7, True, None),
        (7, False, pop_tag),
        (0, True, set_vid(7)),
        (0, False, pop_tag),
    ],
)
def test_the_edit_follows_from_how_the_frame_came_and_goes(tag: int | None, tagged: bool, expected: object) -> None:
    frame = PLAIN if tag is None else push_tag(tag)(PLAIN)
    assert tag_edit(frame[:18], 14 if tag is None else 18, 7, tagged) is expected
