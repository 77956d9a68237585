"""Who may have which interface: the judgement, as tables."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_network

import pytest

from ipnd.netdev.helper_request import GrabRequest, TapRequest
from ipnd.netdev.helper_rules import GrabRule, Rules, TapRule, Who

ALICE, BOB = 1000, 1001
KVM, STAFF = 36, 50
NOTHING: frozenset[int] = frozenset()


def who(*users: int, groups: tuple[int, ...] = ()) -> Who:
    return Who(frozenset(users), frozenset(groups))


def tap_rule(*names: str, for_whom: Who | None = None, **more: object) -> TapRule:
    rule = TapRule(for_whom or who(ALICE), names or ("*",), False, 1500, False, ())
    return replace(rule, **more)  # type: ignore[arg-type]


PLAIN = TapRequest("ipn0", None, None, False, ())


def verdict(rules: Rules, request: TapRequest | GrabRequest, uid: int = ALICE, groups: frozenset[int] = NOTHING) -> str:
    """Return which rule grants it, or why none does."""
    try:
        return rules.judge(request, uid, groups)
    except PermissionError as refusal:
        return str(refusal.strerror) if refusal.errno == errno.EPERM else f"errno {refusal.errno}"


def granted(rule: TapRule, request: TapRequest) -> bool:
    return verdict(Rules(taps=(rule,)), request) == "[[tap]] rule 1"


# -- for whom ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "for_whom, uid, groups, expected",
    [
        (who(ALICE), ALICE, [], True),
        (who(ALICE), BOB, [], False),
        (who(ALICE, BOB), BOB, [], True),
        (who(groups=(KVM,)), BOB, [KVM], True),
        (who(groups=(KVM,)), BOB, [STAFF, KVM], True),
        (who(groups=(KVM,)), BOB, [STAFF], False),
        (who(groups=(KVM,)), KVM, [], False),  # a uid is no gid
        (who(KVM), BOB, [KVM], False),
        (who(ALICE, groups=(KVM,)), ALICE, [], True),
        (who(ALICE), 0, [], False),  # nor is root more than the rules say
        (who(), ALICE, [], False),
    ],
)
def test_a_rule_is_for_users_and_for_members_of_groups(
    for_whom: Who, uid: int, groups: list[int], expected: bool
) -> None:
    rules = Rules(taps=(tap_rule(for_whom=for_whom),), grabs=(GrabRule(for_whom, ("eth1",)),))
    said = verdict(rules, PLAIN, uid, frozenset(groups))
    assert (said == "[[tap]] rule 1") == expected
    assert expected or said == f"the helper's rules do not let user {uid} make ipn0: no [[tap]] rule is for them"
    said = verdict(rules, GrabRequest("eth1"), uid, frozenset(groups))
    assert (said == "[[grab]] rule 1") == expected
    assert expected or said == f"the helper's rules do not let user {uid} grab eth1: no [[grab]] rule is for them"


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern, name, expected",
    [
        ("ipn0", "ipn0", True),
        ("ipn0", "ipn00", False),
        ("ipn*", "ipn0", True),
        ("ipn*", "ipn", True),
        ("ipn*", "xipn0", False),
        ("ipn*", "IPN0", False),
        ("vm?", "vm1", True),
        ("vm?", "vm12", False),
        ("vm[12]", "vm2", True),
        ("vm[12]", "vm3", False),
        ("vm[!1]", "vm1", False),
        ("*", "anything", True),
        # A family: the kernel puts any number.
        ("ipn*", "ipn%d", True),
        ("i*", "ipn%d", True),
        ("*", "ipn%d", True),
        ("ipn%d", "ipn%d", True),
        ("ipn*", "ipn%dx", True),
        ("ipn0*", "ipn%d", False),
        ("ipn?", "ipn%d", False),
        ("ipn??", "ipn%d", False),
        ("ipn[0-9]", "ipn%d", False),
        ("ipn[0-9]*", "ipn%d", False),
        ("ip?*", "ipn%d", False),
        ("*n*", "ipn%d", False),
        ("*0", "ipn%d", False),
        ("*d", "ipn%d", False),
        ("ipn0", "ipn%d", False),
        ("ipn%d", "ipn7", False),
        ("vm*", "ipn%d", False),
    ],
)
def test_a_pattern_covers_a_name_or_a_whole_family(pattern: str, name: str, expected: bool) -> None:
    assert granted(tap_rule(pattern), replace(PLAIN, name=name)) == expected


def test_any_of_the_patterns_will_do() -> None:
    assert granted(tap_rule("vm*", "ipn*"), PLAIN)


# -- the other wishes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_, rule, missing",
    [
        (replace(PLAIN, mac="02:00:00:00:00:01"), tap_rule(mac=True), ""),
        (replace(PLAIN, mac="02:00:00:00:00:01"), tap_rule(), "its MAC address may not be chosen"),
        (replace(PLAIN, up=True), tap_rule(up=True), ""),
        (replace(PLAIN, up=True), tap_rule(), "it may not be set up"),
        (replace(PLAIN, mtu=1500), tap_rule(), ""),
        (replace(PLAIN, mtu=1501), tap_rule(), "its MTU 1501 is above 1500"),
        (replace(PLAIN, mtu=9000), tap_rule(mtu=9000), ""),
        (replace(PLAIN, mtu=9001), tap_rule(mtu=9000), "its MTU 9001 is above 9000"),
        (PLAIN, tap_rule(mtu=1400), "its MTU 1500 is above 1400"),  # which it would have
        (replace(PLAIN, mtu=1400), tap_rule(mtu=1400), ""),
    ],
)
def test_each_wish_needs_its_grant(request_: TapRequest, rule: TapRule, missing: str) -> None:
    assert "; ".join(rule.missing(request_)) == missing
    assert granted(rule, request_) == (not missing)


@pytest.mark.parametrize(
    "networks, address, expected",
    [
        (["10.7.0.0/16"], "10.7.0.1/16", True),
        (["10.7.0.0/16"], "10.7.3.1/24", True),
        (["10.7.0.0/16"], "10.7.3.1/32", True),
        (["10.7.0.0/16"], "10.8.0.1/16", False),
        (["10.7.0.0/16"], "10.7.0.1/8", False),  # would take all of 10.0.0.0/8
        (["10.7.0.0/16"], "10.7.0.1/0", False),
        (["10.8.0.0/16", "10.7.0.0/16"], "10.7.0.1/16", True),
        (["fd00::/8"], "fd12::1/64", True),
        (["fd00::/8"], "fe80::1/64", False),
        (["::/0"], "10.7.0.1/24", False),
        (["0.0.0.0/0"], "fd00::1/64", False),
        (["0.0.0.0/0"], "10.0.0.1/0", True),
        ([], "10.7.0.1/24", False),
    ],
)
def test_an_address_and_what_it_makes_reachable_must_lie_in_a_network(
    networks: list[str], address: str, expected: bool
) -> None:
    rule = tap_rule(addresses=tuple(map(ip_network, networks)))
    assert granted(rule, replace(PLAIN, addresses=(address,))) == expected


def test_every_address_must_be_granted() -> None:
    rule = tap_rule(addresses=(ip_network("10.7.0.0/16"),))
    missing = list(rule.missing(replace(PLAIN, addresses=("10.7.0.1/24", "10.8.0.1/24"))))
    assert missing == ["the address 10.8.0.1/24 is not inside 10.7.0.0/16"]
    assert list(tap_rule().missing(replace(PLAIN, addresses=("10.8.0.1/24",)))) == [
        "the address 10.8.0.1/24 is not to be given"
    ]


@pytest.mark.parametrize("name, expected", [("eth1", True), ("eth2", True), ("eth10", False), ("eth", False)])
def test_an_interface_to_grab_must_be_listed(name: str, expected: bool) -> None:
    rules = Rules(grabs=(GrabRule(who(ALICE), ("eth1", "eth2")),))
    assert (verdict(rules, GrabRequest(name)) == "[[grab]] rule 1") == expected


# -- several rules -----------------------------------------------------------------------------------------


def test_the_first_rule_that_grants_all_of_it_counts() -> None:
    rules = Rules(taps=(tap_rule("vm*", mtu=9000), tap_rule("ipn*"), tap_rule("*", mac=True), tap_rule("*")))
    assert verdict(rules, PLAIN) == "[[tap]] rule 2"
    assert verdict(rules, replace(PLAIN, mac="02:00:00:00:00:01")) == "[[tap]] rule 3"
    assert verdict(rules, replace(PLAIN, name="vm1", mtu=9000)) == "[[tap]] rule 1"


def test_rules_do_not_add_up_and_the_refusal_tells_what_each_lacks() -> None:
    rules = Rules(taps=(tap_rule("ipn*", mac=True), tap_rule(for_whom=who(BOB)), tap_rule("*", mtu=9000)))
    said = verdict(rules, replace(PLAIN, name="vm0", mac="02:00:00:00:00:01", mtu=9000))
    assert said == (
        f"the helper's rules do not let user {ALICE} make vm0: "
        "[[tap]] rule 1: its name is not among ipn*; its MTU 9000 is above 1500, "
        "[[tap]] rule 3: its MAC address may not be chosen"
    )


def test_a_refusal_stays_short_however_many_rules_there_are() -> None:
    assert len(verdict(Rules(taps=tuple(tap_rule("x") for _ in range(1000))), PLAIN)) < 1000


def test_what_a_user_may_is_told_in_words_and_as_data() -> None:
    rules = Rules(
        taps=(tap_rule(for_whom=who(BOB)), tap_rule("ipn*", "vm?", mac=True, up=True)),
        grabs=(GrabRule(who(ALICE), ("eth1", "eth2")),),
    )
    found = rules.of(ALICE, NOTHING)
    assert [(kind, number, str(rule)) for kind, number, rule in found] == [
        ("tap", 2, "make a TAP named ipn* or vm? (MTU up to 1500; any MAC address; may be set up; no addresses)"),
        ("grab", 1, "grab eth1 or eth2"),
    ]
    assert found[0][2].describe() == {"names": ["ipn*", "vm?"], "mac": True, "mtu": 1500, "up": True, "addresses": []}
    assert found[1][2].describe() == {"interfaces": ["eth1", "eth2"]}
