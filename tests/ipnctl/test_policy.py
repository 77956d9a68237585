"""``ipnctl policy``."""

from __future__ import annotations

from tests.ipnctl.command import Ipnctl


def test_the_policies_of_the_daemon_are_listed_as_json(ipnctl: Ipnctl) -> None:
    assert {"number": 1, "name": "broadcast"} in ipnctl.run("policy", "list", "--json").ok().json


def test_the_policies_of_the_daemon_are_listed_as_a_table(ipnctl: Ipnctl) -> None:
    heading, *lines = ipnctl.run("policy", "list").ok().text.splitlines()
    assert heading.split() == ["NUMBER", "NAME"]
    assert ["1", "broadcast"] in [line.split() for line in lines]


def test_without_a_daemon_it_says_how_to_start_one(ipnctl: Ipnctl) -> None:
    ipnctl.daemon.end()
    ipnctl.run("policy", "list").failed("no ipnd answers", "start one with: ipnd")
