"""What becomes of the frames of an impaired line: decided by the seed and their order, and never out of bounds."""

from __future__ import annotations

import errno
import struct
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.plane import impairment
from ipnd.plane.impairment import LINE_NS, MAX_BYTES, MAX_FRAMES, NS_PER_MS, Impairment, Shaper

FOREVER = 1 << 62
SECOND = 1_000_000_000

PERCENTS = st.sampled_from([0, 1, 20.5, 50, 100])
TRAFFIC = st.lists(st.tuples(st.integers(0, 3 * NS_PER_MS), st.integers(8, 300)), max_size=60)
"""For each frame: how long after the one before it comes, in ns, and its bytes."""


@st.composite
def impairments(draw: st.DrawFn, **fixed: Any) -> Impairment:
    """Draw settings that make sense, at rates at which no line is busy for a second to come."""
    delay = draw(st.sampled_from([0, 0.5, 10, 60]))
    drawn = {
        "delay_ms": delay,
        "jitter_ms": draw(st.sampled_from([0, delay / 2, delay])),
        "loss": draw(PERCENTS),
        "rate": draw(st.sampled_from([0, 1_000_000, 50_000_000])),
        "duplicate": draw(PERCENTS),
        "reorder": draw(PERCENTS) if delay else 0,
        "seed": draw(st.integers(0, 5)),
    }
    return Impairment(**{**drawn, **fixed})


def frame(number: int, size: int = 8) -> bytes:
    """Return a frame of ``size`` bytes behind its length."""
    return struct.pack(">IQ", size, number) + bytes(size - 8)


def number_of(data: bytes) -> int:
    return int.from_bytes(data[4:12], "big")


def admitted(shaper: Shaper, traffic: list[tuple[int, int]]) -> list[int]:
    """Let frames come; return when each came."""
    now, came = 5 * SECOND, []
    for number, (gap, size) in enumerate(traffic):
        now += gap
        came.append(now)
        shaper.admit(frame(number, size), now)
    return came


def passed(settings: Impairment, traffic: list[tuple[int, int]]) -> list[int]:
    """Return the numbers of the frames that get through, in their order."""
    shaper = Shaper(settings)
    admitted(shaper, traffic)
    return [number_of(data) for data, _ in shaper.take_all()]


def numbers(count: int) -> list[tuple[int, int]]:
    return [(1000, 8)] * count


# -- decisions ---------------------------------------------------------------------------------------------------------


@given(impairments(), TRAFFIC, st.lists(st.integers(0, 9 * NS_PER_MS), min_size=60, max_size=60))
def test_the_clock_decides_nothing(settings: Impairment, traffic: list[tuple[int, int]], gaps: list[int]) -> None:
    otherwise = [(gap, size) for gap, (_, size) in zip(gaps, traffic, strict=False)]
    assert sorted(passed(settings, traffic)) == sorted(passed(settings, otherwise))


@given(impairments(), impairments(), TRAFFIC)
def test_a_setting_does_not_shift_what_others_decide(
    one: Impairment, other: Impairment, traffic: list[tuple[int, int]]
) -> None:
    other = attrs.evolve(other, seed=one.seed, loss=one.loss)
    assert set(passed(one, traffic)) == set(passed(other, traffic))


@given(impairments(), TRAFFIC)
def test_every_frame_is_accounted_for(settings: Impairment, traffic: list[tuple[int, int]]) -> None:
    shaper = Shaper(settings)
    admitted(shaper, traffic)
    shown = shaper.show()
    assert shown["overflowed"] == 0
    assert shown["waiting"] == len(shaper) == len(traffic) - shown["lost"] + shown["duplicated"]
    assert len(shaper.due(FOREVER)) == shown["waiting"]
    assert len(shaper) == shaper.size == 0


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, 1000),
        ({"loss": 100}, 0),
        ({"duplicate": 100}, 2000),
        ({"loss": 100, "duplicate": 100}, 0),
    ],
)
def test_none_and_all_are_exact(settings: dict[str, Any], expected: int) -> None:
    assert len(passed(Impairment(**settings), numbers(1000))) == expected


@pytest.mark.parametrize("seed", range(5))
def test_so_many_per_cent_are_about_so_many(seed: int) -> None:
    count = 20_000  # three standard deviations of 10 % are 0.6 %
    shaper = Shaper(Impairment(delay_ms=1, loss=10, duplicate=10, reorder=10, seed=seed))
    for number in range(count):
        shaper.admit(frame(number), number)
        shaper.due(number)
        if len(shaper) > MAX_FRAMES - 2:
            shaper.take_all()
    assert shaper.lost / count == pytest.approx(0.1, abs=0.01)
    assert shaper.duplicated / (count - shaper.lost) == pytest.approx(0.1, abs=0.01)
    assert shaper.reordered / (count - shaper.lost + shaper.duplicated) == pytest.approx(0.1, abs=0.01)


def test_the_same_seed_decides_alike_and_another_seed_or_direction_otherwise() -> None:
    def lost(seed: int, stream: str) -> set[int]:
        shaper = Shaper(Impairment(loss=30, seed=seed), stream)
        admitted(shaper, numbers(200))
        return set(range(200)) - {number_of(data) for data, _ in shaper.take_all()}

    assert lost(1, "in") == lost(1, "in")
    assert len({frozenset(lost(seed, stream)) for seed in (1, 2) for stream in ("in", "out")}) == 4


def test_a_seed_stands_for_the_same_losses_for_ever() -> None:
    kept = passed(Impairment(loss=50, seed=42), numbers(24))
    assert kept == [0, 1, 4, 6, 7, 11, 12, 16, 19, 20, 21, 22]


# -- order and time ----------------------------------------------------------------------------------------------------


@given(impairments(reorder=0), TRAFFIC)
def test_frames_keep_their_order_whatever_the_jitter(settings: Impairment, traffic: list[tuple[int, int]]) -> None:
    order = passed(settings, traffic)
    assert order == sorted(order)


@given(impairments(), TRAFFIC, st.lists(st.integers(1, 20 * NS_PER_MS), min_size=1, max_size=20), st.integers(1, 900))
def test_however_often_one_looks_the_order_is_the_same(
    settings: Impairment, traffic: list[tuple[int, int]], steps: list[int], most: int
) -> None:
    shaper = Shaper(settings)
    admitted(shaper, traffic)
    seen, now = [], 5 * SECOND
    for step in steps:
        now += step
        while found := shaper.due(now, most):
            assert sum(len(data) for data, _ in found[:-1]) < most
            seen += [number_of(data) for data, _ in found]
        at = shaper.next_at()
        assert at is None or at > now
    assert seen + [number_of(data) for data, _ in shaper.due(FOREVER)] == passed(settings, traffic)


@given(impairments(reorder=0, rate=0, loss=0, duplicate=0), TRAFFIC)
def test_no_frame_comes_early_or_later_than_the_jitter_allows(
    settings: Impairment, traffic: list[tuple[int, int]]
) -> None:
    shaper = Shaper(settings)
    came = admitted(shaper, traffic)
    latest = 0
    for at in came:
        due = shaper.next_at()
        assert due is not None
        low, high = (settings.delay_ms + sign * settings.jitter_ms for sign in (-1, 1))
        latest = max(latest, at + round(high * NS_PER_MS))
        assert at + round(low * NS_PER_MS) <= due <= latest
        assert len(shaper.due(due, 1)) == 1


def test_jitter_spreads_over_its_whole_range() -> None:
    shaper, spread = Shaper(Impairment(delay_ms=10, jitter_ms=5)), []
    for number in range(1000):
        shaper.admit(frame(number), number * SECOND)
        spread.append((shaper.next_at() or 0) - number * SECOND)
        shaper.take_all()
    assert 5 * NS_PER_MS <= min(spread) < 5.1 * NS_PER_MS
    assert 14.9 * NS_PER_MS < max(spread) <= 15 * NS_PER_MS


@given(st.integers(1, 40), st.integers(8, 2000), st.sampled_from([1_000_000, 10_000_000]))
def test_a_line_takes_its_time_for_each_frame_and_no_more(count: int, size: int, rate: int) -> None:
    shaper = Shaper(Impairment(rate=rate, delay_ms=7))
    for number in range(count):
        shaper.admit(frame(number, size), 0)
    each = size * 8 * SECOND // rate
    for number in range(1, count + 1):
        assert shaper.next_at() == number * each + 7 * NS_PER_MS
        shaper.due(number * each + 7 * NS_PER_MS)
    later = 100 * SECOND
    shaper.admit(frame(0, size), later)
    assert shaper.next_at() == later + each + 7 * NS_PER_MS, "an idle line saves nothing up"


def test_reordered_frames_get_ahead_of_those_that_wait_and_of_no_others() -> None:
    settings = Impairment(delay_ms=10, reorder=30, seed=3)
    shaper = Shaper(settings)
    admitted(shaper, numbers(100))
    order = [number_of(data) for data, _ in shaper.take_all()]
    ahead = order[: shaper.reordered]
    assert 15 < len(ahead) < 45
    assert order == ahead + [number for number in range(100) if number not in ahead]
    assert ahead == sorted(ahead)
    alone = Shaper(settings)
    for number in range(100):
        alone.admit(frame(number), number * SECOND)
        alone.due(number * SECOND + 10 * NS_PER_MS)
    assert alone.reordered == 0, "there was nobody to overtake"


def test_the_depth_of_a_frame_comes_back_with_it() -> None:
    shaper = Shaper(Impairment(duplicate=100))
    shaper.admit(frame(1), 0, 5)
    assert shaper.due(0) == [(frame(1), 5)] * 2


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_too_many_frames_are_dropped_the_newest_first_and_counted() -> None:
    shaper = Shaper(Impairment(delay_ms=10))
    for number in range(MAX_FRAMES + 10):
        shaper.admit(frame(number), number)
    assert (len(shaper), shaper.overflowed) == (MAX_FRAMES, 10)
    assert number_of(shaper.take_all()[-1][0]) == MAX_FRAMES - 1


def test_too_many_bytes_are_dropped_but_a_single_frame_always_fits() -> None:
    shaper = Shaper(Impairment(delay_ms=10))
    shaper.admit(frame(0, MAX_BYTES), 0)
    shaper.admit(frame(1), 0)
    assert (len(shaper), shaper.overflowed) == (1, 1)
    assert shaper.due(FOREVER)
    shaper.admit(frame(2), 0)
    assert (len(shaper), shaper.overflowed) == (1, 1)


def test_a_line_that_is_busy_for_long_takes_no_more_until_it_is_not() -> None:
    shaper = Shaper(Impairment(rate=8000))  # a thousand bytes a second
    for number in range(30):
        shaper.admit(frame(number, 100), 0)
    assert (len(shaper), shaper.overflowed) == (11, 19)
    assert shaper.full(0)
    assert not shaper.full(11 * SECOND // 10 - LINE_NS)


def test_what_overflows_shifts_no_later_decision() -> None:
    free, busy = Shaper(Impairment(loss=50)), Shaper(Impairment(loss=50, rate=8000))
    for number in range(100):
        free.admit(frame(number, 100), 0)
        busy.admit(frame(number, 100), 0)
    free.take_all(), busy.take_all()
    for number in range(100):
        free.admit(frame(number, 100), 100 * SECOND)
        busy.admit(frame(number, 100), (100 + number) * SECOND)
    assert busy.overflowed > 0
    assert sorted(free.take_all()) == sorted(busy.take_all())


def test_one_that_is_not_bounded_takes_all_and_says_that_it_is_full() -> None:
    shaper = Shaper(Impairment(delay_ms=10), bounded=False)
    for number in range(MAX_FRAMES):
        assert not shaper.full(0)
        shaper.admit(frame(number), 0)
    assert shaper.full(0)
    shaper.admit(frame(0), 0)
    assert (len(shaper), shaper.overflowed) == (MAX_FRAMES + 1, 0)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"loss": 101}, "'loss' of an impairment must be from 0 to 100 %"),
        ({"loss": -1}, "'loss' of an impairment must be from 0 to 100 %"),
        ({"duplicate": float("nan")}, "'duplicate' of an impairment must be from 0 to 100 %"),
        ({"delay_ms": 60_001}, "'delay_ms' of an impairment must be from 0 to 60000 ms"),
        ({"delay_ms": float("inf")}, "'delay_ms' of an impairment must be from 0 to 60000 ms"),
        ({"jitter_ms": 10**400}, "'jitter_ms' of an impairment must be from 0 to 60000 ms"),
        ({"rate": 10**13}, "'rate' of an impairment must be from 0 to 1000000000000 bit/s"),
        ({"rate": 1.5}, "'rate' of an impairment must be an integer, not float"),
        ({"seed": "x"}, "'seed' of an impairment must be an integer, not str"),
        ({"seed": -1}, "'seed' of an impairment must be from 0 to 4294967295"),
        ({"loss": True}, "'loss' of an impairment must be a number, not bool"),
        ({"loss": None}, "'loss' of an impairment must be a number, not NoneType"),
        ({"delay_ms": 5, "jitter_ms": 6}, "a jitter of 6 ms needs a delay of at least as much, not 5 ms"),
        ({"reorder": 5}, "reorder needs a delay"),
        ({"weather": 5}, "an impairment has no 'weather'; it has delay_ms, jitter_ms"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_words(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(OSError, match=r"impairment|jitter|reorder") as refused:
        Impairment.decode(settings, 0)
    assert refused.value.errno == errno.EINVAL
    assert str(refused.value.strerror).startswith(words)


def test_settings_are_taken_by_name_and_the_seed_where_none_is_given() -> None:
    assert Impairment.decode({"loss": 1, "delay_ms": 2.5}, 7) == Impairment(loss=1, delay_ms=2.5, seed=7)
    assert Impairment.decode({"seed": 1}, 7).seed == 1


def test_only_a_seed_impairs_nothing() -> None:
    assert Impairment(seed=5).nothing
    assert not Impairment(loss=0.1).nothing


def test_each_setting_has_its_bound() -> None:
    assert set(impairment.HIGHEST) == {field.name for field in attrs.fields(Impairment)}
