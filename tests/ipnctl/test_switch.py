"""``ipnctl switch`` against a real switch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import AS_NOBODY, Ipnctl
from tests.peers import requires, requires_root

DOCUMENT = Path(__file__).parents[2] / "docs/switching.md"
ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def frame(to: str, source: str) -> bytes:
    return bytes.fromhex((to + source).replace(":", "")) + b"\x08\x00" + bytes(46)


@pytest.fixture
def switch(ipnctl: Ipnctl) -> str:
    """Give the path of a switch with nobody on it."""
    path = ipnctl.path("switch")
    ipnctl.run("net", "create", path, "--policy", "vdeswitch", "--lossless").ok()
    return path


@pytest.fixture
def members(switch: str) -> Iterator[tuple[ipn.Socket, ipn.Socket]]:
    """Give two members, on ports 0 and 1; the first has been heard of."""
    with ipn.connect(switch, port=0, timeout=10) as one, ipn.connect(switch, port=1, timeout=10) as other:
        one.send(frame(BROADCAST, ONE))
        assert other.recv() == frame(BROADCAST, ONE)
        yield one, other


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[1:]]


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("members")
def test_a_learned_address_is_shown_with_its_port(ipnctl: Ipnctl, switch: str) -> None:
    (entry,) = ipnctl.run("switch", "fdb", "show", switch, "--json").ok().json
    assert (entry["mac"], entry["port"], entry["static"]) == (ONE, 0, False)
    assert 0 <= entry["age"] < 60
    text = ipnctl.run("switch", "fdb", "show", switch).ok().text
    assert text.splitlines()[0].split() == ["VLAN", "MAC", "PORT", "AGE", "STATIC"]
    assert rows(text)[0][1:3] == [ONE, "0"]


@pytest.mark.usefixtures("members")
def test_addresses_are_found_by_port_and_by_name(ipnctl: Ipnctl, switch: str) -> None:
    assert ipnctl.run("switch", "fdb", "show", switch, "--port", "1", "--json").ok().json == []
    assert len(ipnctl.run("switch", "fdb", "show", switch, "--port", "0", "--json").ok().json) == 1
    assert ONE in ipnctl.run("switch", "fdb", "find", switch, ONE).ok().text
    assert TWO not in ipnctl.run("switch", "fdb", "show", switch).ok().text


def test_a_static_address_is_used_outlives_the_daemon_and_goes_when_removed(ipnctl: Ipnctl, switch: str) -> None:
    assert ipnctl.run("switch", "fdb", "add", switch, TWO, "1").ok().out == b""
    ipnctl.daemon.kill()
    ipnctl.daemon.start()
    (entry,) = ipnctl.run("switch", "fdb", "show", switch, "--json").ok().json
    assert (entry["mac"], entry["port"], entry["static"]) == (TWO, 1, True)
    assert rows(ipnctl.run("switch", "fdb", "show", switch).ok().text)[0][-1] == "yes"
    with (
        ipn.connect(switch, port=0, timeout=10) as one,
        ipn.connect(switch, port=1, timeout=10) as two,
        ipn.connect(switch, port=2, timeout=10) as three,
    ):
        one.send(frame(TWO, ONE))
        one.send(frame(BROADCAST, ONE))
        assert two.recv() == frame(TWO, ONE)
        assert three.recv() == frame(BROADCAST, ONE)
    ipnctl.run("switch", "fdb", "remove", switch, TWO).ok()
    assert TWO not in ipnctl.run("switch", "fdb", "show", switch).ok().text


@pytest.mark.usefixtures("members")
def test_flush_forgets_the_learned_and_on_request_the_static_addresses(ipnctl: Ipnctl, switch: str) -> None:
    ipnctl.run("switch", "fdb", "add", switch, TWO, "1").ok()
    assert ipnctl.run("switch", "fdb", "flush", switch, "--json").ok().json == {"removed": 1}
    assert [row["mac"] for row in admin.policy_verb(switch, "fdb.show")] == [TWO]
    assert ipnctl.run("switch", "fdb", "flush", switch, "--static").ok().out == b""
    assert admin.policy_verb(switch, "fdb.show") == []


def test_an_address_that_is_not_there_is_a_failure_with_what_to_do(ipnctl: Ipnctl, switch: str) -> None:
    ipnctl.run("switch", "fdb", "remove", switch, TWO).failed(TWO, "ipnctl switch fdb show")


@pytest.mark.parametrize("mac", ["nonsense", "02:00:00:00:00", BROADCAST])
def test_what_is_no_address_of_a_host_is_refused(ipnctl: Ipnctl, switch: str, mac: str) -> None:
    ipnctl.run("switch", "fdb", "add", switch, mac, "1").failed(mac)
    assert admin.policy_verb(switch, "fdb.show") == []


# -- ports -------------------------------------------------------------------------------------------------------------


def test_a_port_is_set_up_shown_and_reset(ipnctl: Ipnctl, switch: str) -> None:
    options = ("--pvid", "10", "--tagged", "20-22,30", "--isolate", "--address-limit", "4", "--broadcast-rate", "100")
    assert ipnctl.run("switch", "port", switch, "3", *options).ok().out == b""
    (shown,) = ipnctl.run("switch", "port", switch, "3", "--json").ok().json
    expected = {"port": 3, "pvid": 10, "isolated": True, "address_limit": 4, "broadcast_rate": 100}
    assert {name: shown[name] for name in expected} == expected
    text = ipnctl.run("switch", "port", switch).ok().text
    row = next(row for row in rows(text) if row[0] == "3")
    assert "20-22,30" in row
    ipnctl.run("switch", "port", switch, "3", "--no-isolate", "--tagged", "none").ok()
    (shown,) = ipnctl.run("switch", "port", switch, "3", "--json").ok().json
    assert (shown["isolated"], shown["pvid"]) == (False, 10)
    ipnctl.run("switch", "port", switch, "3", "--reset").ok()
    (shown,) = ipnctl.run("switch", "port", switch, "3", "--json").ok().json
    assert shown["pvid"] == 1


def test_two_isolated_ports_do_not_reach_each_other(ipnctl: Ipnctl, switch: str) -> None:
    for port in ("0", "1"):
        ipnctl.run("switch", "port", switch, port, "--isolate").ok()
    with (
        ipn.connect(switch, port=0) as one,
        ipn.connect(switch, port=1, timeout=10) as two,
        ipn.connect(switch, port=2, timeout=10) as three,
    ):
        one.send(frame(BROADCAST, ONE))
        assert three.recv() == frame(BROADCAST, ONE)
        three.send(frame(BROADCAST, TWO))
        assert two.recv() == frame(BROADCAST, TWO)


def test_access_ports_of_two_vlans_are_apart_and_a_trunk_has_both(ipnctl: Ipnctl, switch: str) -> None:
    ipnctl.run("switch", "port", switch, "0", "--pvid", "10").ok()
    ipnctl.run("switch", "port", switch, "1", "--pvid", "20").ok()
    ipnctl.run("switch", "port", switch, "2", "--tagged", "10,20").ok()
    with (
        ipn.connect(switch, port=0) as ten,
        ipn.connect(switch, port=1, timeout=10) as twenty,
        ipn.connect(switch, port=2, timeout=10) as trunk,
    ):
        plain = frame(BROADCAST, ONE)
        ten.send(plain)
        assert trunk.recv() == plain[:12] + b"\x81\x00\x00\x0a" + plain[12:]
        answer = frame(BROADCAST, TWO)
        trunk.send(answer[:12] + b"\x81\x00\x00\x14" + answer[12:])
        assert twenty.recv() == answer


@pytest.mark.parametrize("wrong", ["20-10", "4095", "ten"])
def test_vlans_that_there_are_not_are_refused(ipnctl: Ipnctl, switch: str, wrong: str) -> None:
    ipnctl.run("switch", "port", switch, "1", "--tagged", wrong).failed(wrong)


@pytest.mark.parametrize("wrong", [("--pvid", "10"), ("1", "--pvid", "4095"), ("1", "--address-limit", "-1"), ("x",)])
def test_wrong_usage_of_port_ends_with_2(ipnctl: Ipnctl, switch: str, wrong: tuple[str, ...]) -> None:
    assert ipnctl.run("switch", "port", switch, *wrong).status == 2


# -- the switch --------------------------------------------------------------------------------------------------------


def test_settings_are_changed_shown_and_kept(ipnctl: Ipnctl, switch: str) -> None:
    options = ("--ageing", "300", "--max-entries", "100", "--port-limit", "10", "--forward-reserved")
    loop = ("--loop-moves", "5", "--loop-seconds", "2", "--loop-block", "30")
    ipnctl.run("switch", "set", switch, *options, *loop).ok()
    ipnctl.daemon.kill()
    ipnctl.daemon.start()
    shown = ipnctl.run("switch", "show", switch, "--json").ok().json
    expected = {"ageing": 300, "max_entries": 100, "port_limit": 10, "forward_reserved": True, "loop_moves": 5}
    expected |= {"loop_seconds": 2, "loop_block": 30}
    assert {name: shown[name] for name in expected} == expected
    lines = [line.split() for line in ipnctl.run("switch", "show", switch).ok().text.splitlines()]
    assert ["ageing:", "300"] in lines
    assert ["forward", "reserved:", "yes"] in lines


def test_nothing_to_set_is_wrong_usage(ipnctl: Ipnctl, switch: str) -> None:
    assert ipnctl.run("switch", "set", switch).status == 2


@pytest.mark.parametrize("command", [("fdb", "show"), ("port",), ("show",)])
def test_a_network_that_is_no_switch_is_told_with_what_to_do(
    ipnctl: Ipnctl, network: str, command: tuple[str, ...]
) -> None:
    ipnctl.run("switch", *command, network).failed("broadcast", "--policy vdeswitch")


def test_a_missing_network_is_named(ipnctl: Ipnctl) -> None:
    ipnctl.run("switch", "show", ipnctl.path("missing")).failed("no network at", ipnctl.path("missing"), "net list")


@requires_root
@requires("setpriv")
def test_who_lacks_x_may_look_but_not_change(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--policy", "vdeswitch", "--mode", "0776").ok()
    ipnctl.run("switch", "fdb", "show", path, prefix=AS_NOBODY).ok()
    refused = ipnctl.run("switch", "fdb", "add", path, ONE, "1", prefix=AS_NOBODY)
    refused.failed("x permission", "chmod")
    assert admin.policy_verb(path, "fdb.show") == []


# -- the document ------------------------------------------------------------------------------------------------------


def test_every_command_of_the_document_works_as_it_is_typed_there(ipnctl: Ipnctl) -> None:
    ipnctl.run("net", "create", ipnctl.path("bus")).ok()
    blocks = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("/run/lab", ipnctl.path("")).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    assert len(commands) > 40
    for program, *arguments in commands:
        assert program == "ipnctl"
        ipnctl.run(*arguments).ok()
