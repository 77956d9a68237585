"""``ipnctl impair`` against a real network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import AS_NOBODY, Ipnctl
from tests.peers import requires_root
from tests.waiting import eventually

NOTHING = {"delay_ms": 0, "jitter_ms": 0, "loss": 0, "rate": 0, "duplicate": 0, "reorder": 0, "seed": 3}
COUNTS = dict.fromkeys(("waiting", "lost", "duplicated", "reordered", "overflowed"), 0)


@pytest.fixture
def member(network: str) -> Iterator[ipn.Socket]:
    """Give a member on port 3."""
    with ipn.connect(network, port=3, timeout=5) as member:
        yield member


def impairment(path: str, port: int = 3) -> dict[str, Any]:
    shown = next(row for row in admin.show_network(path)["ports"] if row["port"] == port)
    return dict(shown.get("impairment", {}))


@pytest.mark.usefixtures("member")
def test_units_are_those_that_people_write(ipnctl: Ipnctl, network: str) -> None:
    for given, expected in (
        (("--delay", "10ms", "--jitter", "500us"), {"delay_ms": 10, "jitter_ms": 0.5}),
        (("--delay", "1.5s", "--reorder", "25%"), {"delay_ms": 1500, "reorder": 25}),
        (("--delay", "7", "--loss", "0.5"), {"delay_ms": 7, "loss": 0.5}),
        (("--rate", "10mbit"), {"rate": 10_000_000}),
        (("--rate", "1.5Gbit/s", "--duplicate", ".5%"), {"rate": 1_500_000_000, "duplicate": 0.5}),
        (("--rate", "64k", "--seed", "42"), {"rate": 64_000, "seed": 42}),
    ):
        way = {**NOTHING, **COUNTS, **expected}
        assert ipnctl.run("impair", network, "3", *given, "--json").ok().json == {"in": way, "out": way}
        assert impairment(network) == {"in": way, "out": way}


@pytest.mark.usefixtures("member")
def test_directions_are_set_shown_and_cleared_apart(ipnctl: Ipnctl, network: str) -> None:
    run = ipnctl.run
    assert run("impair", network, "3").ok().text == "not impaired\n"
    assert run("impair", network, "3", "--direction", "in", "--loss", "10%").ok().text == ""
    run("impair", network, "3", "--direction", "out", "--delay", "5ms", "--seed", "9").ok()
    assert run("impair", network, "3").ok().text == "in: loss 10, seed 3\nout: delay ms 5, seed 9\n"
    assert set(run("impair", network, "3", "--direction", "in", "--clear", "--json").ok().json) == {"out"}
    run("impair", network, "3", "--clear").ok()
    assert run("impair", network, "3", "--json").ok().json == {}


def test_what_is_lost_is_counted_and_shown(ipnctl: Ipnctl, network: str, member: ipn.Socket) -> None:
    ipnctl.run("impair", network, "3", "--direction", "out", "--loss", "100%").ok()
    with ipn.connect(network) as other:
        other.send_many([b"lost"] * 12)
        eventually(lambda: impairment(network)["out"]["lost"] == 12)
        assert ipnctl.run("impair", network, "3").ok().text == "out: loss 100, seed 3, lost 12\n"
        ipnctl.run("impair", network, "3", "--clear").ok()
        other.send(b"found")
        assert member.recv() == b"found"


@pytest.mark.parametrize(
    "wrong, words",
    [
        (("--delay", "10 parsecs"), "'10 parsecs' is no time; write it as in 10ms"),
        (("--rate", "fast"), "'fast' is no rate; write it as in 10mbit"),
        (("--rate", "10MB"), "'10MB' is no rate"),
        (("--loss", "-1"), "'-1' is no percentage"),
        (("--loss", "nan"), "'nan' is no percentage"),
        (("--direction", "up", "--loss", "1"), "'up' is not one of"),
        (("--clear", "--loss", "1"), "--clear goes with no setting"),
        (("--seed", "1"), "Say what --seed is for"),
    ],
)
def test_wrong_usage_is_told_apart(ipnctl: Ipnctl, wrong: tuple[str, ...], words: str) -> None:
    ran = ipnctl.run("impair", "/nowhere", "3", *wrong)
    assert ran.status == 2
    assert words in ran.err


@pytest.mark.usefixtures("member")
def test_a_refusal_says_what_and_why(ipnctl: Ipnctl, network: str) -> None:
    run = ipnctl.run
    run("impair", network, "7", "--loss", "1").failed(f"nobody is on port 7 of {network}", "ipnctl net show")
    run("impair", network, "7").failed(f"nobody is on port 7 of {network}", "ipnctl net show")
    run("impair", network, "3", "--loss", "200%").failed("'loss' of an impairment must be from 0 to 100 %\n")
    run("impair", network, "3", "--jitter", "5ms").failed("a jitter of 5 ms needs a delay of at least as much")
    run("impair", network, "3", "--reorder", "5").failed("reorder needs a delay")
    run("impair", ipnctl.path("none"), "3", "--loss", "1").failed("none")
    assert impairment(network) == {}


@requires_root
@pytest.mark.usefixtures("member")
def test_who_may_not_manage_the_network_may_not_impair_it(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("open")
    ipnctl.run("net", "create", path, "--mode", "0666").ok()
    with ipn.connect(path, port=3):
        refused = ipnctl.run("impair", path, "3", "--loss", "1", prefix=AS_NOBODY)
        refused.failed("managing", "x permission")
        assert ipnctl.run("impair", path, "3", prefix=AS_NOBODY).ok().text == "not impaired\n"
