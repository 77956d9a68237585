"""The forwarding table by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipnd.policies.fdb import ForwardingTable

A, B, C = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3))


def table_with_three() -> ForwardingTable:
    table = ForwardingTable()
    table.add((10, A), 1, 100.0)
    table.add((20, A), 2, 110.0)
    table.pin((10, B), 2, 90.0)
    return table


def test_an_address_is_found_per_vlan() -> None:
    table = table_with_three()
    assert (table.find(10, A), table.find(20, A), table.find(30, A), table.find(10, B)) == (1, 2, None, 2)


def test_only_learned_entries_are_charged_to_their_port() -> None:
    assert table_with_three().learned == {1: 1, 2: 1}


def test_old_entries_expire_and_static_ones_do_not() -> None:
    table = table_with_three()
    assert table.expire(105.0) == 1
    assert (table.find(10, A), table.find(20, A), table.find(10, B)) == (None, 2, 2)
    assert table.expire(1000.0) == 1
    assert not table.dynamic
    assert len(table) == 1


def test_a_move_charges_the_other_port() -> None:
    table = table_with_three()
    table.move(table.entries[10, A], 2, 120.0)
    assert table.learned == {2: 2}
    assert table.find(10, A) == 2


def test_pinning_replaces_what_was_learned() -> None:
    table = table_with_three()
    table.pin((10, A), 3, 120.0)
    assert table.learned == {2: 1}
    assert table.static_keys() == [(10, A), (10, B)]


def test_flushing_selects_by_port_and_vlan_and_spares_static_entries_unless_told() -> None:
    assert table_with_three().flush(port=2) == 1
    assert table_with_three().flush(vlan=10) == 1
    assert table_with_three().flush(port=1, vlan=20) == 0
    assert table_with_three().flush() == 2
    assert table_with_three().flush(static=True) == 3


def test_a_port_that_goes_leaves_its_static_entries() -> None:
    table = table_with_three()
    assert table.forget_port(2) == 1
    assert table.find(10, B) == 2


def test_rows_are_sorted_and_tell_the_age() -> None:
    assert table_with_three().rows(130.04) == [
        {"vlan": 10, "mac": "02:00:00:00:00:01", "port": 1, "age": 30.0, "static": False},
        {"vlan": 10, "mac": "02:00:00:00:00:02", "port": 2, "age": None, "static": True},
        {"vlan": 20, "mac": "02:00:00:00:00:01", "port": 2, "age": 20.0, "static": False},
    ]
    assert [row["port"] for row in table_with_three().rows(130, port=2, vlan=20)] == [2]


def test_removing_tells_whether_there_was_anything() -> None:
    table = table_with_three()
    assert table.remove((10, A))
    assert not table.remove((10, A))
    assert not table.remove((10, C))


def test_static_entries_go_from_vlan_0_to_their_ports_own_and_back() -> None:
    table = ForwardingTable()
    table.pin((0, A), 1, 0.0)
    table.pin((7, B), 1, 0.0)
    table.move_static(lambda port: 10 * port)
    assert table.static_keys() == [(7, B), (10, A)]
    table.move_static(lambda port: 0)
    assert table.static_keys() == [(0, A), (0, B)]


SMALL = st.integers(0, 2)
STEPS = st.lists(st.tuples(st.sampled_from("apmrf"), SMALL, SMALL, st.integers(0, 9)), max_size=40)


@given(STEPS)
def test_the_charges_are_always_those_of_the_entries(steps: list[tuple[str, int, int, int]]) -> None:
    table = ForwardingTable()
    for what, port, mac, when in steps:
        key = (0, bytes([2, 0, 0, 0, 0, mac]))
        entry = table.entries.get(key)
        if what == "a" and entry is None:
            table.add(key, port, when)
        elif what == "m" and entry is not None and not entry.static:
            table.move(entry, port, when)
        elif what == "p":
            table.pin(key, port, when)
        elif what == "r":
            table.remove(key)
        elif what == "f":
            table.flush(port)
        dynamic = [e.port for e in table.entries.values() if not e.static]
        assert table.learned == {p: dynamic.count(p) for p in set(dynamic)}
