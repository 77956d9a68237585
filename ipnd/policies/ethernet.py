"""Ethernet headers as a switch needs them: addresses as text and bytes, 802.1Q tags put in, taken out, changed. Pure.

Layout (IEEE 802.3, 802.1Q): destination 6, source 6, then either the ethertype, or 0x8100, two bytes of tag (3 bits of
priority, 1 of drop eligibility, 12 of VLAN) and the ethertype. Only the outer tag is ever looked at.
The functions that return an edit return the same object for the same VLAN, so that equal decisions share it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

ADDRESSES: Final = 12
"""Both addresses: where a tag goes."""
HEADER: Final = 14
"""Bytes of the header without a tag: what is shorter is a runt."""
TAGGED_HEADER: Final = 18
TAG: Final = 4

VLAN_TYPE: Final = b"\x81\x00"
BROADCAST: Final = b"\xff" * 6
RESERVED_PREFIX: Final = b"\x01\x80\xc2\x00\x00"
"""01:80:c2:00:00:00 to 0f never pass a bridge: spanning tree, pause, LACP, LLDP (802.1D clause 7.12.6)."""

VID_MASK: Final = 0x0FFF
VID_NONE: Final = 0
"""In a tag: priority only, the frame is of the port's own VLAN."""
VID_LAST: Final = 4094
VID_RESERVED: Final = 4095

_MAC: Final = re.compile(r"[0-9a-f]{1,2}(?:[:-][0-9a-f]{1,2}){5}", re.ASCII | re.IGNORECASE)


def parse_mac(text: str) -> bytes:
    """Return the 6 bytes of ``aa:bb:cc:dd:ee:ff`` (or with dashes); ``ValueError`` when it is no MAC address."""
    if _MAC.fullmatch(text) is None:
        raise ValueError(f"not a MAC address: {text!r}; one looks like 02:00:5e:10:00:01")
    return bytes(int(part, 16) for part in re.split("[:-]", text))


def format_mac(mac: bytes) -> str:
    """Return ``mac`` as ``aa:bb:cc:dd:ee:ff``."""
    return mac.hex(":")


def is_group(mac: bytes) -> bool:
    """Tell whether ``mac`` is a multicast or the broadcast address."""
    return bool(mac[0] & 1)


def is_reserved(mac: bytes) -> bool:
    """Tell whether ``mac`` is one of the 16 addresses that end at the next bridge."""
    return mac[:5] == RESERVED_PREFIX and mac[5] < 0x10


def tag_vid(head: bytes) -> int:
    """Return the VLAN number in the tag of a tagged frame that begins with ``head`` (at least 16 bytes)."""
    return (head[14] << 8 | head[15]) & VID_MASK


def pop_tag(frame: bytes) -> bytes:
    """Return a tagged frame without its outer tag."""
    return frame[:ADDRESSES] + frame[ADDRESSES + TAG :]


@lru_cache(maxsize=4096)
def push_tag(vid: int) -> Callable[[bytes], bytes]:
    """Return the edit that tags a frame with VLAN ``vid``, priority 0."""
    tag = VLAN_TYPE + vid.to_bytes(2, "big")

    def push(frame: bytes) -> bytes:
        return frame[:ADDRESSES] + tag + frame[ADDRESSES:]

    return push


@lru_cache(maxsize=4096)
def set_vid(vid: int) -> Callable[[bytes], bytes]:
    """Return the edit that gives a tagged frame the VLAN ``vid``; its priority stays."""
    high, low = vid >> 8, vid & 0xFF

    def rewrite(frame: bytes) -> bytes:
        return frame[:14] + bytes((frame[14] & 0xF0 | high, low)) + frame[16:]

    return rewrite


def tag_edit(head: bytes, header: int, vlan: int, tagged: bool) -> Callable[[bytes], bytes] | None:
    """Return the change between a frame of ``vlan`` as it came in (its header is ``header`` long) and as it goes out.

    A priority tag becomes a full one, with its priority kept, or goes.
    """
    if header == HEADER:
        return push_tag(vlan) if tagged else None
    if not tagged:
        return pop_tag
    return None if tag_vid(head) else set_vid(vlan)
