"""Reading the fields of a request: of the right type and within bounds, or EINVAL with a sentence. Pure."""

from __future__ import annotations

import errno
from typing import Any

Message = dict[str, Any]


def _bad(message: Message, name: str, expected: str) -> OSError:
    got = "nothing" if name not in message else type(message[name]).__name__
    return OSError(errno.EINVAL, f"{message.get('op')}: {name!r} must be {expected}, not {got}")


def take_int(message: Message, name: str, low: int, high: int, default: int | None = None) -> int:
    """Return an integer field from ``low`` to ``high``."""
    value = message.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _bad(message, name, "an integer")
    if not low <= value <= high:
        raise OSError(errno.EINVAL, f"{message.get('op')}: {name!r} must be from {low} to {high}, not {value}")
    return value


def take_bool(message: Message, name: str, default: bool = False) -> bool:
    """Return a true or false field."""
    value = message.get(name, default)
    if not isinstance(value, bool):
        raise _bad(message, name, "true or false")
    return value


def take_text(message: Message, name: str, limit: int, default: str | None = None) -> str:
    """Return a text field of at most ``limit`` bytes of UTF-8, without NUL."""
    value = message.get(name, default)
    if not isinstance(value, str):
        raise _bad(message, name, "text")
    if len(value.encode("utf-8", "surrogatepass")) > limit:
        raise OSError(errno.EINVAL, f"{message.get('op')}: {name!r} has more than {limit} bytes")
    if "\0" in value:
        raise OSError(errno.EINVAL, f"{message.get('op')}: {name!r} contains NUL")
    return value


def take_value(message: Message, name: str) -> int | bytes:
    """Return an option's value: an integer, or bytes given as ``{"hex": …}``."""
    value = message.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, dict) and isinstance(value.get("hex"), str):
        try:
            return bytes.fromhex(value["hex"])
        except ValueError:
            raise OSError(errno.EINVAL, f"{message.get('op')}: {name!r} is not hexadecimal") from None
    raise _bad(message, name, 'an integer or {"hex": …}')
