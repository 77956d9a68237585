"""Cutting input into messages: the same whatever the pieces it comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnctl.cutting import Cutter, LineCutter, LineTooLong, SizeCutter


def cut(cutter: Cutter, data: bytes, step: int) -> list[bytes]:
    messages = []
    for start in range(0, len(data), step):
        messages += cutter.feed(data[start : start + step])
    return messages + cutter.flush()


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_size_cuts_full_messages_and_a_rest(step: int) -> None:
    assert cut(SizeCutter(4), b"abcdefghij", step) == [b"abcd", b"efgh", b"ij"]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_size_has_no_rest_when_it_comes_out_even(step: int) -> None:
    assert cut(SizeCutter(5), b"abcdefghij", step) == [b"abcde", b"fghij"]


@pytest.mark.parametrize("step", [1, 4, 1000])
def test_lines_lose_their_newline_and_nothing_else(step: int) -> None:
    cutter = LineCutter(100)
    assert cut(cutter, b"one\r\n\n two \n\nlast", step) == [b"one\r", b" two ", b"last"]
    assert cutter.empty == 2


@pytest.mark.parametrize("step", [1, 4, 1000])
def test_a_line_of_exactly_the_limit_fits(step: int) -> None:
    assert cut(LineCutter(4), b"abcd\nefgh", step) == [b"abcd", b"efgh"]


@pytest.mark.parametrize(
    ("data", "number"), [(b"one\n\nfive!\nsix\n", 3), (b"one\n\nfive!", 3), (b"a\nbb\nccc\nlonger", 4)]
)
def test_the_line_that_is_too_long_is_numbered_and_those_before_it_are_kept(data: bytes, number: int) -> None:
    with pytest.raises(LineTooLong) as caught:
        LineCutter(4).feed(data)
    assert caught.value.number == number
    assert caught.value.before == [line for line in data.split(b"\n")[: number - 1] if line]


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    cutter = LineCutter(4)
    cutter.feed(b"abcd")
    with pytest.raises(LineTooLong):
        cutter.feed(b"e")


@given(st.binary(max_size=200), st.integers(1, 40), st.integers(1, 60))
def test_sizes_put_together_are_the_input(data: bytes, size: int, step: int) -> None:
    messages = cut(SizeCutter(size), data, step)
    assert b"".join(messages) == data
    assert all(len(message) == size for message in messages[:-1])
    assert all(messages)


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))), st.integers(1, 60))
def test_lines_put_together_are_the_input_without_empty_lines(lines: list[bytes], step: int) -> None:
    assert cut(LineCutter(20), b"".join(line + b"\n" for line in lines), step) == [line for line in lines if line]


def test_pending_tells_of_an_unfinished_message() -> None:
    for cutter in (SizeCutter(3), LineCutter(3)):
        assert not cutter.pending
        cutter.feed(b"ab")
        assert cutter.pending
        cutter.flush()
        assert not cutter.pending
