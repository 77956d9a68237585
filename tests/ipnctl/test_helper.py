"""``ipnctl helper check``: how a user stands with a real helper, and with none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ipnctl.command import AS_NOBODY, Ipnctl
from tests.peers import NOBODY, requires, requires_root
from tests.waiting import eventually

RULES = f"""
[[tap]]
users = [{NOBODY}]
names = ["lab*"]

[[grab]]
users = [{NOBODY}]
interfaces = ["eth1"]
"""


@pytest.fixture
def rules(ipnctl: Ipnctl) -> Iterator[Path]:
    """Run a helper, which the command finds; give the path of its rules, which are none yet."""
    path = Path(ipnctl.path("helper.toml"))
    path.write_text("")
    path.chmod(0o644)
    address = ipnctl.daemon.env["IPN_HELPER"] = ipnctl.path("helper")
    command = [sys.executable, "-m", "ipnd.netdev.helper", "--socket", address, "--rules", str(path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: os.path.exists(address), 10, "the helper never listened")
            yield path
        finally:
            process.terminate()


@requires_root
def test_root_needs_no_helper(ipnctl: Ipnctl) -> None:
    ipnctl.daemon.env["IPN_HELPER"] = ipnctl.path("no-helper")
    text = ipnctl.run("helper", "check").ok().text
    assert text.startswith("you may make TAPs and grab interfaces yourself, with CAP_NET_ADMIN and CAP_NET_RAW\n")
    assert "for others: no helper answers" in text


@requires_root
@requires("setpriv")
def test_without_privilege_and_helper_the_status_is_1_and_it_says_what_to_do(ipnctl: Ipnctl) -> None:
    ipnctl.daemon.env["IPN_HELPER"] = ipnctl.path("no-helper")
    ran = ipnctl.run("helper", "check", prefix=AS_NOBODY)
    assert (ran.status, ran.err) == (1, "")
    assert "you may not make TAPs and grab interfaces without the helper" in ran.text
    assert f"problem: no helper answers at {ipnctl.path('no-helper')}" in ran.text
    assert "start it with" in ran.text
    report = ipnctl.run("helper", "check", "--json", prefix=AS_NOBODY)
    assert report.status == 1
    assert (report.json["running"], report.json["own"], report.json["allowed"]) == (False, [], [])


@requires_root
@requires("setpriv")
def test_a_helper_whose_rules_are_for_others_allows_nothing(ipnctl: Ipnctl, rules: Path) -> None:
    ran = ipnctl.run("helper", "check", prefix=AS_NOBODY)
    assert ran.status == 1
    assert f"the helper answers at {ipnctl.path('helper')}\n" in ran.text
    assert "it allows you nothing" in ran.text


@requires_root
@requires("setpriv")
def test_what_its_rules_allow_is_told_a_rule_a_line(ipnctl: Ipnctl, rules: Path) -> None:
    rules.write_text(RULES)
    lines = ipnctl.run("helper", "check", prefix=AS_NOBODY).ok().text.splitlines()
    assert any(line.startswith("it allows you to make a TAP named lab*") for line in lines)
    assert "it allows you to grab eth1" in lines
    assert not any(line.startswith("problem") for line in lines)
    assert len(ipnctl.run("helper", "check", "--json", prefix=AS_NOBODY).ok().json["allowed"]) == 2


@requires_root
@requires("setpriv")
def test_rules_that_the_helper_cannot_use_are_a_problem(ipnctl: Ipnctl, rules: Path) -> None:
    rules.write_text("[[tap]]\nnmaes = []\n")
    ran = ipnctl.run("helper", "check", prefix=AS_NOBODY)
    assert ran.status == 1
    assert "problem: " in ran.text
