"""How ``ipnctl recv`` writes a message: raw, as a line, as a hex dump, as JSON. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

ROW: Final = 16
"""Bytes in a row of the hex dump."""
HEX_WIDTH: Final = 3 * ROW
"""Characters of a full row's hexadecimal digits, with the gap in its middle."""


class Received(NamedTuple):
    """A message, its number (from 1), and when it came, in seconds since 1970."""

    data: bytes
    number: int
    time: float


def raw(message: Received) -> bytes:
    """Return the message as it is."""
    return message.data


def line(message: Received) -> bytes:
    """Return the message and a newline."""
    return message.data + b"\n"


def hexdump(message: Received) -> bytes:
    """Return a header line (number, length, time) and the message as ``hexdump -C`` shows it."""
    data = message.data
    when = datetime.fromtimestamp(message.time).isoformat(" ", "microseconds")
    rows = [f"# {message.number}  {len(data)} bytes  {when}\n"]
    for offset in range(0, len(data), ROW):
        part = data[offset : offset + ROW]
        halves = f"{part[: ROW // 2].hex(' ')}  {part[ROW // 2 :].hex(' ')}"
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        rows.append(f"{offset:08x}  {halves:<{HEX_WIDTH}}  |{shown}|\n")
    return "".join(rows).encode()


def json_object(message: Received) -> bytes:
    """Return an object on a line: ``number``, ``time``, ``length``; ``text`` if UTF-8, else ``base64``."""
    shown: dict[str, Any] = {"number": message.number, "time": message.time, "length": len(message.data)}
    try:
        shown["text"] = message.data.decode()
    except UnicodeDecodeError:
        shown["base64"] = base64.b64encode(message.data).decode()
    return json.dumps(shown).encode() + b"\n"


FORMS: Final[Mapping[str, Callable[[Received], bytes]]] = {
    "raw": raw,
    "lines": line,
    "hex": hexdump,
    "json": json_object,
}
