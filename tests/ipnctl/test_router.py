"""``ipnctl router`` against a real layer-3 switch."""

from __future__ import annotations

import pytest

from ipn import admin
from tests.ipnctl.command import AS_NOBODY, Ipnctl
from tests.peers import requires, requires_root

MAC = "02:00:00:00:00:07"


@pytest.fixture
def router(ipnctl: Ipnctl) -> str:
    """Give the path of a router with a subnet of each kind."""
    path = ipnctl.path("router")
    ipnctl.run("net", "create", path, "--policy", "l3switch").ok()
    for address in ("10.1.0.1/24", "fd00:1::1/64"):
        ipnctl.run("router", "address", "add", path, address).ok()
    return path


def heading(text: str) -> list[str]:
    return text.splitlines()[0].split()


def test_addresses_are_added_listed_kept_and_removed(ipnctl: Ipnctl, router: str) -> None:
    ipnctl.run("router", "address", "add", router, "10.2.0.1/24", "--vlan", "20").ok()
    ipnctl.daemon.kill()
    ipnctl.daemon.start()
    listed = ipnctl.run("router", "address", "list", router, "--json").ok().json
    assert {row["address"] for row in listed} >= {"10.1.0.1/24", "10.2.0.1/24", "fd00:1::1/64"}
    assert [row["vlan"] for row in listed if row["address"] == "10.2.0.1/24"] == [20]
    text = ipnctl.run("router", "address", "list", router).ok().text
    assert heading(text) == ["ADDRESS", "VLAN"]
    assert ["10.2.0.1/24", "20"] in [line.split() for line in text.splitlines()]
    ipnctl.run("router", "address", "remove", router, "10.2.0.1/24").ok()
    assert "10.2.0.1" not in ipnctl.run("router", "address", "list", router).ok().text


def test_routes_are_added_listed_kept_and_removed(ipnctl: Ipnctl, router: str) -> None:
    ipnctl.run("router", "route", "add", router, "0.0.0.0/0", "--via", "10.1.0.254").ok()
    ipnctl.run("router", "route", "add", router, "::/0", "--via", "fd00:1::fe").ok()
    ipnctl.daemon.kill()
    ipnctl.daemon.start()
    listed = ipnctl.run("router", "route", "list", router, "--json").ok().json
    assert {(row["prefix"], row["via"]) for row in listed} >= {("0.0.0.0/0", "10.1.0.254"), ("::/0", "fd00:1::fe")}
    text = ipnctl.run("router", "route", "list", router).ok().text
    assert heading(text) == ["PREFIX", "VIA", "VLAN", "KIND"]
    assert "10.1.0.254" in text
    ipnctl.run("router", "route", "remove", router, "0.0.0.0/0").ok()
    ipnctl.run("router", "route", "remove", router, "::/0", "--via", "fd00:1::fe").ok()
    assert not any(row["via"] for row in admin.policy_verb(router, "route.list"))


def test_neighbours_are_added_listed_removed_and_flushed(ipnctl: Ipnctl, router: str) -> None:
    ipnctl.run("router", "neigh", "add", router, "10.1.0.7", MAC).ok()
    (row,) = ipnctl.run("router", "neigh", "list", router, "--json").ok().json
    assert (row["address"], row["mac"], row["queued"]) == ("10.1.0.7", MAC, 0)
    text = ipnctl.run("router", "neigh", "list", router).ok().text
    assert heading(text) == ["ADDRESS", "MAC", "VLAN", "STATE", "AGE", "QUEUED"]
    assert MAC in text
    ipnctl.run("router", "neigh", "remove", router, "10.1.0.7").ok()
    assert admin.policy_verb(router, "neigh.list") == []
    assert ipnctl.run("router", "neigh", "flush", router).ok().out == b""


def test_settings_are_changed_and_shown(ipnctl: Ipnctl, router: str) -> None:
    ipnctl.run("router", "set", router, "--mac", MAC, "--no-advertise", "--mtu", "1400").ok()
    shown = ipnctl.run("router", "show", router, "--json").ok().json
    assert (shown["mac"], shown["advertise"], shown["mtu"]) == (MAC, False, 1400)
    assert ["mac:", MAC] in [line.split() for line in ipnctl.run("router", "show", router).ok().text.splitlines()]


def test_a_router_is_a_switch_as_well(ipnctl: Ipnctl, router: str) -> None:
    ipnctl.run("switch", "port", router, "1", "--pvid", "10").ok()
    assert ipnctl.run("switch", "fdb", "show", router, "--json").ok().json == []


@pytest.mark.parametrize(
    "wrong",
    [
        ("address", "add", "PATH", "10.1.0.300/24"),
        ("address", "add", "PATH", "nonsense"),
        ("route", "add", "PATH", "10.3.0.0/99", "--via", "10.1.0.254"),
        ("route", "add", "PATH", "10.3.0.0/16", "--via", "192.0.2.1"),
        ("route", "remove", "PATH", "10.9.0.0/16"),
        ("neigh", "add", "PATH", "10.1.0.7", "nonsense"),
        ("neigh", "remove", "PATH", "10.1.0.9"),
        ("set", "PATH", "--mac", "ff:ff:ff:ff:ff:ff"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(ipnctl: Ipnctl, router: str, wrong: tuple[str, ...]) -> None:
    before = admin.policy_verb(router, "address.list"), admin.policy_verb(router, "route.list")
    ipnctl.run("router", *(router if word == "PATH" else word for word in wrong)).failed()
    assert (admin.policy_verb(router, "address.list"), admin.policy_verb(router, "route.list")) == before


@pytest.mark.parametrize(
    "wrong", [("set", "PATH"), ("set", "PATH", "--mtu", "65536"), ("route", "add", "PATH", "10.3.0.0/16")]
)
def test_wrong_usage_ends_with_2(ipnctl: Ipnctl, router: str, wrong: tuple[str, ...]) -> None:
    assert ipnctl.run("router", *(router if word == "PATH" else word for word in wrong)).status == 2


@pytest.mark.parametrize("command", [("address", "list"), ("route", "list"), ("neigh", "list"), ("show",)])
def test_a_network_that_is_no_router_is_told_with_what_to_do(
    ipnctl: Ipnctl, network: str, command: tuple[str, ...]
) -> None:
    ipnctl.run("router", *command, network).failed("broadcast", "--policy l3switch")


@requires_root
@requires("setpriv")
def test_who_lacks_x_may_look_but_not_change(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--policy", "l3switch", "--mode", "0776").ok()
    ipnctl.run("router", "route", "list", path, prefix=AS_NOBODY).ok()
    refused = ipnctl.run("router", "address", "add", path, "10.1.0.1/24", prefix=AS_NOBODY)
    refused.failed("x permission", "chmod")
    assert admin.policy_verb(path, "address.list") == []
