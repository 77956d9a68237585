"""Requests to the helper, as clients write them and as nobody should."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.netdev.helper_request import CheckRequest, GrabRequest, TapRequest, decode_request

FULL = {
    "op": "tap",
    "name": "vm0",
    "mac": "2:0:0:0:0:a",
    "mtu": 9000,
    "up": True,
    "addresses": ["10.0.0.1/24", "fd00::1/64"],
}


def test_a_tap_is_asked_for_with_all_or_nothing() -> None:
    whole = TapRequest("vm0", "02:00:00:00:00:0a", 9000, True, ("10.0.0.1/24", "fd00::1/64"))
    assert decode_request(FULL) == whole
    assert str(whole) == "tap vm0 mac 02:00:00:00:00:0a mtu 9000 up 10.0.0.1/24 fd00::1/64"
    bare = TapRequest("ipn%d", None, None, False, ())
    assert decode_request({"op": "tap"}) == decode_request({"op": "tap", "name": "", "mac": None, "mtu": None}) == bare
    assert str(bare) == "tap ipn%d"


def test_a_grab_and_a_check_are_asked_for() -> None:
    assert decode_request({"op": "grab", "name": "eth1"}) == GrabRequest("eth1")
    assert decode_request({"op": "check"}) == CheckRequest()


@pytest.mark.parametrize(
    "message, words",
    [
        ({"op": "tap", "name": 7}, "name is a text, not 7"),
        ({"op": "tap", "name": "a/b"}, "a path"),
        ({"op": "tap", "name": "a:1"}, "an alias"),
        ({"op": "tap", "name": "n" * 16}, "longer"),
        ({"op": "tap", "name": "n" * 5000}, "longer"),
        ({"op": "tap", "name": "\ud800"}, "control"),
        ({"op": "tap", "mac": 7}, "mac is a text or null"),
        ({"op": "tap", "mac": "ff:ff:ff:ff:ff:ff"}, "of a group"),
        ({"op": "tap", "mtu": "1500"}, "mtu is a number of bytes or null, not '1500'"),
        ({"op": "tap", "mtu": True}, "mtu is a number"),
        ({"op": "tap", "mtu": 1500.0}, "mtu is a number"),
        ({"op": "tap", "mtu": 0}, "mtu is a number"),
        ({"op": "tap", "mtu": -1}, "mtu is a number"),
        ({"op": "tap", "up": 1}, "up is true or false, not 1"),
        ({"op": "tap", "addresses": "10.0.0.1/24"}, "a list of at most 16"),
        ({"op": "tap", "addresses": ["10.0.0.1/24"] * 17}, "a list of at most 16"),
        ({"op": "tap", "addresses": [1]}, "1 is no address like"),
        ({"op": "tap", "addresses": ["10.0.0.1/33"]}, "no address like"),
        ({"op": "tap", "addresses": ["fe80::1%lo/64"]}, "no address like"),
        ({"op": "tap", "addresses": ["1" * 5000]}, "no address like"),
        ({"op": "tap", "persist": True}, "tap has no field 'persist'"),
        ({"op": "grab"}, "missing"),
        ({"op": "grab", "name": "e%d"}, "%d"),
        ({"op": "grab", "name": "eth1", "mac": None}, "grab has no field 'mac'"),
        ({"op": "check", "name": "x"}, "check has no field 'name'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_words(message: dict[str, Any], words: str) -> None:
    with pytest.raises(OSError, match=words) as refusal:
        decode_request(message)
    assert refusal.value.errno == errno.EINVAL


@pytest.mark.parametrize("op", [None, "", "TAP", "exec", 1, [], {}, ["tap"]])
def test_an_unknown_op_is_refused(op: object) -> None:
    with pytest.raises(OSError, match="does tap, grab and check") as refusal:
        decode_request({"op": op})
    assert refusal.value.errno == errno.EOPNOTSUPP


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*FULL, "more"]) | st.text(max_size=6), VALUES, max_size=6), VALUES)
def test_any_message_is_a_request_or_a_refusal_on_one_line(message: dict[str, Any], op: Any) -> None:
    for candidate in (message, {**message, "op": op}, {**message, "op": "tap"}, {**message, "op": "grab"}):
        try:
            said = str(decode_request(candidate))
        except OSError as error:
            said = str(error.strerror)
        assert said.isprintable()
        assert len(said) < 2000
