"""``ipnctl monitor``: what happens on a network, line by line, as it happens."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import ipn
from tests.ipnctl.command import AS_NOBODY, Ipnctl, Started
from tests.ipnctl.host import Host
from tests.peers import requires, requires_root


def started(ipnctl: Ipnctl, network: str, *options: str) -> Started:
    """Start a monitor and return when it watches."""
    command = ipnctl.start("monitor", network, *options)
    command.wait_for(lambda out: b"\n" in out, "the first line")
    return command


def events(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def kinds(out: bytes) -> list[str]:
    return [event["event"] for event in events(out)]


def numbers_told(out: bytes) -> list[tuple[int, int]]:
    """Return the numbers of readers and writers, as they were told."""
    return [(e["numreaders"], e["numwriters"]) for e in events(out) if e["event"] == "numnodes"]


def test_joins_leaves_and_numbers_come_as_json_lines(ipnctl: Ipnctl, network: str) -> None:
    began = time.time()
    command = started(ipnctl, network, "--json")
    with ipn.connect(network):
        command.wait_for(lambda out: kinds(out) == ["network", "join", "numnodes"])
    command.wait_for(lambda out: "leave" in kinds(out) and numbers_told(out)[-1] == (0, 0))
    ipnctl.run("net", "delete", network).ok()
    ended = command.end().ok()
    assert kinds(ended.out)[-1] == "end"
    state, join = events(ended.out)[:2]
    leave = next(event for event in events(ended.out) if event["event"] == "leave")
    assert (state["path"], state["readers"], state["writers"], state["ports"]) == (network, 0, 0, [])
    assert (join["port"], join["pid"], join["uid"], join["rights"]) == (0, os.getpid(), os.geteuid(), "rw")
    assert numbers_told(ended.out)[0] == (1, 1)
    assert (leave["port"], leave["pid"]) == (0, os.getpid())
    times = [event["time"] for event in events(ended.out)]
    assert times == sorted(times)
    assert began <= times[0] <= times[-1] <= time.time()


def test_the_end_comes_last_after_its_members_left(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network):
        command = started(ipnctl, network, "--json")
        ipnctl.run("net", "delete", network).ok()
        assert kinds(command.end().ok().out) == ["network", "leave", "numnodes", "end"]


def test_a_line_for_people_tells_who_and_when(ipnctl: Ipnctl, network: str) -> None:
    command = started(ipnctl, network)
    with ipn.connect(network, send=False):
        command.wait_for(lambda out: b"numbers" in out)
    command.wait_for(lambda out: b"leave" in out and out.count(b"numbers") == 2)
    lines = command.out.read_text().splitlines()
    # A member that closes is told first from its closed half, or as a whole.
    first, join, numbers, *_ = lines
    leave = next(line for line in lines if "  leave " in line)
    assert f"network  {network}  readers 0  writers 0" in first
    assert "join     port 0  stream  r  " in join
    assert f"[{os.getpid()}] of user {os.geteuid()}" in join
    assert "numbers  readers 1  writers 0" in numbers
    assert "leave    port 0" in leave
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  \w", line)


def test_a_daemon_that_dies_ends_it(ipnctl: Ipnctl, network: str) -> None:
    command = started(ipnctl, network, "--json")
    ipnctl.daemon.kill()
    assert kinds(command.end().ok().out) == ["network", "end"]


def test_it_watches_a_network_whose_socket_file_was_deleted(ipnctl: Ipnctl, network: str) -> None:
    os.unlink(network)
    command = started(ipnctl, network, "--json")
    ipnctl.run("net", "delete", network).ok()
    assert kinds(command.end().ok().out) == ["network", "end"]


def test_a_missing_network_is_named(ipnctl: Ipnctl) -> None:
    ipnctl.run("monitor", ipnctl.path("missing")).failed("no network at", ipnctl.path("missing"))


@requires_root
@requires("setpriv")
def test_a_user_without_any_right_may_not_watch(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--mode", "0770").ok()
    ipnctl.run("monitor", path, prefix=AS_NOBODY).failed("no permission")


def test_ctrl_c_ends_it_quietly(ipnctl: Ipnctl, network: str) -> None:
    ended = started(ipnctl, network).interrupt()
    assert (ended.status, ended.err) == (130, "")


def test_changes_of_an_interface_are_told(ipnctl: Ipnctl, network: str, host: Host) -> None:
    as_json, for_people = started(ipnctl, network, "--json"), started(ipnctl, network)
    ipnctl.run("net", "attach-tap", network, "--mac", "02:00:00:00:00:07", prefix=host.prefix).ok()
    host.ip("link", "set", "ipn0", "mtu", "1400", "up")
    as_json.wait_for(lambda out: any((e.get("interface") or {}).get("up") for e in events(out)))
    for_people.wait_for(lambda out: b"ipn0 (up)" in out)
    ipnctl.run("net", "detach", network, "ipn0").ok()
    as_json.wait_for(lambda out: "leave" in kinds(out))
    for_people.wait_for(lambda out: b"leave" in out)
    told = events(as_json.out.read_bytes())
    join = next(event for event in told if event["event"] == "join")
    assert (join["kind"], join["interface"]["name"], join["interface"]["up"]) == ("tap", "ipn0", False)
    *_, changed = (event for event in told if event["event"] == "interface")
    expected = {"name": "ipn0", "up": True, "mtu": 1400, "mac": "02:00:00:00:00:07"}
    assert {name: changed["interface"][name] for name in expected} == expected
    assert changed["port"] == 0
    lines = for_people.out.read_text()
    assert "  join     port 0  tap  rw  ipn0 (down) of user 0\n" in lines
    assert "  changed  port 0  ipn0 (up)  mtu 1400  mac 02:00:00:00:00:07\n" in lines
    assert "  leave    port 0  tap  rw  ipn0 (" in lines
