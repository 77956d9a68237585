"""Port configuration and sets of VLANs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.policies.vlan import DEFAULT, PortConfig, PortTable, format_vids, parse_vids


@pytest.mark.parametrize(
    "value, expected",
    [
        ("10", {10}),
        ("10,20-22", {10, 20, 21, 22}),
        (" 10 , 20 - 22 ", {10, 20, 21, 22}),
        ("", set()),
        ("none", set()),
        ("all", set(range(1, 4095))),
        ([1, 4094], {1, 4094}),
        ([], set()),
    ],
)
def test_sets_of_vlans_are_read(value: object, expected: set[int]) -> None:
    assert parse_vids(value) == expected


@pytest.mark.parametrize("value", ["x", "0", "4095", "5-3", "1,,2", "-1", "1-", [0], [4095], [True], ["1"], 5, None])
def test_what_is_no_set_of_vlans_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"VLAN|range"):
        parse_vids(value)


@given(st.frozensets(st.integers(1, 4094), max_size=50))
def test_a_set_is_read_back_from_its_text(vids: frozenset[int]) -> None:
    assert parse_vids(format_vids(vids)) == vids


def test_text_has_the_shortest_form() -> None:
    assert format_vids([1, 2, 3, 5, 7, 8]) == "1-3,5,7-8"
    assert format_vids([]) == "none"


def test_only_a_vlan_configuration_makes_the_switch_aware() -> None:
    table = PortTable()
    table.configure(1, PortConfig(isolated=True, broadcast_rate=5))
    assert not table.vlan_aware
    table.configure(2, PortConfig(tagged=frozenset()))
    assert table.vlan_aware
    table.configure(2, DEFAULT)
    assert not table.vlan_aware
    assert list(table.configured) == [1]


def test_a_port_without_configuration_is_in_vlan_1() -> None:
    table = PortTable()
    table.configure(1, PortConfig(pvid=10, tagged=frozenset({20})))
    assert [vid in table.member(1) for vid in (1, 10, 20)] == [False, True, True]
    assert [vid in table.member(2) for vid in (1, 10)] == [True, False]


def test_members_are_told_apart_by_their_tag_and_a_vlan_in_both_is_tagged() -> None:
    table = PortTable()
    table.configure(1, PortConfig(pvid=10))
    table.configure(2, PortConfig(tagged=frozenset({10})))
    table.configure(3, PortConfig(pvid=10, tagged=frozenset({10})))
    table.configure(4, PortConfig(pvid=20))
    assert table.by_tag(10, [1, 2, 3, 4, 5]) == ([1], [2, 3])


def test_isolation_is_between_two_isolated_ports_only() -> None:
    table = PortTable()
    table.configure(1, PortConfig(isolated=True))
    table.configure(2, PortConfig(isolated=True))
    assert table.apart(1, 2)
    assert not table.apart(1, 3)
    assert not table.apart(3, 2)


def test_only_what_is_configured_is_kept() -> None:
    config = PortConfig(pvid=10, tagged=frozenset({30, 20}), isolated=True)
    assert config.to_json() == {"pvid": 10, "tagged": [20, 30], "isolated": True}
    assert DEFAULT.to_json() == {}
