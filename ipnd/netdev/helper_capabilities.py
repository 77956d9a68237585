"""Giving up every privilege but two, for good (capabilities(7)): CAP_NET_ADMIN makes TAPs, CAP_NET_RAW grabs."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
KEPT: Final = {CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_NET_RAW: "CAP_NET_RAW"}

PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

VERSION_3: Final = 0x20080522
HEADER: Final = struct.Struct("=Ii")
"""``struct __user_cap_header_struct``: version, pid (0: the caller)."""
SETS: Final = struct.Struct("=6I")
"""Two ``struct __user_cap_data_struct``: effective, permitted, inheritable; the lower 32 of each, then the upper."""

_libc = ctypes.CDLL(None, use_errno=True)


def missing_capabilities() -> list[str]:
    """Return the names of those of the two capabilities that this process has not."""
    permitted = _permitted()
    return [name for number, name in KEPT.items() if not permitted >> number & 1]


def keep_only_two() -> None:
    """Keep the two capabilities, if they are there, and give up all others; no program run later gets more.

    ``OSError`` when the kernel does not do it.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _shrink_bounding_set()
    kept = sum(1 << number for number in KEPT) & _permitted()
    _call("capset", HEADER.pack(VERSION_3, 0), SETS.pack(kept, kept, 0, 0, 0, 0))


def _shrink_bounding_set() -> None:
    """Take all but the two out of what a program run by root could get. What is gone already needs no privilege."""
    for number in range(64):
        try:
            there = _prctl(PR_CAPBSET_READ, number)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # beyond the last capability of this kernel
            raise
        if there and number not in KEPT:
            _prctl(PR_CAPBSET_DROP, number)


def _permitted() -> int:
    sets = ctypes.create_string_buffer(SETS.size)
    _call("capget", HEADER.pack(VERSION_3, 0), sets)
    fields = SETS.unpack(sets.raw)
    return int(fields[1] | fields[4] << 32)


def _prctl(option: int, argument: int) -> int:
    return _call("prctl", option, ctypes.c_ulong(argument), *[ctypes.c_ulong(0)] * 3)


def _call(name: str, *arguments: object) -> int:
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
