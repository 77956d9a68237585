"""``ipnctl net set``, and what ``net show`` tells of the policy."""

from __future__ import annotations

import pytest

import ipn
from ipn import admin
from ipnctl import tables
from tests.ipnctl.command import AS_NOBODY, Ipnctl
from tests.peers import requires, requires_root


def test_the_policy_of_a_live_network_changes_and_its_members_stay(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network, timeout=10) as one, ipn.connect(network, timeout=10) as other:
        ipnctl.run("net", "set", network, "--policy", "vdeswitch").ok()
        assert admin.show_network(network)["policy"] == "vdeswitch"
        frame = b"\xff" * 6 + b"\x02" + bytes(53)
        one.send(frame)
        assert other.recv() == frame
        ipnctl.run("net", "set", network, "--policy", "hub").ok()
        one.send(b"short")
        assert other.recv() == b"short"


def test_the_number_of_ports_changes(ipnctl: Ipnctl, network: str) -> None:
    assert ipnctl.run("net", "set", network, "--ports", "64", "--json").ok().json["maxports"] == 64


def test_a_changed_policy_outlives_the_daemon(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.run("net", "set", network, "--policy", "vdeswitch", "--ports", "9").ok()
    ipnctl.daemon.kill()
    ipnctl.daemon.start()
    shown = admin.show_network(network)
    assert (shown["policy"], shown["maxports"]) == ("vdeswitch", 9)


def test_ports_in_use_are_not_cut_off(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network, port=9):
        ipnctl.run("net", "set", network, "--ports", "9").failed("port 9", "in use", "ipnctl net show")
    assert admin.show_network(network)["maxports"] == 32


@pytest.mark.parametrize("name", ["telepathy", "any"])
def test_a_policy_that_there_is_not_is_wrong_usage(ipnctl: Ipnctl, network: str, name: str) -> None:
    ran = ipnctl.run("net", "set", network, "--policy", name)
    assert (ran.status, ran.out) == (2, b"")
    assert "Invalid value for '--policy'" in ran.err
    assert name in ran.err
    assert admin.show_network(network)["policy"] == "broadcast"


def test_nothing_to_change_is_wrong_usage(ipnctl: Ipnctl, network: str) -> None:
    assert ipnctl.run("net", "set", network).status == 2


@pytest.mark.parametrize("options", [("--policy", "vdeswitch"), ("--policy", "another"), ("--ports", "4")])
def test_a_missing_network_is_named(ipnctl: Ipnctl, options: tuple[str, str]) -> None:
    ran = ipnctl.run("net", "set", ipnctl.path("missing"), *options)
    if options[1] == "another":
        assert ran.status == 2  # its daemon cannot be asked, ours does not know the name
    else:
        ran.failed("no network at", ipnctl.path("missing"))


@requires_root
@requires("setpriv")
def test_who_lacks_x_may_not_change_it(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--mode", "0776").ok()
    refused = ipnctl.run("net", "set", path, "--policy", "vdeswitch", prefix=AS_NOBODY)
    refused.failed("needs its x permission", "chmod")
    assert admin.show_network(path)["policy"] == "broadcast"


# -- what is told to people --------------------------------------------------------------------------------------------


def test_the_reasons_of_drops_are_told_most_first_and_without_zeros() -> None:
    entry = {"path": "/n", "policy": "p", "drops": {"runt": 3, "never": 0, "table full": 12}}
    assert "  dropped: 12 table full, 3 runt" in tables.summary(entry).splitlines()
    assert "dropped" not in tables.summary({**entry, "drops": {"never": 0}})


def test_what_the_policy_tells_is_on_lines_of_its_own() -> None:
    state = {"max_entries": 9, "full": False, "router": {"mac": None, "mtu": 1.5}, "ports": [1, 2], "why": None}
    entry = {"path": "/n", "policy": "p", "policy_state": state}
    lines = tables.summary(entry).splitlines()
    assert lines[-2:] == ["  p: max entries 9, full no, ports 1,2, why none", "  router: mac none, mtu 1.5"]


def test_what_a_policy_tells_cannot_drive_the_terminal() -> None:
    entry = {"path": "/n", "policy": "p", "policy_state": {"a": "\x1b[2J"}, "drops": {"\x1b[2J": 1}}
    assert "\x1b" not in tables.summary(entry)
