"""Functions of the C library that Python has no names for, with its errors as ``OSError``."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """Call a function that returns an int, negative when it failed. Its errors are named after it."""
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def prctl(option: int, argument: int = 0) -> int:
    """Call prctl(2)."""
    return call("prctl", ctypes.c_int(option), ctypes.c_ulong(argument), *[ctypes.c_ulong(0)] * 3)
