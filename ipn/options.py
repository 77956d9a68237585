"""The options of AF_IPN as tables, and their values as C programs, the wire and Python have them. Pure."""

from __future__ import annotations

import errno
import struct
from typing import Final

from . import abi
from .abi import NumNodes
from .control import Message

NETWORK_OPTIONS: Final[dict[int, tuple[str, int, int]]] = {
    abi.IPN_SO_MTU: ("mtu", abi.DEFAULT_MTU, abi.MAX_MTU),
    abi.IPN_SO_NUMNODES: ("maxports", abi.DEFAULT_NUMNODES, abi.MAX_NUMNODES),
    abi.IPN_SO_MSGPOOLSIZE: ("pool", abi.DEFAULT_MSGPOOLSIZE, abi.MAX_MSGPOOLSIZE),
    abi.IPN_SO_FLAGS: ("flags", abi.DEFAULT_FLAGS, abi.IPN_FLAG_LOSSLESS),
    abi.IPN_SO_MODE: ("mode", abi.DEFAULT_MODE, 0o777),
}
"""Option → (its name in the control protocol, default, largest value)."""
NODE_FLAGS: Final[dict[int, str]] = {
    abi.IPN_SO_HANDLE_OOB: "handle_oob",
    abi.IPN_SO_WANT_OOB_NUMNODES: "want_oob",
}


OOB_EVENTS: Final = ("numnodes", "oob")
"""Notifications that a program receives as out-of-band messages, and that a marker on its data socket announces."""


def notice_bytes(notice: Message) -> bytes:
    """Return the bytes a program receives for a notice: ``struct numnode_oob``, or a policy's own message."""
    if "numreaders" in notice:
        readers, writers = int(notice["numreaders"]), int(notice["numwriters"])
        return NumNodes(abi.IPN_ANY, abi.IPN_OOB_NUMNODE_TAG, readers, writers).pack()
    return bytes.fromhex(str(notice.get("hex", "")))


def as_int(value: int | bytes | str) -> int:
    """Return an option's value as a number; EINVAL for bytes that are no C int."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) or len(value) < 4:
        raise OSError(errno.EINVAL, "this option takes an int, or the 4 bytes of one")
    return int(struct.unpack_from("@i", value)[0])


def as_json(value: int | bytes | str) -> int | Message:
    """Return an option's value for the wire: a number, or bytes in hexadecimal."""
    if isinstance(value, int):
        return value
    return {"hex": (value.encode() if isinstance(value, str) else bytes(value)).hex()}
