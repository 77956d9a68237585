"""The published numbers are those of AF_IPN.md: programs compiled against the 2007 header rely on them."""

from __future__ import annotations

import struct

import pytest

import ipn
from ipn import abi
from ipn.abi import NumNodes, policy_name, policy_number

PUBLISHED = {
    "AF_IPN": 34,
    "PF_IPN": 34,
    "SOCK_RAW": 3,
    "IPN_ANY": 0,
    "IPN_BROADCAST": 1,
    "IPN_HUB": 1,
    "IPN_VDESWITCH": 2,
    "IPN_VDESWITCH_L3": 3,
    "IPN_SO_PREBIND": 0x80,
    "IPN_PORTNO_ANY": -1,
    "IPN_DESCRLEN": 128,
    "IPN_FLAG_LOSSLESS": 1,
    "IPN_FLAG_TERMINATED": 0x1000,
    "IPN_OOB_NUMNODE_TAG": 0,
    "IPN_NODEFLAG_BOUND": 0x1,
    "IPN_NODEFLAG_INUSE": 0x2,
    "IPN_NODEFLAG_PERSIST": 0x4,
    "IPN_NODEFLAG_TAP": 0x10,
    "IPN_NODEFLAG_GRAB": 0x20,
    "IPN_NODEFLAG_OOB_NUMNODES": 0x40,
    "IPN_SO_PORT": 0,
    "IPN_SO_DESCR": 1,
    "IPN_SO_CHANGE_NUMNODES": 2,
    "IPN_SO_HANDLE_OOB": 3,
    "IPN_SO_WANT_OOB_NUMNODES": 4,
    "IPN_SO_MTU": 0x80,
    "IPN_SO_NUMNODES": 0x81,
    "IPN_SO_MSGPOOLSIZE": 0x82,
    "IPN_SO_FLAGS": 0x83,
    "IPN_SO_MODE": 0x84,
}

# What a C compiler makes of _IOW('I', 200, int) and the following.
IOCTLS = {
    "IPN_SETPERSIST_NETDEV": 0x400449C8,
    "IPN_CLRPERSIST_NETDEV": 0x400449C9,
    "IPN_CONN_NETDEV": 0x400449CA,
    "IPN_JOIN_NETDEV": 0x400449CB,
    "IPN_SETPERSIST": 0x400449CC,
}


@pytest.mark.parametrize("name, value", PUBLISHED.items())
def test_each_name_has_its_published_value_here_and_in_the_package(name: str, value: int) -> None:
    assert getattr(abi, name) == value
    assert getattr(ipn, name) == value


@pytest.mark.parametrize("name, number", IOCTLS.items())
def test_the_interface_requests_are_iow_i_of_an_int(name: str, number: int) -> None:
    assert getattr(abi, name) == number
    assert getattr(ipn, name) == number


def test_a_new_network_has_the_specified_defaults() -> None:
    assert (abi.DEFAULT_MTU, abi.DEFAULT_NUMNODES, abi.DEFAULT_MSGPOOLSIZE) == (1514, 32, 8)
    assert (abi.DEFAULT_FLAGS, abi.DEFAULT_MODE) == (0, 0o777)


def test_the_mtu_may_be_16_mib() -> None:
    assert abi.MAX_MTU == 16 * 1024 * 1024


def test_a_notice_is_the_c_structure_of_four_native_ints() -> None:
    notice = NumNodes(abi.IPN_ANY, abi.IPN_OOB_NUMNODE_TAG, 3, 2)
    assert notice.pack() == struct.pack("@iiii", 0, 0, 3, 2)
    assert len(notice.pack()) == 16
    assert NumNodes.unpack(notice.pack()) == notice
    assert NumNodes.unpack(notice.pack() + b"more") == notice


def test_a_notice_that_is_too_short_is_an_error() -> None:
    with pytest.raises(struct.error):
        NumNodes.unpack(bytes(15))


@pytest.mark.parametrize(
    "policy, number",
    [("any", 0), ("broadcast", 1), ("hub", 1), ("vdeswitch", 2), ("l3switch", 3), (0, 0), (2, 2), (77, 77)],
)
def test_a_policy_can_be_given_by_name_or_number(policy: str | int, number: int) -> None:
    assert policy_number(policy) == number


def test_a_policy_name_nobody_knows_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"'swich'.*broadcast, vdeswitch, l3switch"):
        policy_number("swich")


@pytest.mark.parametrize("number, name", [(0, "any"), (1, "broadcast"), (2, "vdeswitch"), (9, "9")])
def test_a_policy_number_is_shown_by_its_name_when_it_has_one(number: int, name: str) -> None:
    assert policy_name(number) == name
