"""The capabilities of this thread (capabilities(7)), as numbers with a bit for each. Standard library only."""

from __future__ import annotations

import ctypes
import struct
from typing import Final, NamedTuple

from .libc import call

VERSION_3: Final = 0x20080522
HEADER: Final = struct.Struct("=Ii")
"""``struct __user_cap_header_struct``: version, thread (0: the caller)."""
SETS: Final = struct.Struct("=6I")
"""Two ``struct __user_cap_data_struct``: effective, permitted, inheritable; the lower 32 of each, then the upper."""


class Capabilities(NamedTuple):
    """What is in effect, what may be put in effect, and what programs inherit."""

    effective: int
    permitted: int
    inheritable: int


def capabilities() -> Capabilities:
    """Return what this thread has."""
    sets = ctypes.create_string_buffer(SETS.size)
    call("capget", HEADER.pack(VERSION_3, 0), sets)
    fields = SETS.unpack(sets.raw)
    return Capabilities(*(low | high << 32 for low, high in zip(fields[:3], fields[3:], strict=True)))


def set_capabilities(wanted: Capabilities) -> None:
    """Change what this thread has. EPERM for what it is not permitted."""
    halves = [number >> shift & 0xFFFF_FFFF for shift in (0, 32) for number in wanted]
    call("capset", HEADER.pack(VERSION_3, 0), SETS.pack(*halves))
