"""``ipnctl net attach-tap``, ``attach-grab`` and ``detach``, on hosts of their own, against a real daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import AS_NOBODY, Ipnctl, Ran
from tests.ipnctl.host import Host
from tests.ipnctl.test_completion import answers
from tests.peers import requires, requires_root
from tests.waiting import eventually

MAC = "02:00:00:00:00:07"


def on(host: Host, ipnctl: Ipnctl, *arguments: str) -> Ran:
    """Run ``ipnctl net`` on a host."""
    return ipnctl.run("net", *arguments, prefix=host.prefix)


def interfaces(network: str) -> list[dict[str, Any]]:
    return [port["interface"] for port in admin.show_network(network)["ports"] if "interface" in port]


def states(network: str) -> list[tuple[str, bool]]:
    return [(interface["name"], interface["up"]) for interface in interfaces(network)]


# -- attach-tap ------------------------------------------------------------------------------------------------------


def test_a_tap_is_made_on_the_host_and_its_name_printed(ipnctl: Ipnctl, network: str, host: Host) -> None:
    assert on(host, ipnctl, "attach-tap", network).ok().out == b"ipn0\n"
    assert on(host, ipnctl, "attach-tap", network).ok().out == b"ipn1\n"
    assert [port["kind"] for port in admin.show_network(network)["ports"]] == ["tap", "tap"]
    link = host.link("ipn1")
    assert link is not None
    assert (link["mtu"], "UP" in link["flags"], host.addresses("ipn1")) == (1500, False, set())


def test_every_option_of_a_tap_is_followed(ipnctl: Ipnctl, network: str, host: Host) -> None:
    options = ("--name", "lab0", "--mac", MAC, "--up", "--address", "10.9.0.1/24", "--address", "fd09::1/64")
    port = on(host, ipnctl, "attach-tap", network, *options, "--json").ok().json
    link = host.link("lab0")
    assert link is not None
    assert (link["address"], "UP" in link["flags"]) == (MAC, True)
    assert host.addresses("lab0") == {"10.9.0.1/24", "fd09::1/64"}
    expected = {"name": "lab0", "index": link["ifindex"], "mtu": 1500, "mac": MAC, "lifetime": "network"}
    assert {name: port["interface"][name] for name in expected} == expected
    assert (port["kind"], port["uid"], port["rights"]) == ("tap", 0, "rw")


def test_a_pattern_becomes_the_first_free_name(ipnctl: Ipnctl, network: str, host: Host) -> None:
    assert on(host, ipnctl, "attach-tap", network, "--name", "vm%d").ok().text == "vm0\n"


def test_the_mtu_follows_the_networks(ipnctl: Ipnctl, host: Host) -> None:
    path = ipnctl.path("jumbo")
    ipnctl.run("net", "create", path, "--mtu", "9014").ok()
    on(host, ipnctl, "attach-tap", path).ok()
    assert (host.link("ipn0") or {})["mtu"] == 9000


def test_json_tells_the_port_that_was_made_now_though_another_host_has_that_name(
    ipnctl: Ipnctl, network: str, new_host: Callable[[], Host]
) -> None:
    made = [on(new_host(), ipnctl, "attach-tap", network, "--json").ok().json for _ in range(3)]
    assert [port["interface"]["name"] for port in made] == ["ipn0", "ipn0", "ipn0"]
    assert [port["port"] for port in made] == [0, 1, 2]


@requires("ping")
def test_two_hosts_ping_each_other_through_their_taps(
    ipnctl: Ipnctl, network: str, new_host: Callable[[], Host]
) -> None:
    hosts = [new_host(), new_host()]
    for number, host in enumerate(hosts, 1):
        on(host, ipnctl, "attach-tap", network, "--up", "--address", f"10.9.0.{number}/24").ok()
    assert "1 received" in hosts[0].run("ping", "-c", "1", "-W", "5", "-s", "1472", "-M", "do", "10.9.0.2")


def test_a_tap_ends_with_its_network(ipnctl: Ipnctl, network: str, host: Host) -> None:
    on(host, ipnctl, "attach-tap", network).ok()
    ipnctl.run("net", "delete", network).ok()
    eventually(lambda: host.link("ipn0") is None)


def test_a_tap_ends_with_the_daemon_unless_it_persists(ipnctl: Ipnctl, network: str, host: Host) -> None:
    ipnctl.daemon.prefix = host.prefix
    ipnctl.daemon.restart()
    on(host, ipnctl, "attach-tap", network).ok()
    on(host, ipnctl, "attach-tap", network, "--name", "kept", "--persist").ok()
    index = (host.link("kept") or {})["ifindex"]
    ipnctl.daemon.kill()
    assert host.link("ipn0") is None
    ipnctl.daemon.start()
    assert (host.link("kept") or {})["ifindex"] == index
    assert [interface["lifetime"] for interface in interfaces(network)] == ["persistent"]


@requires_root
@requires("setpriv")
def test_without_privilege_and_helper_it_says_what_to_do(ipnctl: Ipnctl, host: Host) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--mode", "0777").ok()
    ipnctl.daemon.env["IPN_HELPER"] = ipnctl.path("no-helper")
    for command in (("attach-tap", path), ("attach-grab", path, "lo")):
        ran = ipnctl.run("net", *command, prefix=(*host.prefix, *AS_NOBODY))
        ran.failed("no helper answers at", ipnctl.path("no-helper"), "run it as root", "ipnctl helper check")
        assert "chmod" not in ran.err
    assert admin.show_network(path)["ports"] == []


@requires_root
@requires("setpriv")
def test_without_x_on_the_network_it_says_who_gives_it(ipnctl: Ipnctl, host: Host) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--mode", "0776").ok()
    on(host, ipnctl, "attach-tap", path).ok()
    nobody = (*host.prefix, *AS_NOBODY)
    for command in (("attach-tap", path), ("attach-grab", path, "lo"), ("detach", path, "ipn0")):
        ipnctl.run("net", *command, prefix=nobody).failed("needs its x permission", "its owner gives x")


def test_a_full_network_takes_no_interface_and_nothing_is_left_of_it(ipnctl: Ipnctl, host: Host) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--ports", "1").ok()
    with ipn.connect(path):
        on(host, ipnctl, "attach-tap", path).failed("all 1 ports", "ipnctl net resize")
    eventually(lambda: host.link("ipn0") is None)


def test_a_missing_network_is_named(ipnctl: Ipnctl, host: Host) -> None:
    for command in (("attach-tap",), ("attach-grab", "lo"), ("detach", "ipn0")):
        name, *more = command
        on(host, ipnctl, name, ipnctl.path("missing"), *more).failed("no network at", "ipnctl net list")
    assert host.link("ipn0") is None
    assert not os.path.lexists(ipnctl.path("missing"))


@pytest.mark.parametrize(
    "wrong",
    [
        ("--name", "a/b"),
        ("--name", "much-too-long-a-name"),
        ("--name", "eth0:1"),
        ("--mac", "eth0"),
        ("--mac", "01:00:00:00:00:01"),
        ("--mac", "00:00:00:00:00:00"),
        ("--address", "10.0.0.1"),
        ("--address", "10.0.0.1/255.255.255.0"),
        ("--address", "10.0.0.300/24"),
        ("--address", "fd00::1/200"),
    ],
)
def test_a_wrong_option_is_wrong_usage(ipnctl: Ipnctl, network: str, wrong: tuple[str, str]) -> None:
    ran = ipnctl.run("net", "attach-tap", network, *wrong)
    assert (ran.status, ran.out) == (2, b"")
    assert f"Error: Invalid value for '{wrong[0]}'" in ran.err


# -- attach-grab -----------------------------------------------------------------------------------------------------


@requires("ping")
def test_a_grabbed_interface_joins_a_wire_to_the_network(
    ipnctl: Ipnctl, network: str, new_host: Callable[[], Host]
) -> None:
    gateway, wired, member = new_host(), new_host(), new_host()
    gateway.ip("link", "add", "wire", "type", "veth", "peer", "name", "eth0", "netns", wired.name)
    gateway.ip("link", "set", "wire", "up")
    wired.ip("address", "add", "10.9.0.1/24", "dev", "eth0")
    wired.ip("link", "set", "eth0", "up")
    assert on(gateway, ipnctl, "attach-grab", network, "wire").ok().text == "wire\n"
    on(member, ipnctl, "attach-tap", network, "--up", "--address", "10.9.0.2/24").ok()
    assert "1 received" in member.run("ping", "-c", "1", "-W", "5", "10.9.0.1")
    port = next(port for port in admin.show_network(network)["ports"] if port["kind"] == "grab")
    assert (port["interface"]["name"], port["interface"]["lifetime"]) == ("wire", "network")
    assert port["rx_frames"] > 0
    assert port["tx_frames"] > 0


def veth(host: Host) -> None:
    host.ip("link", "add", "wire", "type", "veth", "peer", "name", "far")
    host.ip("link", "set", "wire", "up")


def test_a_grabbed_interface_prints_its_port_as_json_and_stays_after_detach(
    ipnctl: Ipnctl, network: str, host: Host
) -> None:
    veth(host)
    port = on(host, ipnctl, "attach-grab", network, "wire", "--json").ok().json
    assert (port["kind"], port["interface"]["name"]) == ("grab", "wire")
    assert (host.link("wire") or {}).get("promiscuity", 1) == 1
    on(host, ipnctl, "detach", network, "wire").ok()
    assert interfaces(network) == []
    assert host.link("wire") is not None


def test_what_cannot_be_grabbed_is_refused_with_the_reason(ipnctl: Ipnctl, network: str, host: Host) -> None:
    veth(host)
    on(host, ipnctl, "attach-grab", network, "lo").failed("loopback")
    on(host, ipnctl, "attach-grab", network, "eth9").failed("no interface eth9")
    on(host, ipnctl, "attach-grab", network, "a/b").failed("a path")
    on(host, ipnctl, "attach-grab", network, "wire").ok()
    on(host, ipnctl, "attach-grab", network, "wire").failed("grabbed already", "ipnctl net show")
    assert [name for name, _ in states(network)] == ["wire"]


# -- detach, show, completion ------------------------------------------------------------------------------------------


def test_detach_ends_a_tap_also_one_that_persists(ipnctl: Ipnctl, network: str, host: Host) -> None:
    for options in ((), ("--persist",)):
        on(host, ipnctl, "attach-tap", network, *options).ok()
        assert on(host, ipnctl, "detach", network, "ipn0").ok().out == b""
        assert interfaces(network) == []
        eventually(lambda: host.link("ipn0") is None)


def test_detaching_what_is_not_there_says_where_to_look(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network):
        ipnctl.run("net", "detach", network, "ipn7").failed("ipn7", "ipnctl net show")


def test_show_has_the_interface_and_its_state_in_the_place_of_a_command(
    ipnctl: Ipnctl, network: str, host: Host
) -> None:
    on(host, ipnctl, "attach-tap", network, "--up").ok()
    on(host, ipnctl, "attach-tap", network).ok()
    veth(host)
    on(host, ipnctl, "attach-grab", network, "wire").ok()
    lines = ipnctl.run("net", "show", network).ok().text.splitlines()
    assert [line.split()[1] for line in lines[-3:]] == ["tap", "tap", "grab"]
    for line, shown in zip(lines[-3:], ("ipn0 (up)", "ipn1 (down)", "wire (no carrier)"), strict=True):
        assert f" {shown} " in line
    host.ip("link", "set", "ipn1", "up")
    host.ip("link", "set", "far", "up")
    eventually(lambda: states(network) == [("ipn0", True), ("ipn1", True), ("wire", True)])
    eventually(lambda: "wire (up)" in ipnctl.run("net", "show", network).ok().text)


def test_show_says_when_an_interface_has_moved(ipnctl: Ipnctl, network: str, new_host: Callable[[], Host]) -> None:
    host, other = new_host(), new_host()
    on(host, ipnctl, "attach-tap", network, "--up").ok()
    host.ip("link", "set", "ipn0", "netns", other.name)
    eventually(lambda: " ipn0 (moved) " in ipnctl.run("net", "show", network).ok().text)


def test_show_names_what_could_not_be_had_again_until_it_is_detached(ipnctl: Ipnctl, network: str, host: Host) -> None:
    ipnctl.daemon.prefix = host.prefix
    ipnctl.daemon.restart()
    veth(host)
    on(host, ipnctl, "attach-grab", network, "wire").ok()
    ipnctl.daemon.end()
    host.ip("link", "delete", "wire")
    ipnctl.daemon.start()
    assert "  missing: wire, which ipnd could not have again" in ipnctl.run("net", "show", network).ok().text
    ipnctl.run("net", "detach", network, "wire").ok()
    assert "missing" not in ipnctl.run("net", "show", network).ok().text


def test_a_shell_completes_interfaces(ipnctl: Ipnctl, network: str, host: Host) -> None:
    on(host, ipnctl, "attach-tap", network, "--name", "lab0").ok()
    on(host, ipnctl, "attach-tap", network).ok()
    assert answers(ipnctl, f"ipnctl net detach {network} l") == ["plain,lab0"]
    assert answers(ipnctl, f"ipnctl net detach {ipnctl.path('missing')} l") == [""]
    here = sorted(name for name in os.listdir("/sys/class/net") if name != "lo")
    assert answers(ipnctl, f"ipnctl net attach-grab {network} ") == [f"plain,{name}" for name in here]
