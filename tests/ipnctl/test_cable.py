"""``ipnctl cable``, in processes of its own, against a real daemon."""

from __future__ import annotations

import os

import ipn
from ipn import admin
from tests.cables import fixtures_of, networks, the_cable
from tests.ipnctl.command import AS_NOBODY, Ipnctl
from tests.peers import requires, requires_root


def test_add_joins_two_networks_list_shows_it_and_remove_takes_it_out(ipnctl: Ipnctl) -> None:
    a, b = networks(ipnctl.daemon, "a", "b")
    assert ipnctl.run("cable", "add", a, b).ok().out == b""
    with ipn.connect(a) as here, ipn.connect(b, timeout=5) as there:
        here.send(b"over the cable")
        assert there.recv() == b"over the cable"
    header, line = ipnctl.run("cable", "list", a).ok().text.splitlines()
    assert "ADDRESS" in header
    assert b in line
    assert "up" in line.split()
    ipnctl.run("cable", "remove", a, b).ok()
    assert fixtures_of(a) == []


def test_json_is_the_cable_and_the_list_of_cables(ipnctl: Ipnctl) -> None:
    a, b = networks(ipnctl.daemon, "a", "b")
    assert ipnctl.run("cable", "list", a, "--json").ok().json == []
    made = ipnctl.run("cable", "add", a, b, "--json").ok().json
    assert (made["group"], made["kind"], made["address"], made["state"]) == ("cable", "cable", b, "up")
    admin.add_gateway(a, "seqpacket", ipnctl.path("door"))
    assert ipnctl.run("cable", "list", a, "--json").ok().json == [made]
    assert ipnctl.run("cable", "list", b, "--json").ok().json == []


def test_a_cable_that_is_down_says_why(ipnctl: Ipnctl) -> None:
    a, b = networks(ipnctl.daemon, "a", "b")
    ipnctl.run("cable", "add", a, b).ok()
    ipnctl.run("net", "delete", b).ok()
    text = ipnctl.run("cable", "list", a).ok().text
    assert "down" in text.split()
    assert f"no network at {b}" in text
    assert f"no network at {b}" in ipnctl.run("net", "show", a).ok().text


def test_relative_paths_and_symbolic_links_lead_to_the_network(ipnctl: Ipnctl) -> None:
    os.mkdir(ipnctl.path("dir"))
    a, b = networks(ipnctl.daemon, "a", "dir/b")
    os.symlink(b, ipnctl.path("link"))
    os.symlink(ipnctl.path("dir"), ipnctl.path("way"))
    for to in (os.path.relpath(b), ipnctl.path("link"), ipnctl.path("way/b")):
        ipnctl.run("cable", "add", a, to).ok()
        assert the_cable(a)["address"] == b
        ipnctl.run("cable", "remove", a, to).ok()
        assert fixtures_of(a) == []


def test_what_cannot_be_is_refused_in_one_line_that_says_what_to_do(ipnctl: Ipnctl) -> None:
    a, b = networks(ipnctl.daemon, "a", "b")
    nothing = ipnctl.path("nothing")
    ipnctl.run("cable", "add", a, nothing).failed("no network at", nothing)
    ipnctl.run("cable", "add", nothing, a).failed(nothing)
    ipnctl.run("cable", "add", a, a).failed("itself")
    ipnctl.run("cable", "add", a, "carrier-pigeon://b").failed("carrier-pigeon")
    ipnctl.run("cable", "remove", a, b).failed("has no cable", b, "ipnctl net show")
    ipnctl.run("cable", "list", nothing).failed(nothing)
    ipnctl.run("cable", "add", a, b).ok()
    ipnctl.run("cable", "add", a, b).failed(b, "already")
    ipnctl.run("cable", "add", b, a).failed(a, "already")


@requires("setpriv")
@requires_root
def test_who_may_not_is_told_which_right_is_missing(ipnctl: Ipnctl) -> None:
    (a,), (b,) = networks(ipnctl.daemon, "a", mode=0o774), networks(ipnctl.daemon, "b", mode=0o771)
    (mine,) = networks(ipnctl.daemon, "mine", mode=0o777)
    ipnctl.run("cable", "add", a, mine, prefix=AS_NOBODY).failed(a, "x", "chmod")
    ipnctl.run("cable", "add", mine, b, prefix=AS_NOBODY).failed(b, "neither r nor w")
    ipnctl.run("cable", "add", mine, a, prefix=AS_NOBODY).ok()
    ipnctl.run("cable", "list", mine, prefix=AS_NOBODY).ok()
    admin.remove_fixture(mine, "cable", a)
    admin.add_fixture(a, "cable", mine)
    ipnctl.run("cable", "remove", a, mine, prefix=AS_NOBODY).failed(a, "x")
