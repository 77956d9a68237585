"""The loop guard and the token bucket by themselves."""

from __future__ import annotations

import pytest

from ipnd.policies.guard import FLAPS_KEPT, LoopGuard, TokenBucket

KEY = (0, bytes([2, 0, 0, 0, 0, 1]))


def flapping(guard: LoopGuard, times: int, every: float, ports: tuple[int, int] = (1, 2)) -> list[int | None]:
    return [guard.moved(KEY, *(ports if n % 2 else ports[::-1]), n * every, 3, 5.0) for n in range(times)]


def guard_with(*ports: int) -> LoopGuard:
    guard = LoopGuard()
    for port in ports:
        guard.join(port)
    return guard


@pytest.mark.parametrize("joined, younger", [((1, 2), 2), ((2, 1), 1)])
def test_one_move_too_many_names_the_port_that_joined_later(joined: tuple[int, int], younger: int) -> None:
    assert flapping(guard_with(*joined), 4, 1.0) == [None, None, None, younger]


def test_moves_that_take_their_time_are_no_loop() -> None:
    assert set(flapping(guard_with(1, 2), 50, 2.0)) == {None}


def test_moves_between_changing_ports_are_counted_for_each_pair() -> None:
    guard = guard_with(1, 2, 3)
    answers = [guard.moved(KEY, *pair, 0.1 * n, 3, 5.0) for n, pair in enumerate([(1, 2), (2, 3), (3, 1)] * 3)]
    assert set(answers) == {None}


def test_no_moves_allowed_means_no_guard() -> None:
    guard = guard_with(1, 2)
    assert all(guard.moved(KEY, 1, 2, 0.0, 0, 5.0) is None for _ in range(100))


def test_memory_for_flapping_addresses_is_bounded() -> None:
    guard = guard_with(1, 2)
    for n in range(2 * FLAPS_KEPT):
        guard.moved((0, n.to_bytes(6, "big")), 1, 2, 0.0, 3, 5.0)
    assert len(guard._flaps) == FLAPS_KEPT


def test_a_block_ends_in_time_or_when_the_port_leaves() -> None:
    guard = guard_with(1, 2)
    guard.block(1, 30.0)
    guard.block(2, 40.0)
    assert guard.unblock_due(29.0) == []
    assert guard.unblock_due(30.0) == [1]
    guard.leave(2)
    assert not guard.unblock(2)


def test_a_bucket_gives_a_second_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(10, 0.0)
    assert sum(bucket.take(0.0) for _ in range(100)) == 10
    assert sum(bucket.take(0.5) for _ in range(100)) == 5
    assert sum(bucket.take(1000.0) for _ in range(100)) == 10


def test_a_rate_below_one_still_gives_one_at_a_time() -> None:
    bucket = TokenBucket(0.5, 0.0)
    assert [bucket.take(t) for t in (0.0, 1.0, 2.0, 3.0, 4.0)] == [True, False, True, False, True]
