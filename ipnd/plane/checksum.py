"""The Internet checksum (RFC 1071), as fast as the standard library can. Pure.

This is the innermost loop of traffic from a TAP to a stream, and summing is most of it. A checksum is a sum of 16-bit
words modulo 0xffff; since 0x10000 is 1 modulo 0xffff, it is also simply the remainder of the bytes read as one number.
That is the fastest way for headers, but dividing long numbers is slow. The one loop of the standard library that adds
up bytes at C speed is ``zlib.adler32``: begun at 0, its lower half is the exact sum of up to 256 bytes. So a payload
is taken apart into its high and its low bytes, and pieces of these are summed. All remainders but the last are left
out: where this file says "sum", it means a number that is right modulo 0xffff.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final
from zlib import adler32

UDP_CHECKSUM: Final = 6
"""Where UDP has its checksum, in bytes from the start of its header."""
EASY: Final = 256
"""Bytes up to which a plain remainder is the fastest sum."""
ROW: Final = 6 * 256
"""Bytes that are summed in six pieces; ``adler32`` sums 256 bytes and no more without taking a remainder itself."""


def fill_in(buffer: bytearray, at: int, start: int, offset: int) -> None:
    """Sum the frame that begins ``at`` and goes to the end of ``buffer``, from its byte ``start`` on."""
    place = at + start + offset
    if place + 2 > len(buffer):
        raise ValueError(f"the checksum at {start} + {offset} is beyond a frame of {len(buffer) - at} bytes")
    block = bytes(memoryview(buffer)[at + start :])
    if len(block) <= EASY:
        total = int.from_bytes(block) << 8 * (len(block) & 1)
    else:
        (total,) = sums([block], len(block))
    total = -total % 0xFFFF
    if not total and offset == UDP_CHECKSUM:
        total = 0xFFFF  # 0 means "no checksum" in UDP (RFC 768), and only there
    buffer[place] = total >> 8
    buffer[place + 1] = total & 0xFF


def header_sum(fields: bytes) -> int:
    """Return the sum of an even number of bytes."""
    return int.from_bytes(fields) % 0xFFFF


def sums(blocks: list[bytes], size: int) -> list[int]:
    """Return the sum of each block of ``size`` bytes, the last of which may be shorter.

    All are padded to the same even length, then cut into rows of three pieces of high bytes and three of low ones.
    """
    rows = -(-size // ROW)
    row = -(-size // (2 * rows)) * 2
    stride = rows * row
    padded = bytes(stride - size).join(blocks).ljust(len(blocks) * stride, b"\0")
    cut = _thirds(row // 2).iter_unpack
    found = []
    for (a, b, c), (d, e, f) in zip(cut(padded[::2]), cut(padded[1::2]), strict=True):
        high = (adler32(a, 0) & 0xFFFF) + (adler32(b, 0) & 0xFFFF) + (adler32(c, 0) & 0xFFFF)
        low = (adler32(d, 0) & 0xFFFF) + (adler32(e, 0) & 0xFFFF) + (adler32(f, 0) & 0xFFFF)
        found.append((high << 8) + low)
    return found if rows == 1 else [sum(found[at : at + rows]) for at in range(0, len(found), rows)]


@lru_cache(maxsize=64)
def _thirds(octets: int) -> struct.Struct:
    third = -(-octets // 3)
    return struct.Struct(f"{third}s{min(third, octets - third)}s{max(0, octets - 2 * third)}s")
