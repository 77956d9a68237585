"""The greeting of the two ends of a cable: found among noise, for a while, and only in the right version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipn.greeting import GREETING, MAX_NOISE, GreetingDecoder, GreetingError


def test_what_comes_behind_the_greeting_is_handed_on() -> None:
    assert GreetingDecoder().feed(GREETING + b"\0\0\0\1x\nrest\n") == b"\0\0\0\1x\nrest\n"


def test_a_greeting_that_comes_byte_by_byte_is_complete_with_its_last_one() -> None:
    decoder = GreetingDecoder()
    assert [decoder.feed(bytes([byte])) for byte in GREETING] == [None] * (len(GREETING) - 1) + [b""]


def test_lines_before_it_are_skipped_and_the_last_one_is_kept_to_be_told() -> None:
    decoder = GreetingDecoder()
    assert decoder.feed(b"Welcome!\nYou have mail.\n\n") is None
    assert decoder.heard == "You have mail."
    assert decoder.feed(GREETING + b"x") == b"x"


def test_another_version_is_an_error_that_names_it() -> None:
    with pytest.raises(GreetingError, match="another version: 'ipn-cable 2'"):
        GreetingDecoder().feed(b"ipn-cable 2\n")


@pytest.mark.parametrize("noise", [b"x" * (MAX_NOISE + 1), b"noise\n" * (MAX_NOISE // 6 + 1)])
def test_noise_ends_somewhere(noise: bytes) -> None:
    decoder = GreetingDecoder()
    with pytest.raises(GreetingError, match="no cable of this kind"):
        for byte in noise:
            decoder.feed(bytes([byte]))


@given(st.binary(max_size=200), st.integers(0, 300))
def test_where_it_is_cut_does_not_matter(rest: bytes, cut: int) -> None:
    data = b"noise\n" + GREETING + rest
    decoder = GreetingDecoder()
    first = decoder.feed(data[:cut])
    assert (decoder.feed(data[cut:]) if first is None else first + data[cut:]) == rest
