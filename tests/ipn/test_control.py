"""Control messages: JSON objects in frames. Anything else is a ``ControlError``, never another exception."""

from __future__ import annotations

import contextlib
import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipn.control import (
    MAX_REQUEST,
    ControlDecoder,
    ControlError,
    decode_message,
    encode_message,
    error_body,
    error_from_body,
)
from ipn.framing import encode_frame

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
messages = st.dictionaries(st.text(max_size=10), values, max_size=5)


def test_a_message_is_compact_json_in_utf8_behind_its_length() -> None:
    assert encode_message({"id": 1, "op": "show"}) == b'\x00\x00\x00\x14{"id":1,"op":"show"}'


@given(messages)
def test_a_message_comes_out_as_it_went_in(message: dict[str, object]) -> None:
    assert ControlDecoder(MAX_REQUEST).feed(encode_message(message)) == [message]


@given(st.lists(messages, max_size=5), st.lists(st.integers(min_value=0), max_size=10))
def test_however_a_stream_is_cut_the_same_messages_come_out(
    sent: list[dict[str, object]], positions: list[int]
) -> None:
    stream = b"".join(map(encode_message, sent))
    cuts = sorted({position % (len(stream) + 1) for position in positions})
    decoder = ControlDecoder(MAX_REQUEST)
    received = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[start:stop])
    assert received == sent


@given(messages)
def test_a_message_comes_out_of_single_bytes_with_its_last_one(message: dict[str, object]) -> None:
    decoder = ControlDecoder(MAX_REQUEST)
    encoded = encode_message(message)
    for position in range(len(encoded) - 1):
        assert decoder.feed(encoded[position : position + 1]) == []
    assert decoder.feed(encoded[-1:]) == [message]


def test_the_beginning_of_the_next_message_waits_for_its_rest() -> None:
    first, second = encode_message({"id": 1}), encode_message({"id": 2})
    decoder = ControlDecoder(MAX_REQUEST)
    assert decoder.feed(first + second[:7]) == [{"id": 1}]
    assert decoder.feed(second[7:]) == [{"id": 2}]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{",
        b'{"id":1',
        b'{"id":1}}',
        b"{'id':1}",
        b"\xff\xfe\x00\xd8",
        b'{"a":"\xff"}',
        b'{"id":' + b"9" * 5000 + b"}",
        b"\x00" * 20,
        b"IPN1",
    ],
)
def test_what_is_not_json_is_a_control_error(frame: bytes) -> None:
    with pytest.raises(ControlError, match="not JSON"):
        decode_message(frame)


@pytest.mark.parametrize(
    "text, kind",
    [
        ("null", "NoneType"),
        ("true", "bool"),
        ("17", "int"),
        ("1.5", "float"),
        ('"text"', "str"),
        ("[]", "list"),
        ('[{"id":1}]', "list"),
    ],
)
def test_json_that_is_no_object_is_a_control_error_that_says_what_came(text: str, kind: str) -> None:
    with pytest.raises(ControlError, match=f"not {kind}$"):
        decode_message(text.encode())


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_nesting_within_the_limit_is_a_control_error(opening: str, closing: str, closed: bool) -> None:
    depth = MAX_REQUEST // (len(opening) + len(closing)) - 10
    text = '{"a":' + opening * depth + "1" + (closing * depth + "}" if closed else "")
    assert len(text) < MAX_REQUEST
    with pytest.raises(ControlError, match="not JSON"):
        ControlDecoder(MAX_REQUEST).feed(encode_frame(text.encode()))


@given(st.binary(max_size=200))
def test_any_frame_is_an_object_or_a_control_error(frame: bytes) -> None:
    with contextlib.suppress(ControlError):
        assert isinstance(decode_message(frame), dict)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_any_stream_gives_objects_or_a_control_error(pieces: list[bytes]) -> None:
    decoder = ControlDecoder(64)
    with contextlib.suppress(ControlError):
        for piece in pieces:
            assert all(isinstance(message, dict) for message in decoder.feed(piece))


def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    message = json.dumps({"op": "x" * 100}).encode()
    assert ControlDecoder(len(message)).feed(encode_frame(message)) == [{"op": "x" * 100}]
    with pytest.raises(ControlError, match=f"{len(message)} bytes .* at most {len(message) - 1} "):
        ControlDecoder(len(message) - 1).feed(encode_frame(message))


def test_a_length_of_4_gib_is_a_control_error_at_once() -> None:
    with pytest.raises(ControlError):
        ControlDecoder(MAX_REQUEST).feed(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("name", ["EACCES", "EPROTO", "EADDRNOTAVAIL", "ECONNREFUSED", "EOPNOTSUPP", "EAGAIN"])
def test_a_refusal_arrives_with_its_errno_and_its_sentence(name: str) -> None:
    number = getattr(errno, name)
    body = error_body(OSError(number, "because"))
    assert body == {"errno": name, "message": "because"}
    refusal = error_from_body(json.loads(json.dumps(body)), "/tmp/net")
    assert (refusal.errno, refusal.strerror, refusal.filename) == (number, "because", "/tmp/net")
    assert type(refusal) is type(OSError(number, ""))


def test_a_refusal_without_a_sentence_gets_the_systems() -> None:
    assert error_body(OSError(errno.EPERM, None))["message"] == os.strerror(errno.EPERM)
    assert error_from_body({"errno": "EPERM"}).strerror == os.strerror(errno.EPERM)


def test_a_refusal_without_a_known_number_is_eio() -> None:
    assert error_body(OSError("something odd"))["errno"] == "EIO"
    assert error_body(OSError(99999, "odd"))["errno"] == "EIO"


@pytest.mark.parametrize(
    "body",
    [None, 7, "EACCES", [], {}, {"errno": None}, {"errno": "ENOSUCH"}, {"errno": 13}, {"errno": ["EPERM"]}],
)
def test_an_error_object_that_makes_no_sense_is_eio(body: object) -> None:
    assert error_from_body(body).errno == errno.EIO


@pytest.mark.parametrize("name", ["errorcode", "__name__", "__doc__", "__loader__", "__spec__"])
def test_only_the_names_of_error_numbers_count_as_such(name: str) -> None:
    assert error_from_body({"errno": name, "message": "odd"}).errno == errno.EIO
