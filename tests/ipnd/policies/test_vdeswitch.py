"""The learning switch: stories, and the same frames through a plain model of one."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.policies.base import Ask, Forward, LookAt
from ipnd.policies.ethernet import push_tag, set_vid
from ipnd.policies.vdeswitch import VdeSwitch
from tests.ipnd.policies.net import FakeNet, outcome

EVERYBODY = b"\xff" * 6
STP = bytes.fromhex("0180c2000000")


def host(number: int) -> bytes:
    return bytes([2, 0, 0, 0]) + number.to_bytes(2, "big")


def frame(to: int | bytes, source: int | bytes, payload: bytes = b"\x08\x00" + b"p" * 50) -> bytes:
    to, source = (host(x) if isinstance(x, int) else x for x in (to, source))
    return to + source + payload


def tagged(vid: int, plain: bytes, priority: int = 0) -> bytes:
    return plain[:12] + bytes([0x81, 0, priority << 5 | vid >> 8, vid & 255]) + plain[12:]


@pytest.fixture
def net() -> FakeNet:
    return FakeNet()


@pytest.fixture
def switch(net: FakeNet) -> VdeSwitch:
    switch = VdeSwitch(net)
    net.join(switch, 1, 2, 3, 4)
    return switch


def verb(switch: VdeSwitch, name: str, **arguments: Any) -> Any:
    answer = switch.verbs[name][0](switch, arguments)
    return json.loads(json.dumps(answer))


def receivers(switch: VdeSwitch, source: int, data: bytes) -> list[int] | str:
    answer = outcome(switch, source, data)
    if isinstance(answer, str):
        return answer
    assert set(answer.values()) <= {data}
    return sorted(answer)


# -- learning --------------------------------------------------------------------------------------------------------


def test_an_unknown_address_floods_and_a_learned_one_does_not(switch: VdeSwitch) -> None:
    assert receivers(switch, 1, frame(20, 10)) == [2, 3, 4]
    assert receivers(switch, 2, frame(10, 20)) == [1]
    assert receivers(switch, 1, frame(20, 10)) == [2]


def test_only_floods_of_unknown_addresses_are_tentative(switch: VdeSwitch) -> None:
    unknown = switch.decide(1, frame(20, 10)[:14])
    broadcast = switch.decide(1, frame(EVERYBODY, 10)[:14])
    assert isinstance(unknown, Forward)
    assert isinstance(broadcast, Forward)
    assert unknown.tentative
    assert not broadcast.tentative


def test_a_new_address_is_news_and_a_moved_one_takes_all_decisions_back(switch: VdeSwitch, net: FakeNet) -> None:
    before = net.invalidated
    outcome(switch, 1, frame(20, 10))
    outcome(switch, 1, frame(20, 10))
    assert (net.news, net.invalidated) == (1, before)
    outcome(switch, 3, frame(20, 10))
    assert net.invalidated == before + 1
    assert receivers(switch, 2, frame(10, 20)) == [3]


def test_multicast_floods_and_its_address_is_never_learned(switch: VdeSwitch) -> None:
    group = bytes.fromhex("01005e000001")
    assert receivers(switch, 1, frame(group, 10)) == [2, 3, 4]
    assert receivers(switch, 1, frame(10, group)) == "source is multicast"
    assert switch.lookup(0, group) is None


def test_a_member_that_does_not_receive_gets_nothing(switch: VdeSwitch, net: FakeNet) -> None:
    outcome(switch, 3, frame(10, 30))
    net.ports[3].reader = False
    assert receivers(switch, 1, frame(EVERYBODY, 10)) == [2, 4]
    assert receivers(switch, 1, frame(30, 10)) == "destination port does not receive"


@pytest.mark.parametrize("length", [0, 1, 6, 12, 13])
def test_a_frame_without_a_whole_header_is_a_runt(switch: VdeSwitch, length: int) -> None:
    assert receivers(switch, 1, frame(20, 10)[:length]) == "runt"
    assert len(switch.fdb) == 0


def test_a_bare_header_is_a_frame(switch: VdeSwitch) -> None:
    assert receivers(switch, 1, frame(20, 10)[:14]) == [2, 3, 4]


def test_a_frame_never_goes_back_where_it_came_from(switch: VdeSwitch) -> None:
    outcome(switch, 1, frame(20, 10))
    assert receivers(switch, 1, frame(10, 11)) == "destination is on the source port"


def test_reserved_addresses_end_at_the_switch_unless_it_is_told_otherwise(switch: VdeSwitch) -> None:
    assert receivers(switch, 1, frame(STP, 10)) == "reserved address"
    assert receivers(switch, 1, frame(bytes.fromhex("0180c2000010"), 10)) == [2, 3, 4]
    verb(switch, "switch.set", forward_reserved=True)
    assert receivers(switch, 1, frame(STP, 10)) == [2, 3, 4]


# -- time ------------------------------------------------------------------------------------------------------------


def test_a_silent_address_is_forgotten_and_one_that_keeps_sending_stays(switch: VdeSwitch, net: FakeNet) -> None:
    outcome(switch, 1, frame(20, 10))
    outcome(switch, 2, frame(30, 20))
    for _ in range(13):
        net.advance(switch, 10)
        outcome(switch, 2, frame(30, 20))
    assert (switch.lookup(0, host(10)), switch.lookup(0, host(20))) == (None, 2)


def test_decisions_are_taken_back_often_enough_to_see_who_still_sends(switch: VdeSwitch, net: FakeNet) -> None:
    outcome(switch, 1, frame(20, 10))
    before = net.invalidated
    net.advance(switch, 31)
    assert net.invalidated == before + 1


def test_an_empty_switch_does_not_tick(switch: VdeSwitch, net: FakeNet) -> None:
    assert net.tick_at is None
    outcome(switch, 1, frame(20, 10))
    assert net.advance(switch, 1000) > 0
    assert len(switch.fdb) == 0
    assert net.tick_at is None
    outcome(switch, 1, frame(20, 10))
    assert net.tick_at is not None


def test_a_shorter_ageing_counts_at_once(switch: VdeSwitch, net: FakeNet) -> None:
    outcome(switch, 1, frame(20, 10))
    verb(switch, "switch.set", ageing=1)
    net.advance(switch, 10)
    assert len(switch.fdb) == 0


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_flood_of_addresses_stops_at_its_ports_limit(switch: VdeSwitch, net: FakeNet) -> None:
    outcome(switch, 2, frame(1, 60000))
    for n in range(5000):
        assert receivers(switch, 1, frame(EVERYBODY, n)) == [2, 3, 4]
    assert switch.fdb.learned == {1: 4096, 2: 1}
    assert net.counted == {"address not learned: limit of the port": 5000 - 4096}
    outcome(switch, 3, frame(1, 60001))
    assert switch.lookup(0, host(60001)) == 3
    assert switch.lookup(0, host(60000)) == 2


def test_a_port_at_its_limit_takes_no_address_from_another(switch: VdeSwitch) -> None:
    verb(switch, "port.set", port=1, address_limit=1)
    outcome(switch, 1, frame(EVERYBODY, 10))
    outcome(switch, 2, frame(EVERYBODY, 20))
    outcome(switch, 1, frame(EVERYBODY, 20))
    assert switch.lookup(0, host(20)) == 2


def test_a_full_table_learns_no_more(switch: VdeSwitch, net: FakeNet) -> None:
    verb(switch, "switch.set", max_entries=2)
    for n in range(1, 4):
        outcome(switch, n, frame(EVERYBODY, n))
    assert len(switch.fdb) == 2
    assert net.counted == {"address not learned: table full": 1}
    with pytest.raises(OSError, match="full") as caught:
        verb(switch, "fdb.add", mac="02:00:00:00:00:09", port=1)
    assert caught.value.errno == errno.ENOSPC


def test_a_broadcast_rate_counts_each_frame_to_many_and_no_other(switch: VdeSwitch, net: FakeNet) -> None:
    outcome(switch, 2, frame(EVERYBODY, 20))
    verb(switch, "port.set", port=1, broadcast_rate=3)
    assert isinstance(switch.decide(1, frame(EVERYBODY, 10)[:14]), Ask)
    passed = [receivers(switch, 1, frame(EVERYBODY, 10)) for _ in range(5)]
    assert passed == [[2, 3, 4]] * 3 + ["broadcast rate of the port"] * 2
    assert receivers(switch, 1, frame(20, 10)) == [2]
    assert receivers(switch, 1, frame(99, 10)) == "broadcast rate of the port"
    net.advance(switch, 1.1)
    assert receivers(switch, 1, frame(99, 10)) == [2, 3, 4]
    assert not isinstance(switch.decide(2, frame(EVERYBODY, 20)[:14]), Ask)
    verb(switch, "port.set", port=1, broadcast_rate=0)
    assert not isinstance(switch.decide(1, frame(EVERYBODY, 10)[:14]), Ask)


# -- the loop guard ----------------------------------------------------------------------------------------------------


def flap(switch: VdeSwitch, times: int) -> None:
    for n in range(times):
        outcome(switch, 1 + n % 2, frame(EVERYBODY, 10))


def test_an_address_that_keeps_moving_blocks_the_younger_port_for_a_while(switch: VdeSwitch, net: FakeNet) -> None:
    flap(switch, 13)
    assert switch.show()["blocked"] == [2]
    assert "port 2 is blocked for 30 s" in net.logged[0]
    assert "02:00:00:00:00:0a keeps moving between the ports" in net.logged[0]
    assert receivers(switch, 2, frame(EVERYBODY, 20)) == "port blocked by the loop guard"
    assert receivers(switch, 1, frame(EVERYBODY, 10)) == [3, 4]
    assert verb(switch, "port.show", port=2)[0]["blocked"] is True
    net.advance(switch, 40)
    assert switch.show()["blocked"] == []
    assert receivers(switch, 2, frame(EVERYBODY, 20)) == [1, 3, 4]


def test_ten_moves_are_no_loop_yet(switch: VdeSwitch) -> None:
    flap(switch, 11)
    assert switch.show()["blocked"] == []


def test_the_frame_that_shows_the_loop_goes_no_further(switch: VdeSwitch, net: FakeNet) -> None:
    verb(switch, "switch.set", loop_moves=2)
    outcome(switch, 1, frame(EVERYBODY, 10))
    outcome(switch, 2, frame(EVERYBODY, 10))
    outcome(switch, 1, frame(EVERYBODY, 10))
    assert outcome(switch, 2, frame(EVERYBODY, 10)) == "port blocked by the loop guard"
    assert switch.lookup(0, host(10)) is None


def test_a_block_can_be_ended_by_hand_and_ends_with_the_member(switch: VdeSwitch, net: FakeNet) -> None:
    flap(switch, 13)
    verb(switch, "port.set", port=2, unblock=True)
    assert switch.show()["blocked"] == []
    flap(switch, 13)
    assert switch.show()["blocked"] == [2]
    net.leave(switch, 2)
    net.join(switch, 2)
    assert switch.show()["blocked"] == []


def test_the_guard_can_be_turned_off(switch: VdeSwitch) -> None:
    verb(switch, "switch.set", loop_moves=0)
    flap(switch, 100)
    assert switch.show()["blocked"] == []


# -- VLANs and isolation -----------------------------------------------------------------------------------------------


@pytest.fixture
def vlans(switch: VdeSwitch) -> VdeSwitch:
    """Give a switch with access ports of VLAN 10 (1), 20 (2), a trunk of both (3), and a port 4 left as it was."""
    verb(switch, "port.set", port=1, pvid=10)
    verb(switch, "port.set", port=2, pvid=20)
    verb(switch, "port.set", port=3, tagged="10,20")
    return switch


def test_without_vlans_tags_are_just_bytes(switch: VdeSwitch) -> None:
    assert receivers(switch, 1, tagged(10, frame(20, 10))) == [2, 3, 4]
    assert receivers(switch, 2, frame(10, 20)) == [1]


def test_an_access_port_is_heard_on_the_trunk_with_a_tag(vlans: VdeSwitch) -> None:
    plain = frame(EVERYBODY, 10)
    assert outcome(vlans, 1, plain) == {3: tagged(10, plain)}
    assert outcome(vlans, 2, plain) == {3: tagged(20, plain)}
    assert outcome(vlans, 3, tagged(10, plain)) == {1: plain}
    assert outcome(vlans, 3, tagged(20, plain)) == {2: plain}
    assert outcome(vlans, 3, plain) == {4: plain}


def test_a_flood_of_one_vlan_goes_out_both_ways_at_once(vlans: VdeSwitch) -> None:
    verb(vlans, "port.set", port=4, pvid=10)
    plain = frame(EVERYBODY, 10)
    assert outcome(vlans, 1, plain) == {4: plain, 3: tagged(10, plain)}


def test_the_same_address_lives_in_two_vlans(vlans: VdeSwitch) -> None:
    outcome(vlans, 1, frame(EVERYBODY, 10))
    outcome(vlans, 2, frame(EVERYBODY, 10))
    assert (vlans.lookup(10, host(10)), vlans.lookup(20, host(10))) == (1, 2)
    assert outcome(vlans, 3, tagged(20, frame(10, 30))) == {2: frame(10, 30)}


def test_frames_of_a_vlan_that_the_port_is_not_in_are_dropped(vlans: VdeSwitch) -> None:
    assert outcome(vlans, 3, tagged(30, frame(EVERYBODY, 10))) == "vlan not allowed"
    assert outcome(vlans, 1, tagged(20, frame(EVERYBODY, 10))) == "vlan not allowed"
    assert outcome(vlans, 3, tagged(4095, frame(EVERYBODY, 10))) == "vlan not allowed"
    assert len(vlans.fdb) == 0


def test_a_port_without_a_vlan_of_its_own_takes_only_tags(vlans: VdeSwitch) -> None:
    verb(vlans, "port.set", port=3, pvid=0)
    plain = frame(EVERYBODY, 10)
    assert outcome(vlans, 3, plain) == "vlan not allowed"
    assert outcome(vlans, 3, tagged(0, plain)) == "vlan not allowed"
    assert outcome(vlans, 3, tagged(10, plain)) == {1: plain}


def test_a_priority_tag_is_of_the_ports_vlan_and_keeps_its_priority(vlans: VdeSwitch) -> None:
    plain = frame(EVERYBODY, 10)
    verb(vlans, "port.set", port=4, pvid=10)
    assert outcome(vlans, 1, tagged(0, plain, priority=5)) == {3: tagged(10, plain, priority=5), 4: plain}


def test_of_two_tags_the_outer_decides_and_the_inner_stays(vlans: VdeSwitch) -> None:
    inner = tagged(20, frame(EVERYBODY, 10))
    assert outcome(vlans, 3, tagged(10, inner)) == {1: inner}


@pytest.mark.parametrize("length, expected", [(15, "truncated vlan tag"), (17, "truncated vlan tag"), (18, {1})])
def test_a_tag_that_is_cut_off_is_dropped(vlans: VdeSwitch, length: int, expected: object) -> None:
    answer = outcome(vlans, 3, tagged(10, frame(EVERYBODY, 10))[:length])
    assert (answer if isinstance(answer, str) else set(answer)) == expected


def test_a_tag_of_which_only_the_type_is_there_never_gets_an_answer(vlans: VdeSwitch) -> None:
    head = tagged(10, frame(EVERYBODY, 10))[:14]
    assert isinstance(vlans.decide(3, head), LookAt)
    assert vlans.handlemsg(3, head, 0) == vlans.handlemsg(3, head + b"\0", 0)


def test_equal_decisions_share_their_edit(vlans: VdeSwitch) -> None:
    first = vlans.decide(1, frame(EVERYBODY, 10)[:14])
    second = vlans.decide(1, frame(EVERYBODY, 11)[:14])
    assert isinstance(first, Forward)
    assert isinstance(second, Forward)
    assert first.edit is second.edit is push_tag(10)
    verb(vlans, "port.set", port=1, pvid=10)
    priority = vlans.decide(1, tagged(0, frame(EVERYBODY, 10))[:18])
    assert isinstance(priority, Forward)
    assert priority.edit is set_vid(10)


def test_a_port_that_changes_its_vlan_is_learned_again(vlans: VdeSwitch) -> None:
    outcome(vlans, 1, frame(EVERYBODY, 10))
    verb(vlans, "port.set", port=1, pvid=20)
    assert len(vlans.fdb) == 0
    assert outcome(vlans, 2, frame(EVERYBODY, 20)).keys() == {1, 3}  # type: ignore[union-attr]


def test_without_its_last_vlan_configuration_the_switch_forgets_vlans(vlans: VdeSwitch) -> None:
    outcome(vlans, 1, frame(EVERYBODY, 10))
    for port in (1, 2, 3):
        verb(vlans, "port.set", port=port, reset=True)
    assert not vlans.show()["vlan_aware"]
    assert len(vlans.fdb) == 0
    assert receivers(vlans, 1, frame(EVERYBODY, 10)) == [2, 3, 4]


def test_isolated_ports_reach_only_the_others(switch: VdeSwitch) -> None:
    for port in (1, 2):
        verb(switch, "port.set", port=port, isolate=True)
    assert receivers(switch, 1, frame(EVERYBODY, 10)) == [3, 4]
    assert receivers(switch, 2, frame(10, 20)) == "isolated port"
    assert receivers(switch, 3, frame(10, 30)) == [1]
    assert receivers(switch, 1, frame(30, 10)) == [3]


def test_the_switchs_own_frames_go_to_their_host_or_flood_its_vlan(vlans: VdeSwitch) -> None:
    broadcast, unicast = frame(EVERYBODY, 99), frame(10, 99)
    assert [(d.ports, d.frame) for d in vlans.egress(10, broadcast)] == [([1], broadcast), ([3], tagged(10, broadcast))]
    assert [d.ports for d in vlans.egress(10, broadcast, exclude=3)] == [[1]]
    outcome(vlans, 3, tagged(10, frame(EVERYBODY, 10)))
    assert [(d.ports, d.frame) for d in vlans.egress(10, unicast)] == [([3], tagged(10, unicast))]
    assert vlans.egress(10, unicast, exclude=3) == []


def test_the_switchs_own_frames_go_as_they_are_while_there_are_no_vlans(switch: VdeSwitch) -> None:
    assert [d.ports for d in switch.egress(0, frame(10, 99), exclude=2)] == [[1, 3, 4]]
    outcome(switch, 1, frame(EVERYBODY, 10))
    assert [d.ports for d in switch.egress(0, frame(10, 99))] == [[1]]


# -- ports and management ---------------------------------------------------------------------------------------


def test_a_port_that_goes_takes_its_addresses_along_and_leaves_its_configuration(
    switch: VdeSwitch, net: FakeNet
) -> None:
    verb(switch, "port.set", port=1, isolate=True)
    outcome(switch, 1, frame(EVERYBODY, 10))
    verb(switch, "fdb.add", mac="02:00:00:00:00:0b", port=1)
    net.leave(switch, 1)
    assert [row["mac"] for row in verb(switch, "fdb.show")] == ["02:00:00:00:00:0b"]
    assert receivers(switch, 2, frame(11, 20)) == "destination port does not receive"
    assert verb(switch, "port.show", port=1)[0] == {
        "port": 1,
        "pvid": 1,
        "tagged": [],
        "isolated": True,
        "address_limit": 4096,
        "broadcast_rate": None,
        "addresses": 0,
        "blocked": False,
        "used": False,
    }


def test_a_static_address_neither_moves_nor_ages(switch: VdeSwitch, net: FakeNet) -> None:
    verb(switch, "fdb.add", mac="02:00:00:00:00:0a", port=1)
    outcome(switch, 2, frame(EVERYBODY, 10))
    net.advance(switch, 1000)
    assert receivers(switch, 3, frame(10, 30)) == [1]


def test_a_static_address_goes_to_its_ports_vlan_when_there_are_vlans(switch: VdeSwitch) -> None:
    verb(switch, "fdb.add", mac="02:00:00:00:00:0a", port=1)
    verb(switch, "port.set", port=1, pvid=10)
    assert verb(switch, "fdb.add", mac="02:00:00:00:00:0b", port=1)["vlan"] == 10
    assert [(row["vlan"], row["port"]) for row in verb(switch, "fdb.show")] == [(10, 1), (10, 1)]


def test_addresses_are_found_removed_and_flushed(switch: VdeSwitch) -> None:
    outcome(switch, 1, frame(EVERYBODY, 10))
    verb(switch, "fdb.add", mac="02-00-00-00-00-0B", port=2)
    found = verb(switch, "fdb.find", mac="02:00:00:00:00:0a")
    assert found == [{"vlan": 0, "mac": "02:00:00:00:00:0a", "port": 1, "age": 0.0, "static": False}]
    assert verb(switch, "fdb.find", mac="02:00:00:00:00:0a", vlan=5) == []
    assert verb(switch, "fdb.remove", mac="02:00:00:00:00:0a") == {"removed": 1}
    with pytest.raises(OSError, match="not in the table") as caught:
        verb(switch, "fdb.remove", mac="02:00:00:00:00:0a")
    assert caught.value.errno == errno.ENOENT
    assert verb(switch, "fdb.flush") == {"removed": 0}
    assert verb(switch, "fdb.flush", static=True) == {"removed": 1}


@pytest.mark.parametrize(
    "name, arguments, words",
    [
        ("switch.set", {"ageing": 0}, "ageing: must be a number"),
        ("switch.set", {"ageing": "120"}, "ageing: must be a number"),
        ("switch.set", {"ageing": float("nan")}, "ageing: must be a number"),
        ("switch.set", {"max_entries": True}, "max_entries: must be an integer"),
        ("switch.set", {"colour": 1}, "no argument 'colour'"),
        ("fdb.add", {"mac": "02:00:00:00:00:0a"}, "'port' is missing"),
        ("fdb.add", {"mac": "ff:ff:ff:ff:ff:ff", "port": 1}, "multicast"),
        ("fdb.add", {"mac": "zz", "port": 1}, "not a MAC address"),
        ("fdb.add", {"mac": "02:00:00:00:00:0a", "port": 32}, "the ports 0 to 31"),
        ("fdb.show", {"vlan": 4095}, "vlan: must be an integer from 0 to 4094"),
        ("port.set", {"port": 1, "pvid": 4095}, "pvid: must be"),
        ("port.set", {"port": 1, "tagged": "1-x"}, "tagged: not a VLAN"),
        ("port.set", {"port": 1, "isolate": 1}, "isolate: must be true or false"),
        ("port.set", {"port": -1}, "port: must be"),
    ],
)
def test_wrong_arguments_are_einval_with_a_sentence(
    switch: VdeSwitch, name: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(OSError, match=words) as caught:
        verb(switch, name, **arguments)
    assert caught.value.errno == errno.EINVAL


def test_only_what_changes_something_needs_the_right_to_manage() -> None:
    free = {name for name, (_, needs_x) in VdeSwitch.verbs.items() if not needs_x}
    assert free == {"switch.show", "fdb.show", "fdb.find", "port.show"}


def test_settings_and_figures_are_shown(switch: VdeSwitch) -> None:
    outcome(switch, 1, frame(EVERYBODY, 10))
    shown = verb(switch, "switch.show")
    assert (shown["ageing"], shown["max_entries"], shown["addresses"], shown["static"]) == (120, 16384, 1, 0)
    assert switch.show() == {"addresses": 1, "ageing": 120, "vlan_aware": False, "blocked": []}
    assert [row["port"] for row in verb(switch, "port.show")] == [1, 2, 3, 4]


def test_configuration_is_kept_and_what_was_learned_is_not(vlans: VdeSwitch) -> None:
    verb(vlans, "switch.set", ageing=60, forward_reserved=True)
    verb(vlans, "port.set", port=4, isolate=True, broadcast_rate=100, address_limit=5)
    verb(vlans, "fdb.add", mac="02:00:00:00:00:0b", port=3, vlan=20)
    outcome(vlans, 1, frame(EVERYBODY, 10))
    state = json.loads(json.dumps(vlans.state()))
    net = FakeNet()
    again = VdeSwitch(net)
    again.restore(state)
    net.join(again, 1, 2, 3, 4)
    assert again.state() == state
    assert verb(again, "fdb.show") == [row for row in verb(vlans, "fdb.show") if row["static"]]
    keep = ("pvid", "tagged", "isolated", "broadcast_rate", "address_limit")
    assert [[row[k] for k in keep] for row in verb(again, "port.show")] == [
        [row[k] for k in keep] for row in verb(vlans, "port.show")
    ]
    assert outcome(again, 1, frame(EVERYBODY, 10)) == outcome(vlans, 1, frame(EVERYBODY, 10))


@pytest.mark.parametrize(
    "state",
    [
        {"settings": {"ageing": -1}},
        {"settings": []},
        {"ports": {"x": {}}},
        {"ports": {"1": {"pvid": 5000}}},
        {"ports": []},
        {"static": [{"mac": "02:00:00:00:00:0b"}]},
        {"static": 5},
    ],
)
def test_a_state_that_makes_no_sense_is_refused_whole(switch: VdeSwitch, state: dict[str, Any]) -> None:
    before = switch.state()
    with pytest.raises(ValueError, match=r"\w"):
        switch.restore(state)
    assert switch.state() == before


# -- against a model ---------------------------------------------------------------------------------------------

TRUNKS: dict[int, tuple[int, frozenset[int]]] = {
    1: (10, frozenset()),
    2: (20, frozenset()),
    3: (1, frozenset({10, 20})),
    4: (10, frozenset({20})),
    5: (0, frozenset({10})),
}
"""Port → its own VLAN and the tagged ones."""


class Model:
    """A switch in the plainest words: a dictionary, and one frame at a time."""

    def __init__(self, ports: dict[int, tuple[int, frozenset[int]]] | None) -> None:
        self.ports = ports or {port: (1, frozenset()) for port in range(1, 6)}
        self.known: dict[tuple[int, bytes], int] = {}

    def expect(self, source: int, vid: int | None, to: bytes, who: bytes, plain: bytes) -> dict[int, bytes]:
        pvid, vids = self.ports[source]
        vlan = vid or pvid
        if not vlan or (vlan != pvid and vlan not in vids):
            return {}
        self.known[vlan, who] = source
        target = None if to[0] & 1 else self.known.get((vlan, to))
        return {
            port: tagged(vlan, plain) if vlan in vids else plain
            for port, (pvid, vids) in self.ports.items()
            if port != source and (vlan == pvid or vlan in vids) and target in (None, port)
        }


HOSTS = [host(n) for n in range(4)]
TRAFFIC = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from([None, None, 0, 1, 10, 20]),
        st.sampled_from([*HOSTS, EVERYBODY, bytes.fromhex("333300000001")]),
        st.sampled_from(HOSTS),
    ),
    max_size=60,
)
Traffic = list[tuple[int, int | None, bytes, bytes]]


def compare(ports: dict[int, tuple[int, frozenset[int]]] | None, traffic: Traffic) -> None:
    net = FakeNet()
    switch = VdeSwitch(net)
    net.join(switch, 1, 2, 3, 4, 5)
    verb(switch, "switch.set", loop_moves=0)
    for port, (pvid, vids) in (ports or {}).items():
        verb(switch, "port.set", port=port, pvid=pvid, tagged=sorted(vids))
    model = Model(ports)
    for source, vid, to, who in traffic:
        plain = frame(to, who)
        sent = plain if vid is None else tagged(vid, plain)
        got = outcome(switch, source, sent)
        expected = model.expect(source, vid if ports else None, to, who, plain if ports else sent)
        assert ({} if isinstance(got, str) else got) == expected
        assert isinstance(got, str) or source not in got


@given(TRAFFIC)
def test_without_vlans_it_does_what_a_plain_switch_does(traffic: Traffic) -> None:
    compare(None, traffic)


@given(TRAFFIC)
def test_with_vlans_it_does_what_a_plain_switch_for_each_vlan_does(traffic: Traffic) -> None:
    compare(TRUNKS, traffic)


@given(st.integers(1, 4), st.binary(max_size=40), st.booleans())
def test_any_bytes_at_all_get_an_answer_and_never_go_back(source: int, data: bytes, aware: bool) -> None:
    net = FakeNet()
    switch = VdeSwitch(net)
    net.join(switch, 1, 2, 3, 4)
    if aware:
        verb(switch, "port.set", port=1, tagged="all")
    if not (aware and len(data) == 14 and data[12:] == b"\x81\x00"):
        got = outcome(switch, source, data)
        assert isinstance(got, str) or source not in got
