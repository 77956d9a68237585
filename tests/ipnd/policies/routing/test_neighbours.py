from __future__ import annotations

from math import inf

from ipnd.policies.routing.neighbours import (
    FORGOTTEN,
    MAX_INCOMPLETE,
    MAX_NEIGHBOURS,
    MAX_WAITING,
    REACHABLE,
    Neighbours,
    Waiting,
)

HOST, MAC, OTHER = bytes([10, 0, 0, 2]), b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"


def asked(neighbours: Neighbours, now: float) -> bool:
    return neighbours.use(0, HOST, now)[1]


def test_an_unknown_neighbour_is_asked_for_three_times_and_given_up() -> None:
    neighbours = Neighbours()
    entry, ask = neighbours.use(0, HOST, 0.0)
    assert ask
    assert entry is not None
    assert neighbours.wait(entry, Waiting(b"packet"))
    assert not asked(neighbours, 0.5)
    assert neighbours.due(0.9) == ([], [])
    assert neighbours.due(1.0) == ([entry], [])
    assert neighbours.due(2.0) == ([entry], [])
    assert neighbours.due(3.0) == ([], [(entry, [Waiting(b"packet")])])
    assert neighbours.next_due() == inf
    assert neighbours.entries == {}


def test_an_answer_releases_what_waited_in_order_and_counts_for_a_minute() -> None:
    neighbours = Neighbours()
    entry, _ = neighbours.use(0, HOST, 0.0)
    assert entry is not None
    packets = [Waiting(bytes([number])) for number in range(MAX_WAITING)]
    assert all(neighbours.wait(entry, packet) for packet in packets)
    assert not neighbours.wait(entry, Waiting(b"one too many"))
    assert neighbours.hear(0, HOST, MAC, 0.5, new=False) == packets
    assert not asked(neighbours, REACHABLE)
    assert entry.state(1.0) == "reachable"
    assert neighbours.next_due() == inf


def test_an_old_answer_is_used_and_asked_about() -> None:
    neighbours = Neighbours()
    neighbours.hear(0, HOST, MAC, 0.0)
    entry, ask = neighbours.use(0, HOST, REACHABLE)
    assert ask
    assert entry is not None
    assert (entry.mac, entry.state(REACHABLE)) == (MAC, "probing")
    for second in (1, 2, 3):
        neighbours.due(REACHABLE + second)
    assert neighbours.entries == {}


def test_what_was_not_heard_for_long_is_asked_for_anew() -> None:
    neighbours = Neighbours()
    neighbours.hear(0, HOST, MAC, 0.0)
    entry, ask = neighbours.use(0, HOST, FORGOTTEN)
    assert ask
    assert entry is not None
    assert entry.mac is None


def test_who_is_not_asked_for_and_not_new_is_not_learned() -> None:
    neighbours = Neighbours()
    neighbours.hear(0, HOST, MAC, 0.0, new=False)
    assert neighbours.entries == {}


def test_an_address_is_only_taken_over_when_the_answer_says_so() -> None:
    neighbours = Neighbours()
    neighbours.hear(0, HOST, MAC, 0.0)
    neighbours.hear(0, HOST, OTHER, 1.0, override=False)
    assert neighbours.entries[(0, HOST)].mac == MAC
    neighbours.hear(0, HOST, OTHER, 1.0)
    assert neighbours.entries[(0, HOST)].mac == OTHER


def test_a_static_entry_stays() -> None:
    neighbours = Neighbours()
    neighbours.fix(0, HOST, MAC, 0.0)
    neighbours.hear(0, HOST, OTHER, 1.0)
    entry, ask = neighbours.use(0, HOST, 1e6)
    assert not ask
    assert entry is not None
    assert entry.mac == MAC


def test_the_longest_unheard_goes_when_there_are_too_many() -> None:
    neighbours = Neighbours()
    neighbours.fix(0, HOST, MAC, 0.0)
    for number in range(MAX_NEIGHBOURS + 10):
        neighbours.hear(1, number.to_bytes(4, "big"), MAC, float(number))
        neighbours.hear(1, bytes(4), MAC, float(number))
    assert len(neighbours.entries) == MAX_NEIGHBOURS
    assert (0, HOST) in neighbours.entries
    assert (1, bytes(4)) in neighbours.entries
    assert (1, (1).to_bytes(4, "big")) not in neighbours.entries


def test_only_so_many_are_asked_for_at_a_time() -> None:
    neighbours = Neighbours()
    for number in range(MAX_INCOMPLETE):
        assert neighbours.use(0, number.to_bytes(4, "big"), 0.0)[1]
    assert neighbours.use(0, HOST, 0.0) == (None, False)
    assert len(neighbours.entries) == MAX_INCOMPLETE
