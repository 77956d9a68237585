"""The outcome of a call that a signal ended: who gets it."""

from __future__ import annotations

import attrs

from ipnctl.programs.outcome import Outcome, Untold


@attrs.frozen
class Call:
    number: int
    arguments: tuple[int, ...]


def test_the_same_call_on_the_same_socket_is_that_call_made_again() -> None:
    untold = Untold(Call(42, (3, 0x1000, 110)), 7, Outcome(0))
    assert untold.is_repeated(Call(42, (3, 0x1000, 110)), 7)


def test_another_call_other_arguments_or_another_socket_is_another_call() -> None:
    untold = Untold(Call(42, (3, 0x1000, 110)), 7, Outcome(0))
    assert not untold.is_repeated(Call(49, (3, 0x1000, 110)), 7)
    assert not untold.is_repeated(Call(42, (3, 0x1000, 16)), 7)
    assert not untold.is_repeated(Call(42, (3, 0x1000, 110)), 8)
