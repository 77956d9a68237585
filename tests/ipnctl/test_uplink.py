"""``ipnctl uplink``: add, list, remove, and what it says when that cannot be."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.ipnctl.command import Ipnctl
from tests.peers import requires
from tests.waiting import eventually


def states(ipnctl: Ipnctl, network: str) -> dict[str, str]:
    return {row["address"]: row["state"] for row in ipnctl.run("uplink", "list", network, "--json").ok().json}


@requires("slirp4netns")
def test_slirp_comes_up_is_listed_and_goes(ipnctl: Ipnctl, network: str) -> None:
    given = ("--program", "slirp4netns", "--cidr", "10.9.0.0/24", "--mtu", "1400", "--disable-host-loopback")
    assert ipnctl.run("uplink", "add", network, "--slirp", *given).ok().text == ""
    eventually(lambda: states(ipnctl, network) == {"slirp": "up"})
    (row,) = ipnctl.run("uplink", "list", network, "--json").ok().json
    assert row["group"] == "uplink"
    assert row["options"] == {"program": "slirp4netns", "cidr": "10.9.0.0/24", "mtu": 1400, "host": False}
    table = ipnctl.run("uplink", "list", network).ok().text
    assert "slirp" in table
    assert "up" in table
    assert "slirp4netns" in ipnctl.run("net", "show", network).ok().text
    ipnctl.run("uplink", "remove", network, "slirp").ok()
    assert states(ipnctl, network) == {}


def test_a_socket_is_found_from_where_the_command_runs(ipnctl: Ipnctl, network: str) -> None:
    path = ipnctl.path("server")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(path)
        server.listen()
        there = Path(path).parent
        relative = ("sh", "-c", f'cd {there} && exec "$@"', "sh")
        made = ipnctl.run("uplink", "add", network, "--passt", "server", "--json", prefix=relative).ok().json
        assert (made["kind"], made["address"]) == ("passt", path)
        eventually(lambda: states(ipnctl, network) == {path: "up"})
        ipnctl.run("uplink", "remove", network, "server", prefix=relative).ok()
        assert states(ipnctl, network) == {}


def test_an_uplink_that_has_to_wait_is_added_and_that_is_said(ipnctl: Ipnctl, network: str) -> None:
    path = ipnctl.path("nothing")
    ran = ipnctl.run("uplink", "add", network, "--passt", path)
    assert (ran.status, ran.out) == (0, b"")
    assert ran.err == f"ipnctl: there is no socket at {path}; the uplink comes up as soon as it can\n"
    assert path in states(ipnctl, network)
    ipnctl.run("uplink", "add", network, "--passt", path).failed("already", "ipnctl uplink list")
    ipnctl.run("uplink", "remove", network, path).ok()


def test_what_is_not_there_cannot_be_removed(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.run("uplink", "remove", network, "slirp").failed(f"{network} has no uplink slirp; it has none")
    ipnctl.run("uplink", "add", network, "--passt", ipnctl.path("a"))
    ipnctl.run("uplink", "remove", network, "slirp").failed(f"it has {ipnctl.path('a')}")
    ipnctl.run("uplink", "list", ipnctl.path("no-net")).failed("no-net", "ipnctl net list")


WRONG: Final = (
    (),
    ("--slirp", "--passt", "socket"),
    ("--passt", "socket", "--mtu", "1500"),
    ("--passt", "socket", "--disable-host-loopback"),
    ("--slirp", "--program", "sh"),
    ("--slirp", "--mtu", "0"),
    ("--slirp", "--mtu", "65521"),
)


def test_wrong_usage_ends_with_2(ipnctl: Ipnctl, network: str) -> None:
    for options in WRONG:
        ran = ipnctl.run("uplink", "add", network, *options)
        assert (ran.status, ran.out) == (2, b""), options
    assert states(ipnctl, network) == {}
