"""The fields of a request: of the right type and within bounds, or EINVAL with a sentence that says why."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.fields import take_bool, take_int, take_text, take_value

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["hex", "x"]), inner, max_size=2),
    max_leaves=5,
)


def int_0_to_10(message: dict[str, Any]) -> object:
    return take_int(message, "field", 0, 10)


def bool_field(message: dict[str, Any]) -> object:
    return take_bool(message, "field")


def text_of_5(message: dict[str, Any]) -> object:
    return take_text(message, "field", 5)


def value_field(message: dict[str, Any]) -> object:
    return take_value(message, "field")


GIVEN_AND_TAKEN: list[tuple[Callable[[dict[str, Any]], object], object, object]] = [
    (int_0_to_10, 0, 0),
    (int_0_to_10, 10, 10),
    (bool_field, True, True),
    (bool_field, False, False),
    (text_of_5, "", ""),
    (text_of_5, "12345", "12345"),
    (text_of_5, "éé", "éé"),
    (value_field, -7, -7),
    (value_field, {"hex": ""}, b""),
    (value_field, {"hex": "00fF"}, b"\x00\xff"),
]

REFUSED: list[tuple[Callable[[dict[str, Any]], object], object, str]] = [
    (int_0_to_10, -1, "must be from 0 to 10, not -1"),
    (int_0_to_10, 11, "must be from 0 to 10, not 11"),
    (int_0_to_10, 10**30, "must be from 0 to 10"),
    (int_0_to_10, True, "an integer, not bool"),
    (int_0_to_10, 5.0, "an integer, not float"),
    (int_0_to_10, "5", "an integer, not str"),
    (int_0_to_10, None, "an integer, not NoneType"),
    (int_0_to_10, [5], "an integer, not list"),
    (bool_field, 1, "true or false, not int"),
    (bool_field, "true", "true or false, not str"),
    (bool_field, None, "true or false, not NoneType"),
    (text_of_5, 5, "text, not int"),
    (text_of_5, None, "text, not NoneType"),
    (text_of_5, ["a"], "text, not list"),
    (text_of_5, "123456", "more than 5 bytes"),
    (text_of_5, "ééé", "more than 5 bytes"),
    (text_of_5, "a\0b", "contains NUL"),
    (value_field, None, "hex"),
    (value_field, True, "hex"),
    (value_field, "00", "hex"),
    (value_field, {}, "hex"),
    (value_field, {"hex": 0}, "hex"),
    (value_field, {"hex": "0"}, "not hexadecimal"),
    (value_field, {"hex": "zz"}, "not hexadecimal"),
]


@pytest.mark.parametrize("take, value, taken", GIVEN_AND_TAKEN)
def test_a_field_of_the_right_type_within_bounds_is_taken(take: Any, value: object, taken: object) -> None:
    result = take({"op": "test", "field": value})
    assert (result, type(result)) == (taken, type(taken))


@pytest.mark.parametrize("take, value, why", REFUSED)
def test_any_other_is_einval_and_says_what_is_wrong(take: Any, value: object, why: str) -> None:
    with pytest.raises(OSError, match=f"test: 'field'.*{why}") as refusal:
        take({"op": "test", "field": value})
    assert refusal.value.errno == errno.EINVAL


@pytest.mark.parametrize("take", [int_0_to_10, text_of_5, value_field])
def test_a_field_without_default_must_be_there(take: Any) -> None:
    with pytest.raises(OSError, match=r"test: 'field'.*not nothing") as refusal:
        take({"op": "test"})
    assert refusal.value.errno == errno.EINVAL


def test_a_field_that_is_not_there_has_its_default() -> None:
    assert take_int({}, "field", 0, 10, 3) == 3
    assert take_text({}, "field", 5, "abc") == "abc"
    assert take_bool({}, "field") is False
    assert take_bool({}, "field", True) is True


def test_null_is_not_the_same_as_not_there() -> None:
    with pytest.raises(OSError, match="an integer"):
        take_int({"field": None}, "field", 0, 10, 3)
    with pytest.raises(OSError, match="text"):
        take_text({"field": None}, "field", 5, "abc")


@given(json_values)
def test_whatever_json_comes_the_answer_is_a_value_of_the_type_or_einval(value: object) -> None:
    expected = {int_0_to_10: int, bool_field: bool, text_of_5: str, value_field: (int, bytes)}
    for take, types in expected.items():
        try:
            outcome: object = take({"op": "test", "field": value})
        except OSError as refusal:
            outcome = refusal
        assert isinstance(outcome, types) or (isinstance(outcome, OSError) and outcome.errno == errno.EINVAL)
