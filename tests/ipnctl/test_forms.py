"""How a received message is written."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime

import pytest

from ipnctl.forms import FORMS, Received
from tests.peers import requires

NOON = datetime(2026, 5, 4, 12, 0, 0, 250_000).timestamp()


def test_raw_is_the_message() -> None:
    assert FORMS["raw"](Received(b"\0ab\n", 1, NOON)) == b"\0ab\n"


def test_lines_adds_a_newline() -> None:
    assert FORMS["lines"](Received(b"ab", 1, NOON)) == b"ab\n"


def test_hex_has_a_header_with_number_length_and_time() -> None:
    header, row = FORMS["hex"](Received(b"hello", 7, NOON)).decode().splitlines()
    assert header == "# 7  5 bytes  2026-05-04 12:00:00.250000"
    assert row == "00000000  68 65 6c 6c 6f                                    |hello|"


@requires("hexdump")
@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 256])
def test_hex_rows_are_those_of_hexdump(size: int) -> None:
    data = bytes(range(256))[:size]
    rows = FORMS["hex"](Received(data, 1, NOON)).splitlines()[1:]
    theirs = subprocess.run(["hexdump", "-C", "-v"], input=data, stdout=subprocess.PIPE, check=True).stdout
    assert rows == theirs.splitlines()[:-1]


@pytest.mark.parametrize(("data", "shown"), [("grüß\n".encode(), {"text": "grüß\n"}), (b"\xff\0", {"base64": "/wA="})])
def test_json_is_text_where_it_can_be_and_base64_otherwise(data: bytes, shown: dict[str, str]) -> None:
    written = FORMS["json"](Received(data, 2, NOON))
    assert written.count(b"\n") == 1
    assert json.loads(written) == {"number": 2, "time": NOON, "length": len(data), **shown}
