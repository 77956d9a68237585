"""Which remote an address is behind: the table by itself, against time and floods."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.cables.remotes import AGEING_NS, SWEEP_NS, Remotes

A, B, C, D = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3, 4))


def test_an_address_is_where_it_was_last_heard() -> None:
    table: Remotes[str] = Remotes()
    table.learn(A, "one", 0)
    assert (table.find(A, 1), table.find(B, 1)) == ("one", None)
    table.learn(A, "two", 2)
    assert table.find(A, 3) == "two"
    assert len(table) == 1


def test_an_address_is_forgotten_after_300_seconds_of_silence() -> None:
    table: Remotes[str] = Remotes()
    table.learn(A, "one", 0)
    table.learn(B, "one", 0)
    table.learn(B, "one", 1)
    assert table.find(A, AGEING_NS - 1) == "one"
    assert table.find(A, AGEING_NS) is None
    assert table.find(B, AGEING_NS) == "one"
    assert len(table) == 1
    assert AGEING_NS == 300 * 10**9


@pytest.mark.parametrize("mac", [b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", b"", A[:5]])
def test_what_is_no_single_machines_address_is_not_learned(mac: bytes) -> None:
    table: Remotes[str] = Remotes()
    table.learn(mac, "one", 0)
    assert table.find(mac, 0) is None
    assert (len(table), table.full) == (0, 0)


def test_a_full_table_keeps_what_it_has_and_counts_what_it_does_not_learn() -> None:
    table: Remotes[str] = Remotes(limit=2)
    for mac in (A, B, C, C):
        table.learn(mac, "one", 0)
    assert (len(table), table.full) == (2, 2)
    assert (table.find(A, 0), table.find(C, 0)) == ("one", None)
    table.learn(A, "two", 0)
    assert table.find(A, 0) == "two"


def test_a_full_table_makes_room_from_what_is_old() -> None:
    table: Remotes[str] = Remotes(limit=2)
    table.learn(A, "one", 0)
    table.learn(B, "one", AGEING_NS)
    table.learn(C, "one", AGEING_NS)
    assert (table.find(A, AGEING_NS), table.find(B, AGEING_NS), table.find(C, AGEING_NS)) == (None, "one", "one")


def test_a_flood_does_not_have_the_table_searched_for_each_address() -> None:
    table: Remotes[str] = Remotes(limit=1)
    table.learn(A, "one", 0)
    table.learn(B, "one", AGEING_NS - 1)
    table.learn(C, "one", AGEING_NS)
    assert table.find(C, AGEING_NS) is None
    table.learn(D, "one", AGEING_NS - 1 + SWEEP_NS)
    assert table.find(D, AGEING_NS + SWEEP_NS) == "one"


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("xyz"), st.integers(0, AGEING_NS // 2)), max_size=60))
def test_the_table_knows_what_a_list_of_everything_heard_says(heard: list[tuple[int, str, int]]) -> None:
    table: Remotes[str] = Remotes()
    last: dict[bytes, tuple[str, int]] = {}
    now = 0
    for number, remote, passed in heard:
        now += passed
        mac = bytes([2, 0, 0, 0, 0, number])
        table.learn(mac, remote, now)
        last[mac] = remote, now
        for other, (where, seen) in last.items():
            assert table.find(other, now) == (where if now - seen < AGEING_NS else None)
