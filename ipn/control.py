"""The control protocol, sans-IO: framed JSON objects, each possibly with descriptors beside it.

A connection starts with the four bytes ``IPN1``; then requests ``{"id", "op", …}`` are answered by
``{"id", "ok": …}`` or ``{"id", "error": {"errno", "message"}}``; what has no id is a notification.
``docs/protocol.md`` documents every op. Nothing here reads or writes a socket.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any, Final

from .framing import FrameDecoder, FramingError, encode_frame

MAGIC: Final = b"IPN1"
VERSION: Final = 1
"""Version of the ops and their fields, exchanged by ``hello``."""

MAX_REQUEST: Final = 64 * 1024
"""Largest request: paths and options are short; more is noise or an attack."""
MAX_REPLY: Final = 16 * 1024 * 1024
"""Largest reply: a listing of thousands of ports fits."""
MAX_FDS: Final = 4
"""Most descriptors beside one message: the largest op needs two."""

PREFERRED_NAMES: Final = {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EAGAIN: "EAGAIN"}
"""Where a number has two names: the one that socket calls use."""

NUMBERS: Final = {name: value for name, value in vars(errno).items() if name[0] == "E" and type(value) is int}
"""Name of an error → its number here."""

Message = dict[str, Any]


class ControlError(Exception):
    """The peer's fault: what came is not a control message. The text says what was wrong with it."""


def encode_message(message: Message) -> bytes:
    """Return ``message`` as it goes over the wire (length, then JSON in UTF-8)."""
    return encode_frame(json.dumps(message, separators=(",", ":")).encode())


def decode_message(frame: bytes) -> Message:
    """Return the JSON object in ``frame``; ``ControlError`` when it is anything else."""
    try:
        value = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ControlError(f"a JSON object was expected, not {type(value).__name__}")
    return value


class ControlDecoder:
    """Cuts a byte stream into control messages; ``limit`` is the largest message in bytes."""

    def __init__(self, limit: int) -> None:
        self._frames = FrameDecoder(limit)

    def feed(self, data: bytes) -> list[Message]:
        """Take ``data`` in and return the complete messages; ``ControlError`` ends the connection."""
        try:
            return [decode_message(frame) for frame in self._frames.feed(data)]
        except FramingError as error:
            raise ControlError(str(error)) from None


def error_body(error: OSError) -> Message:
    """Return the ``error`` object of a reply that reports ``error``."""
    number = error.errno or errno.EIO
    name = PREFERRED_NAMES.get(number) or errno.errorcode.get(number, "EIO")
    return {"errno": name, "message": error.strerror or os.strerror(number)}


def error_from_body(body: object, path: str | None = None) -> OSError:
    """Return the ``OSError`` that an ``error`` object of a reply stands for."""
    fields = body if isinstance(body, dict) else {}
    name = fields.get("errno")
    number = NUMBERS.get(name, errno.EIO) if isinstance(name, str) else errno.EIO
    message = str(fields.get("message") or os.strerror(number))
    return OSError(number, message, path) if path else OSError(number, message)
