"""What the console's commands answer: cases against a real switch policy, with nobody's sockets."""

from __future__ import annotations

import errno
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipn.abi import IPN_BROADCAST, IPN_VDESWITCH
from ipnd.gateways.console_commands import COMMANDS, LOGOUT, SHUTDOWN, Answer, Command, answer
from ipnd.policies.base import Policy
from ipnd.policies.l3switch import L3Switch
from ipnd.policies.registry import policy_class
from tests.ipnd.policies.net import FakeNet


@attrs.define(eq=False)
class Net:
    """A ``Console`` on a network with members on the ports 0 and 3."""

    manage: bool = True
    net: FakeNet = attrs.field(factory=FakeNet)
    policy: Policy = attrs.field(init=False)
    greeting: tuple[str, ...] = ("VDE switch V.9", "", "")
    pid: int = 77
    gone: list[int] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.set_policy(IPN_VDESWITCH)
        self.net.join(self.policy, 0, 3)

    @property
    def maxports(self) -> int:
        return self.net.maxports

    def show(self) -> dict[str, Any]:
        return {
            "path": "/run/lab", "policy": self.policy.name, "mtu": 1514, "maxports": self.maxports, "pool": 8,
            "lossless": False, "mode": "0750", "members": 2,
            "fixtures": [{"kind": "dgram", "address": "/run/d"}, {"kind": "vde", "address": "/run/lab.vde"}],
            "ports": [self._member(number) for number in sorted(self.net.ports)],
        }  # fmt: skip

    def _member(self, number: int) -> dict[str, Any]:
        return {
            "port": number, "kind": "vde", "description": "a guest", "uid": 1000, "pid": 100 + number, "command": "vm",
            "queued": 2, "rx_frames": 5, "rx_bytes": 500, "tx_frames": 60, "tx_bytes": 6000,
        }  # fmt: skip

    def verb(self, name: str, /, **arguments: Any) -> Any:
        if name not in self.policy.verbs:
            raise OSError(errno.EOPNOTSUPP, f"no {name}")
        function, needs_manage = self.policy.verbs[name]
        if needs_manage:
            self.require_manage()
        return function(self.policy, arguments)

    def has_settings(self) -> bool:
        return any(self.policy.state().values())

    def require_manage(self) -> None:
        if not self.manage:
            raise PermissionError(errno.EPERM, "you may not")

    def resize(self, maxports: int) -> None:
        self.require_manage()
        self.net.maxports = maxports

    def set_policy(self, number: int) -> None:
        self.policy = policy_class(number)(self.net)

    def put_out(self, number: int) -> None:
        self.require_manage()
        self.gone.append(number)

    def ask(self, line: str) -> list[str] | None:
        """Return the lines of a command that must succeed."""
        said = answer(self, line)
        assert said is not None
        assert said.status == 0, said
        return said.lines

    def fail(self, line: str) -> tuple[int, str]:
        """Return errno and sentence of a command that must fail."""
        said = answer(self, line)
        assert said is not None
        assert said.status > 0
        return said.status, "\n".join(said.lines or ())


# -- what every command has in common ------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["", "  ", "\t", "# a remark", "#port/print"])
def test_an_empty_line_and_a_remark_ask_for_nothing(line: str) -> None:
    assert answer(Net(), line) is None


@pytest.mark.parametrize("line", ["nonsense", "port", "port/prin", "PORT/PRINT", "port/print9", "debug/list", "\x00"])
def test_what_is_no_command_is_not_implemented(line: str) -> None:
    assert answer(Net(), line) == Answer(None, errno.ENOSYS)


@pytest.mark.parametrize("line", [" port/showinfo", "port/showinfo\r", "\tport/showinfo  "])
def test_space_around_a_command_is_no_part_of_it(line: str) -> None:
    assert Net().ask(line) == Net().ask("port/showinfo")


@pytest.mark.parametrize(
    "line",
    [
        "help a b", "port/print 1 2", "port/print x", "port/print -1", "port/print 32", "port/print 0x1", "port/sethub",
        "port/sethub 2", "port/setnumports 0", "port/setvlan 1", "port/setvlan 1 4096", "port/setvlan 99 1",
        "vlan/create 0", "vlan/create 4095", "vlan/addport 1", "vlan/addport 4095 1", "hash/find", "hash/find 00:11",
        "hash/setexpire 0", "hash/setsize 0", "fstp/setfstp", "port/create ²", "port/print " + "9" * 900,
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused_with_a_sentence(line: str) -> None:
    number, sentence = Net().fail(line)
    assert number == errno.EINVAL
    assert sentence


@pytest.mark.parametrize(
    "line",
    [
        "port/setnumports 8", "port/sethub 1", "port/setvlan 3 10", "port/create 5", "port/remove 5", "port/epclose 3",
        "vlan/create 7", "vlan/remove 7", "vlan/addport 7 3", "vlan/addport 1 3", "vlan/delport 7 3", "hash/setsize 99",
        "hash/setexpire 99", "fstp/setfstp 0", "shutdown",
    ],
)  # fmt: skip
def test_what_changes_something_needs_the_right_to_manage(line: str) -> None:
    net = Net(manage=False)
    before = net.policy.state(), net.maxports
    assert net.fail(line) == (errno.EPERM, "you may not")
    assert (net.policy.state(), net.maxports, net.gone) == (*before, [])
    allowed = answer(Net(), line)
    assert allowed is not None
    assert allowed.status == (SHUTDOWN if line == "shutdown" else 0)


@given(st.sampled_from(COMMANDS), st.text() | st.text("0123456789 -:xa.", max_size=20), st.booleans())
def test_whatever_is_said_has_an_answer(command: Command, words: str, hub: bool) -> None:
    net = Net()
    if hub:
        net.ask("port/sethub 1")
    said = answer(net, f"{command.path} {words}")
    assert said is not None
    assert said.status in (LOGOUT, SHUTDOWN) or said.status >= 0
    assert said.lines is not None or said.status in (0, LOGOUT, SHUTDOWN, errno.ENOSYS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_help_tells_of_each_command_in_columns(command: Command) -> None:
    lines = Net().ask(f"help {command.path}")
    assert lines is not None
    assert lines[:2] == ["COMMAND PATH       SYNTAX          HELP", "------------       --------------  ------------"]
    assert f"{command.path:18} {command.syntax:15} {command.help}" in lines[2:]
    assert all(line.startswith(command.path) for line in lines[2:])


def test_what_a_network_of_ours_has_not_is_refused_with_the_reason() -> None:
    refused = [command.path for command in COMMANDS if command.help.startswith("not supported")]
    assert "load" in refused
    for path in refused:
        number, sentence = Net().fail(f"{path} 1 2")
        assert number == errno.EOPNOTSUPP
        assert sentence.startswith(f"{path} is not supported: ")


def test_a_session_can_be_left_with_any_right() -> None:
    assert answer(Net(manage=False), "logout") == Answer(None, LOGOUT)


# -- the network and its ports -------------------------------------------------------------------------------------


def test_showinfo_begins_with_the_greeting_and_tells_of_the_network() -> None:
    assert Net().ask("showinfo") == [
        "VDE switch V.9", "", "", "pid 77", "network /run/lab perm 0750",
        "policy vdeswitch, lossy, members 2 of 32, mtu 1514, pool 8",
    ]  # fmt: skip


def test_ds_showinfo_tells_where_vde_clients_connect() -> None:
    assert Net().ask("ds/showinfo") == ["ctl dir /run/lab.vde", "std mode 0750"]


def test_a_port_is_printed_in_the_columns_of_vde() -> None:
    assert Net().ask("port/print 0003") == [
        "Port 0003 untagged_vlan=0000 ACTIVE - Unnamed Allocatable",
        " Current User: 1000 Access Control: (User: NONE - Group: NONE)",
        " IN:  pkts          5          bytes                  500",
        " OUT: pkts         60          bytes                 6000",
        "  -- endpoint ID 0103 module vde         : a guest",
        "              unsent packets: 2 max 8",
    ]


def test_print_shows_ports_in_use_and_allprint_those_that_are_set_up_too() -> None:
    net = Net()
    net.ask("port/setvlan 9 20")
    ports = [line[:9] for line in net.ask("port/print") or () if line.startswith("Port")]
    everything = [line[:38] for line in net.ask("port/allprint") or () if line.startswith("Port")]
    assert ports == ["Port 0000", "Port 0003"]
    assert everything[2] == "Port 0009 untagged_vlan=0020 INACTIVE "
    assert net.fail("port/print 9")[0] == errno.ENXIO
    assert net.ask("port/allprint 9")


def test_the_number_of_ports_is_shown_and_set() -> None:
    net = Net()
    net.ask("port/setnumports 40")
    assert (net.ask("port/showinfo") or [])[:2] == ["Numports=40", "HUB=false"]


def test_sethub_makes_a_hub_of_a_switch_and_back() -> None:
    net = Net()
    net.ask("port/sethub 1")
    assert net.policy.number == IPN_BROADCAST
    assert "HUB=true" in (net.ask("port/showinfo") or [])
    net.ask("port/sethub 1")
    net.ask("port/sethub 0")
    assert net.policy.number == IPN_VDESWITCH


def test_sethub_does_not_lose_what_was_set_up() -> None:
    net = Net()
    net.ask("port/setvlan 3 10")
    assert net.fail("port/sethub 1")[0] == errno.EBUSY
    net.ask("port/setvlan 3 0")
    net.ask("port/sethub 1")


def test_sethub_leaves_other_policies_alone() -> None:
    net = Net()
    net.set_policy(L3Switch.number)
    assert net.fail("port/sethub 1")[0] == errno.EOPNOTSUPP
    net.ask("port/sethub 0")
    assert net.policy.name == "l3switch"


def test_a_port_that_is_there_cannot_be_created_and_one_in_use_not_removed() -> None:
    net = Net()
    assert net.fail("port/create 3")[0] == errno.EEXIST
    assert net.fail("port/remove 3")[0] == errno.EADDRINUSE
    net.ask("port/create 9")
    net.ask("port/setvlan 9 20")
    assert net.fail("port/create 9")[0] == errno.EEXIST
    net.ask("port/remove 9")
    assert net.policy.state()["ports"] == {}


def test_epclose_puts_out_who_has_that_id_and_nobody_else() -> None:
    net = Net()
    assert net.fail("port/epclose 3 55")[0] == errno.ENXIO
    assert net.fail("port/epclose 4")[0] == errno.ENXIO
    assert net.gone == []
    net.ask("port/epclose 3 103")
    net.ask("port/epclose 0")
    assert net.gone == [3, 0]


# -- VLANs ---------------------------------------------------------------------------------------------------------


def ports_of(net: Net) -> dict[str, Any]:
    configured: dict[str, Any] = net.policy.state()["ports"]
    return configured


def test_a_hub_and_a_switch_without_vlans_have_vlan_0() -> None:
    net = Net()
    expected = [
        "VLAN 0000",
        " -- Port 0000 tagged=0 active=1 status=Forwarding",
        " -- Port 0003 tagged=0 active=1 status=Forwarding",
    ]
    assert net.ask("vlan/print") == net.ask("vlan/print 0") == expected
    net.ask("port/sethub 1")
    assert net.ask("vlan/allprint") == expected


def test_a_script_for_vde_sets_up_access_ports_and_a_trunk() -> None:
    net = Net()
    for line in ("vlan/create 10", "vlan/create 20", "port/create 9", "port/setvlan 3 10", "port/setvlan 9 4095",
                 "vlan/addport 10 9", "vlan/addport 20 9"):  # fmt: skip
        net.ask(line)
    assert ports_of(net) == {"3": {"pvid": 10}, "9": {"pvid": 0, "tagged": [10, 20]}}
    assert net.ask("vlan/print") == [
        "VLAN 0001",
        " -- Port 0000 tagged=0 active=1 status=Forwarding",
        "VLAN 0010",
        " -- Port 0003 tagged=0 active=1 status=Forwarding",
        "VLAN 0020",
    ]
    assert net.ask("vlan/allprint 10") == [
        "VLAN 0010",
        " -- Port 0003 tagged=0 active=1 status=Forwarding",
        " -- Port 0009 tagged=1 active=0 status=Forwarding",
    ]
    assert "Port 0009 untagged_vlan=4095 INACTIVE - Unnamed Allocatable" in (net.ask("port/allprint") or ())
    assert net.fail("vlan/print 30")[0] == errno.ENXIO


def test_a_vlan_without_tags_is_no_longer_one_with_tags() -> None:
    net = Net()
    net.ask("vlan/addport 10 3")
    net.ask("vlan/addport 20 3")
    net.ask("port/setvlan 3 10")
    assert ports_of(net) == {"3": {"pvid": 10, "tagged": [20]}}


def test_a_port_stays_without_tags_in_the_vlan_that_it_has_without() -> None:
    net = Net()
    net.ask("port/setvlan 3 10")
    net.ask("vlan/addport 10 3")
    assert ports_of(net) == {"3": {"pvid": 10}}
    assert net.fail("vlan/delport 10 3")[0] == errno.EADDRINUSE


def test_taking_back_all_vlans_leaves_nothing_set_up() -> None:
    net = Net()
    for line in ("port/setvlan 3 10", "vlan/addport 20 3", "vlan/delport 20 3", "port/setvlan 3 0"):
        net.ask(line)
    assert ports_of(net) == {}
    assert (net.ask("vlan/print") or [])[0] == "VLAN 0000"


def test_vlans_with_ports_are_neither_created_nor_removed_and_1_is_always_there() -> None:
    net = Net()
    net.ask("vlan/remove 10")
    net.ask("port/setvlan 3 10")
    assert net.fail("vlan/create 10")[0] == errno.EEXIST
    assert net.fail("vlan/remove 10")[0] == errno.EADDRINUSE
    assert net.fail("vlan/create 1")[0] == errno.EEXIST


def test_a_port_blocked_by_the_loop_guard_is_discarding() -> None:
    net = Net()
    net.policy.guard.block(3, net.net.now + 30)  # type: ignore[attr-defined]
    assert " -- Port 0003 tagged=0 active=1 status=Discarding" in (net.ask("vlan/print") or ())


@pytest.mark.parametrize("line", ["vlan/create 9", "port/setvlan 3 9", "hash/print", "hash/showinfo", "hash/setsize 9"])
def test_a_hub_says_that_it_is_no_switch_and_how_it_becomes_one(line: str) -> None:
    net = Net()
    net.ask("port/sethub 1")
    number, sentence = net.fail(line)
    assert number == errno.EOPNOTSUPP
    assert "port/sethub 0" in sentence


# -- addresses, and the spanning tree that is not there ------------------------------------------------------------


def test_addresses_are_printed_and_found() -> None:
    net = Net()
    net.policy.learn(3, 0, bytes.fromhex("020000000007"))  # type: ignore[attr-defined]
    net.verb("fdb.add", mac="02:00:00:00:00:08", port=0)
    net.net.now += 4.2
    learned = "Addr: 02:00:00:00:00:07 VLAN 0000 to port: 003  age 4 secs"
    assert net.ask("hash/print") == [
        f"Hash: 0000 {learned}", "Hash: 0001 Addr: 02:00:00:00:00:08 VLAN 0000 to port: 000  static",
    ]  # fmt: skip
    for line in ("02:00:00:00:00:07", "2:0:0:0:0:7 0", "02.00.00.00.00.07"):
        assert net.ask(f"hash/find {line}") == [f"Hash: 0000 {learned}"]
    assert net.fail("hash/find 02:00:00:00:00:07 5")[0] == errno.ENODEV


def test_the_size_of_the_table_and_its_time_are_shown_and_set() -> None:
    net = Net()
    net.ask("hash/setsize 64")
    net.ask("hash/setexpire 200")
    assert net.ask("hash/showinfo") == [
        "Hash size 64", "GC interval 50 secs", "GC expire 200 secs", "Min persistence 0 secs",
    ]  # fmt: skip


def test_the_spanning_tree_is_off_and_cannot_be_switched_on() -> None:
    net = Net()
    assert net.ask("fstp/showinfo") == ["FSTP=false"]
    assert net.ask("fstp/setfstp 0") == []
    assert net.fail("fstp/setfstp 1")[0] == errno.EOPNOTSUPP
    assert net.ask("fstp/print") == ["FST DATA VLAN 0000  FSTP IS DISABLED"]
    assert net.ask("fstp/print 7") == ["FST DATA VLAN 0007  FSTP IS DISABLED"]
