"""What a program says on the control socket of a VDE switch, and what the switch answers. Pure.

A client sends one request on ``DIR/ctl``: a magic number, the version, what it wants, the address of the datagram
socket it has bound for its frames, and a description that ends with the message. The answer is the address of the
switch's datagram socket for it. All is in the machine's own byte order (``struct sockaddr_un`` included).
"""

from __future__ import annotations

import struct
from typing import Final

import attrs

MAGIC: Final = 0xFEEDFACE
AF_UNIX: Final = 1
SUN_PATH: Final = 108
"""Bytes of the path in a sockaddr_un."""
HEAD: Final = struct.Struct("=II")
V3: Final = struct.Struct(f"=IIIH{SUN_PATH}s")
"""magic, version, type, family and path of the client's data socket."""
V1: Final = struct.Struct(f"=II6sH{SUN_PATH}s")
"""magic, type, an Ethernet address that nobody uses, family and path."""
SOCKADDR: Final = struct.Struct(f"=H{SUN_PATH}s")
MAX_DESCRIPTION: Final = 128
"""Bytes of a description that count."""
MAX_REQUEST: Final = V1.size + MAX_DESCRIPTION
"""Longest request that makes sense, in bytes: more is not read."""

NEW_CONTROL: Final = 0
NEW_PORT0: Final = 1
"""The two requests; the wanted port is in the bits above the lowest eight, 0 for any. The second asks for port 0."""
ANY_PORT: Final = -1


class RequestError(ValueError):
    """The request makes no sense; the text says how."""


@attrs.frozen
class Request:
    """A client's request. ``port``: -1 for any. ``path``: of its data socket, abstract when it begins with NUL."""

    port: int
    path: bytes
    description: str


def decode_request(data: bytes) -> Request:
    """Return what the client wants. RequestError when it speaks anything else."""
    if len(data) < HEAD.size:
        raise RequestError(f"a request of {len(data)} bytes is too short")
    magic, word = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise RequestError(f"it does not begin with VDE's magic number but with {data[:4].hex()}")
    if word & 0xFF in (NEW_CONTROL, NEW_PORT0):
        layout, version = V1, 1
    elif word == 3:
        layout, version = V3, 3
    else:
        raise RequestError(f"it asks for version {word} of VDE's protocol; 1 and 3 are known")
    if len(data) < layout.size:
        raise RequestError(f"a request of {len(data)} bytes is too short: version {version} has at least {layout.size}")
    if version == 1:
        _, kind, _, family, path = V1.unpack_from(data)
    else:
        _, _, kind, family, path = V3.unpack_from(data)
    if kind & 0xFF not in (NEW_CONTROL, NEW_PORT0):
        raise RequestError(f"it asks for {kind & 0xFF}, which is neither a port (0) nor port 0 (1)")
    if family != AF_UNIX:
        raise RequestError(f"its data socket is of address family {family}, not a unix socket")
    port = 0 if kind & 0xFF == NEW_PORT0 else (kind >> 8) or ANY_PORT
    return Request(port, _name(path), _description(data[layout.size :]))


def _name(path: bytes) -> bytes:
    if path[:1] != b"\0":
        return path.split(b"\0", 1)[0]
    if not any(path):
        raise RequestError("it names no data socket")
    return path


def _description(data: bytes) -> str:
    """Return a description without what could forge lines of a log."""
    text = data.split(b"\0", 1)[0][:MAX_DESCRIPTION].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def encode_reply(path: bytes) -> bytes:
    """Return the answer: the address of the switch's data socket at ``path``, at most 107 bytes."""
    return SOCKADDR.pack(AF_UNIX, path)
