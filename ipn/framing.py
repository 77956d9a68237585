"""The stream framing: a 4-byte big-endian length, then that many bytes. Sans-IO.

It is what QEMU's ``-netdev stream``, passt, gvproxy and socket_vmnet speak, and what data sockets and
control connections of ipn use. The decoder is incremental, total and bounded: bytes in; frames out, or
``FramingError`` when the peer announces a length no network can have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from .abi import MAX_MTU

LENGTH: Final = struct.Struct(">I")
PREFIX: Final = LENGTH.size
"""Bytes before each frame."""


class FramingError(Exception):
    """The peer's fault: a length beyond the limit, after which nothing in the stream can be trusted."""


def encode_frame(frame: bytes | bytearray | memoryview) -> bytes:
    """Return ``frame`` with its length before it."""
    return b"".join((LENGTH.pack(memoryview(frame).nbytes), frame))


def encode_frames(frames: Iterable[bytes | bytearray | memoryview]) -> bytes:
    """Return all ``frames`` back to back, each with its length before it."""
    parts: list[bytes | bytearray | memoryview] = []
    for frame in frames:
        parts.append(LENGTH.pack(memoryview(frame).nbytes))
        parts.append(frame)
    return b"".join(parts)


class FrameDecoder:
    """Cuts a byte stream into frames.

    ``limit`` is the largest length accepted, in bytes; more raises ``FramingError``. At most one
    incomplete frame (``limit`` + 4 bytes) is kept between calls.
    """

    def __init__(self, limit: int = MAX_MTU) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame held back."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take ``data`` in and return the frames that are now complete, in order."""
        buffer = self._buffer
        buffer += data
        position = 0
        frames = []
        while len(buffer) - position >= PREFIX:
            (length,) = LENGTH.unpack_from(buffer, position)
            if length > self._limit:
                raise FramingError(f"a frame of {length} bytes was announced; at most {self._limit} are allowed")
            end = position + PREFIX + length
            if end > len(buffer):
                break
            frames.append(bytes(buffer[position + PREFIX : end]))
            position = end
        del buffer[:position]
        return frames
