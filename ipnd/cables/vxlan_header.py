"""The header that VXLAN puts before a frame in a datagram (RFC 7348, section 5). Pure.

Eight bytes: flags, of which one says that the VNI counts, and the 24 bits of the VNI. What is reserved is zero when
sent and ignored when received.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct(">II")
I_FLAG: Final = 0x08000000
"""The VNI is valid."""


class HeaderError(ValueError):
    """A datagram is no VXLAN; the text says why, in words that are counted by."""


def encode_header(vni: int) -> bytes:
    """Return the header of frames of ``vni``, 0 to 16777215."""
    return HEADER.pack(I_FLAG, vni << 8)


def decode_header(data: bytes | bytearray | memoryview, size: int) -> int:
    """Return the VNI of a datagram of ``size`` bytes that begins with ``data``; ``HeaderError`` when it has none."""
    if size < HEADER.size:
        raise HeaderError("shorter than a header")
    flags, word = HEADER.unpack_from(data)
    if not flags & I_FLAG:
        raise HeaderError("without the I flag")
    return int(word >> 8)
