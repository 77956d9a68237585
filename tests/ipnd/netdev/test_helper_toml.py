"""The rules as administrators write them, rightly and wrongly."""

from __future__ import annotations

import contextlib
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.netdev.helper_rules import GrabRule, Rules, TapRule, Who
from ipnd.netdev.helper_toml import RulesError, parse_rules

EXAMPLE = Path(__file__).parents[3] / "ipnd/units/helper.toml"
USERS, GROUPS = {"alice": 1000, "bob": 1001}, {"kvm": 36}


def parse(text: str) -> Rules:
    return parse_rules(text, USERS.__getitem__, GROUPS.__getitem__)


def test_all_keys_are_understood() -> None:
    rules = parse("""
        [[tap]]
        users = ["alice", 7, "8"]
        groups = ["kvm", 9]
        names = ["ipn*", "vm[12]"]
        mac = true
        mtu = 9000
        up = true
        addresses = ["10.7.0.0/16", "fd00::/8"]
        [[grab]]
        users = ["bob"]
        interfaces = ["eth1", "eth2"]
    """)
    who = Who(frozenset({1000, 7, 8}), frozenset({36, 9}))
    networks = (ip_network("10.7.0.0/16"), ip_network("fd00::/8"))
    assert rules.taps == (TapRule(who, ("ipn*", "vm[12]"), True, 9000, True, networks),)
    assert rules.grabs == (GrabRule(Who(frozenset({1001}), frozenset()), ("eth1", "eth2")),)
    assert rules.warnings == ()


def test_what_is_not_said_is_not_granted() -> None:
    (rule,) = parse('[[tap]]\nusers = ["alice"]\nnames = ["ipn*"]').taps
    assert (rule.mac, rule.mtu, rule.up, rule.addresses) == (False, 1500, False, ())


def test_an_empty_file_grants_nothing() -> None:
    assert parse("") == parse("# nothing yet\n") == Rules()


def test_unknown_users_and_groups_are_nobody_and_a_warning() -> None:
    rules = parse('[[tap]]\nusers = ["alice", "ghost"]\ngroups = ["ghosts"]\nnames = ["x"]')
    assert rules.taps[0].who == Who(frozenset({1000}), frozenset())
    assert rules.warnings == (
        "[[tap]] rule 1: there is no user 'ghost' here",
        "[[tap]] rule 1: there is no group 'ghosts' here",
    )


def test_the_example_that_comes_with_the_units_is_valid() -> None:
    text = EXAMPLE.read_text()
    rules = parse(text)
    assert (len(rules.taps), len(rules.grabs), rules.warnings) == (1, 0, ())
    suggested = text.replace("# [[grab]]", "[[grab]]").replace("# users", "users").replace("# interfaces", "interfaces")
    assert parse(suggested).grabs == (GrabRule(Who(frozenset({1000}), frozenset()), ("eth1",)),)


TAP = '[[tap]]\nusers = ["alice"]\nnames = ["ipn*"]\n'
GRAB = '[[grab]]\nusers = ["alice"]\ninterfaces = ["eth1"]\n'


@pytest.mark.parametrize(
    "text, words",
    [
        ("[[tap]", "not TOML"),
        ('tap = "all"', r"rules start with \[\[tap\]\]"),
        ("tap = [1]", r"rules start with \[\[tap\]\]"),
        ("[tap]\nusers = []", r"rules start with \[\[tap\]\]"),
        ("[[taps]]\n", r"unknown key 'taps'"),
        ("version = 1\n", r"unknown key 'version'"),
        (TAP + "macs = true", r"\[\[tap\]\] rule 1: unknown key 'macs'"),
        (TAP + TAP + "interfaces = []", r"\[\[tap\]\] rule 2: unknown key 'interfaces'"),
        (GRAB + "mac = true", r"\[\[grab\]\] rule 1: unknown key 'mac'"),
        ('[[tap]]\nnames = ["x"]', "for nobody: it needs users or groups"),
        ('[[tap]]\nusers = []\nnames = ["x"]', "for nobody"),
        ('[[tap]]\nusers = "alice"\nnames = ["x"]', "users is a list"),
        ('[[tap]]\nusers = [-1]\nnames = ["x"]', "-1 in users is no name and no number of a user"),
        ('[[tap]]\nusers = [4294967295]\nnames = ["x"]', "no number"),
        ('[[tap]]\nusers = [true]\nnames = ["x"]', "True in users"),
        ('[[tap]]\nusers = [1.0]\nnames = ["x"]', "1.0 in users"),
        ('[[tap]]\nusers = [""]\nnames = ["x"]', "no name"),
        ('[[tap]]\ngroups = [["kvm"]]\nnames = ["x"]', "in groups is no name and no number of a group"),
        ("[[tap]]\nusers = [1]", "needs names"),
        ("[[tap]]\nusers = [1]\nnames = []", "needs names"),
        ('[[tap]]\nusers = [1]\nnames = "ipn*"', "names is a list"),
        ("[[tap]]\nusers = [1]\nnames = [1]", "1 in names is no text"),
        ('[[tap]]\nusers = [1]\nnames = [""]', "no pattern"),
        ('[[tap]]\nusers = [1]\nnames = ["a/b"]', "no pattern"),
        ('[[tap]]\nusers = [1]\nnames = ["a b"]', "no pattern"),
        (TAP + 'mac = "yes"', "mac is true or false, not 'yes'"),
        (TAP + "up = 1", "up is true or false, not 1"),
        (TAP + 'mtu = "9000"', "mtu is a number from 68 to 65521"),
        (TAP + "mtu = true", "mtu is a number"),
        (TAP + "mtu = 67", "mtu is a number"),
        (TAP + "mtu = 65522", "mtu is a number"),
        (TAP + 'addresses = "10.0.0.0/8"', "addresses is a list"),
        (TAP + "addresses = [10]", "10 in addresses is no network like '10.7.0.0/16'"),
        (TAP + 'addresses = ["10.0.0.0/33"]', "10.0.0.0/33"),
        (TAP + 'addresses = ["10.0.0.1/8"]', "has host bits set"),
        ("[[grab]]\nusers = [1]", "needs interfaces"),
        ('[[grab]]\nusers = [1]\ninterfaces = ["eth*"]', "not by patterns like 'eth"),
        ('[[grab]]\nusers = [1]\ninterfaces = ["eth0:1"]', "alias"),
        ('[[grab]]\nusers = [1]\ninterfaces = [""]', "missing"),
    ],
)
def test_what_is_not_understood_makes_the_file_invalid_and_says_where(text: str, words: str) -> None:
    with pytest.raises(RulesError, match=words):
        parse(text)


@given(st.text(max_size=200))
def test_any_text_is_rules_or_a_rules_error(text: str) -> None:
    for candidate in (text, TAP + text, GRAB + text):
        with contextlib.suppress(RulesError):
            parse(candidate)
