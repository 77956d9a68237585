"""The Internet checksum (RFC 1071) at the speed of C, and its update in place (RFC 1624). Pure.

A sum of 16-bit words with the carry added back is the number they spell, modulo 0xffff. Ones' complement knows two
zeros: only words that are all zero sum up to 0, every other multiple of 0xffff is 0xffff.
"""

from __future__ import annotations


def fold(block: bytes) -> int:
    """Return the ones' complement sum of the 16-bit words of ``block``; an odd last byte counts as if a 0 followed."""
    number = int.from_bytes(block, "big")
    if len(block) & 1:
        number <<= 8
    return number % 0xFFFF or (0xFFFF if number else 0)


def checksum(block: bytes) -> int:
    """Return what the checksum field is to hold, given ``block`` with zeros in that place."""
    return 0xFFFF - fold(block)


def right(block: bytes) -> bool:
    """Tell whether ``block``, its checksum included, is as it was sent."""
    return fold(block) == 0xFFFF


def update(old: int, was: int, becomes: int) -> int:
    """Return the checksum after one 16-bit word has changed (RFC 1624, equation 3)."""
    total = (0xFFFF - old) + (0xFFFF - was) + becomes
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - ((total & 0xFFFF) + (total >> 16))
