"""Measuring side by side: cases of two or more sides, taken in turn A B A B, and what the rounds say together.

Pure. A *case* is a row: its name and, per side, a function that measures once and returns figures. The first side
is the base that the others are compared with, round by round, so that a machine that gets slower during the run
slows both down. A *bar* is a line of an issue's "Must reach".
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

Figures = Mapping[str, float]
Measure = Callable[[Any], Figures]
"""Measures one side once; its argument is whatever the caller of ``paired`` hands through."""


class MeasureError(Exception):
    """A measurement could not be taken: a process died or did not answer. Its text says which and why."""


@attrs.frozen
class Spread:
    """What a figure was over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        kept = list(values)
        return cls(statistics.median(kept), min(kept), max(kept))


@attrs.frozen
class Bar:
    """What ``figure`` of ``side`` must reach.

    ``of``: "value" (the median of the figure itself), "ratio" (the median of side / base per round) or "difference"
    (the median of side - base per round). Exactly one of ``at_least`` and ``at_most`` is given.
    """

    text: str
    side: str
    figure: str
    of: str = "value"
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def met(self, reached: float) -> bool:
        return (self.at_least is None or reached >= self.at_least) and (self.at_most is None or reached <= self.at_most)


@attrs.frozen
class Case:
    """One row: ``name`` (what --only selects), the ``section`` of the report it is in, its sides, its bars."""

    name: str
    section: str
    title: str
    sides: Mapping[str, Measure]
    bars: tuple[Bar, ...] = ()

    @property
    def base(self) -> str:
        return next(iter(self.sides))


@attrs.define
class Result:
    """The figures of a case: ``rounds[side][figure]`` has a value a round. ``failure``: why it was given up."""

    case: Case
    rounds: dict[str, dict[str, list[float]]] = attrs.field(factory=dict)
    failure: str = ""

    def add(self, side: str, figures: Figures) -> None:
        for figure, value in figures.items():
            self.rounds.setdefault(side, {}).setdefault(figure, []).append(value)

    def has(self, side: str, figure: str) -> bool:
        return figure in self.rounds.get(side, {})

    def spread(self, side: str, figure: str, of: str = "value") -> Spread:
        """Return the figure over the rounds: itself, or per round compared with the base side."""
        return Spread.of(COMPARISONS[of](*pair) for pair in self._pairs(side, figure))

    def _pairs(self, side: str, figure: str) -> Iterator[tuple[float, float]]:
        mine = self.rounds[side][figure]
        base = self.rounds.get(self.case.base, {}).get(figure, mine)
        return zip(mine, base, strict=True)


COMPARISONS: Final[Mapping[str, Callable[[float, float], float]]] = {
    "value": lambda mine, base: mine,
    "ratio": lambda mine, base: mine / base if base else float("inf"),
    "difference": lambda mine, base: mine - base,
}


@attrs.frozen
class Verdict:
    """A bar and what was reached."""

    bar: Bar
    reached: float

    @property
    def met(self) -> bool:
        return self.bar.met(self.reached)


def paired(
    cases: Iterable[Case], rounds: int, setup: Any, before: Callable[[Case, int, str], None]
) -> Iterator[Result]:
    """Measure each case ``rounds`` times, its sides in turn; yield its result when it is done.

    ``before`` is told (case, round from 1, side) ahead of each measurement. A ``MeasureError`` gives up its case.
    """
    for case in cases:
        result = Result(case)
        try:
            for number in range(1, rounds + 1):
                for side, measure in case.sides.items():
                    before(case, number, side)
                    result.add(side, measure(setup))
        except MeasureError as error:
            result.failure = f"round {number}, {side}: {error}"
        yield result


def verdicts(results: Iterable[Result]) -> list[Verdict]:
    """Return what was reached for each bar of the cases that were measured to the end."""
    return [
        Verdict(bar, result.spread(bar.side, bar.figure, bar.of).median)
        for result in results
        if not result.failure
        for bar in result.case.bars
    ]
