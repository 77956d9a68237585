"""The gateways of ``ipnctl net create`` and ``net set``: ``--vde``, ``--dgram``, ``--seqpacket`` and ``--close``."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import ipn
from tests.cables import fixtures_of, networks
from tests.ipnctl.command import AS_NOBODY, Ipnctl
from tests.peers import requires, requires_root
from tests.waiting import eventually


def gateways(ipnctl: Ipnctl, *kinds: str) -> list[str]:
    """Return the options for one gateway of each kind, at a path called so."""
    return [word for kind in kinds for word in (f"--{kind}", ipnctl.path(kind))]


def kinds_of(path: str) -> dict[str, str]:
    return {fixture["address"]: fixture["kind"] for fixture in fixtures_of(path)}


def test_create_makes_the_network_with_its_gateways(ipnctl: Ipnctl) -> None:
    net, door = ipnctl.path("net"), ipnctl.path("door")
    options = gateways(ipnctl, "vde", "dgram", "seqpacket")
    made = ipnctl.run("net", "create", net, *options, "--seqpacket", door, "--json").ok().json
    assert [(fixture["kind"], fixture["state"]) for fixture in made["fixtures"]] == [
        ("vde", "up"), ("dgram", "up"), ("seqpacket", "up"), ("seqpacket", "up"),
    ]  # fmt: skip
    assert {fixture["group"] for fixture in made["fixtures"]} == {"gateway"}
    assert os.path.exists(ipnctl.path("vde/ctl"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer, ipn.connect(net, timeout=5) as member:
        peer.connect(door)
        peer.send(b"through the door")
        assert member.recv() == b"through the door"


def test_when_one_gateway_cannot_be_had_there_is_no_network(ipnctl: Ipnctl) -> None:
    net = ipnctl.path("net")
    Path(ipnctl.path("dgram")).write_text("precious")
    refused = ipnctl.run("net", "create", net, *gateways(ipnctl, "vde", "dgram"))
    refused.failed(ipnctl.path("dgram"))
    assert [os.path.exists(ipnctl.path(name)) for name in ("net", "vde", "vde.mgmt")] == [False] * 3
    assert Path(ipnctl.path("dgram")).read_text() == "precious"


def test_set_adds_gateways_to_a_living_network_and_close_takes_them_away(ipnctl: Ipnctl) -> None:
    (net,) = networks(ipnctl.daemon, "net")
    door, vde = ipnctl.path("seqpacket"), ipnctl.path("vde")
    shown = ipnctl.run("net", "set", net, *gateways(ipnctl, "vde", "seqpacket"), "--json").ok().json
    assert {fixture["address"] for fixture in shown["fixtures"]} == {door, vde}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer, ipn.connect(net, timeout=5):
        peer.settimeout(5)
        peer.connect(door)
        eventually(lambda: ipnctl.run("net", "show", net, "--json").json["members"] == 2)
        ipnctl.run("net", "set", net, "--close", door).ok()
        assert peer.recv(10) == b"", "who came through it leaves"
        assert kinds_of(net) == {vde: "vde"}
    assert not os.path.exists(door)


def test_a_gateway_may_be_replaced_in_one_go(ipnctl: Ipnctl) -> None:
    (net,) = networks(ipnctl.daemon, "net")
    door = ipnctl.path("seqpacket")
    ipnctl.run("net", "set", net, "--seqpacket", door).ok()
    ipnctl.run("net", "set", net, "--close", door, "--dgram", door, "--ports", "7").ok()
    assert kinds_of(net) == {door: "dgram"}
    assert ipnctl.run("net", "show", net, "--json").json["maxports"] == 7


def test_relative_paths_are_those_of_who_calls(ipnctl: Ipnctl) -> None:
    (net,) = networks(ipnctl.daemon, "net")
    relative = os.path.relpath(ipnctl.path("door"))
    ipnctl.run("net", "set", net, "--seqpacket", relative).ok()
    assert kinds_of(net) == {ipnctl.path("door"): "seqpacket"}
    ipnctl.run("net", "set", net, "--close", relative).ok()
    assert kinds_of(net) == {}


def test_net_show_lists_what_is_fixed_to_the_network(ipnctl: Ipnctl) -> None:
    net = ipnctl.path("net")
    ipnctl.run("net", "create", net, *gateways(ipnctl, "vde", "dgram")).ok()
    text = ipnctl.run("net", "show", net).ok().text
    assert ipnctl.path("vde") in text
    assert ipnctl.path("dgram") in text


def test_what_cannot_be_is_refused_in_one_line(ipnctl: Ipnctl) -> None:
    (net,) = networks(ipnctl.daemon, "net")
    door, taken = ipnctl.path("door"), ipnctl.path("taken")
    Path(taken).touch()
    ipnctl.run("net", "set", net, "--close", door).failed("no gateway at", door, "net show")
    ipnctl.run("net", "set", net, "--seqpacket", taken).failed(taken)
    ipnctl.run("net", "set", net, "--dgram", ipnctl.path("no/door")).failed("no/door")
    ipnctl.run("net", "set", net, "--vde", ipnctl.path("x" * 90)).failed("x" * 90)
    ipnctl.run("net", "set", net, "--seqpacket", door).ok()
    ipnctl.run("net", "set", net, "--seqpacket", door).failed(door, "already")
    ipnctl.run("net", "set", net, "--dgram", door).failed(door)
    assert kinds_of(net) == {door: "seqpacket"}
    nothing = ipnctl.run("net", "set", net)
    assert (nothing.status, "--vde" in nothing.err) == (2, True)


@requires("setpriv")
@requires_root
def test_gateways_need_x_on_the_network(ipnctl: Ipnctl) -> None:
    (net,), door = networks(ipnctl.daemon, "net", mode=0o776), ipnctl.path("door")
    ipnctl.run("net", "set", net, "--seqpacket", door, prefix=AS_NOBODY).failed(net, "x", "chmod")
    ipnctl.run("net", "set", net, "--seqpacket", door).ok()
    ipnctl.run("net", "set", net, "--close", door, prefix=AS_NOBODY).failed(net, "x")
    assert kinds_of(net) == {door: "seqpacket"}


@requires("setpriv")
@requires_root
def test_a_gateway_is_made_with_the_rights_of_who_asks(ipnctl: Ipnctl) -> None:
    (net,) = networks(ipnctl.daemon, "net", mode=0o777)
    door = ipnctl.path("door")  # in a directory where only its owner may make files
    ipnctl.run("net", "set", net, "--seqpacket", door, prefix=AS_NOBODY).failed(door)
    assert not os.path.exists(door)
    assert kinds_of(net) == {}
