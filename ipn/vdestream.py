"""VDE's stream: a 2-byte big-endian length, then the frame; what ``vde_plug``, ``dpipe`` and ours speak. Sans-IO.

It is turned into, and made from, *batches*: frames back to back in the framing of this project's streams, behind
4-byte lengths (``ipn.framing``). Of such a length the last two bytes are VDE's, so no length is ever computed: a
record of the one is a slice of the other.

Every sequence of bytes is a stream, so the decoder has no errors. A length of 0 brings nothing. Receivers differ in
what they take: ``vde_plug`` of VDE 2 up to 1,521 bytes, that of vdeplug 4 up to 9,236, this decoder all that the two
bytes can say. Both programs forget the first byte of a length that a read of theirs cuts in two (``in_chunks``
avoids it).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from .framing import LENGTH, PREFIX

SHORT_LENGTH: Final = struct.Struct(">H")
SHORT_PREFIX: Final = SHORT_LENGTH.size
"""Bytes before each frame."""
MAX_FRAME: Final = 0xFFFF
"""Longest frame that the length can tell, in bytes."""
WIDENING: Final = bytes(PREFIX - SHORT_PREFIX)
"""What makes a 2-byte length a 4-byte one, put before it."""
NOTHING: Final = SHORT_LENGTH.pack(0)
"""A length that brings nothing."""

Buffer = bytes | bytearray | memoryview


class StreamDecoder:
    """Takes VDE's stream in, in pieces of any size. One incomplete frame (65,537 bytes) may be kept between calls."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take ``data`` in and return the frames that are now complete as a batch, without empty ones."""
        buffer = self._rest + data if self._rest else data
        unpack, stop = SHORT_LENGTH.unpack_from, len(buffer)
        records = [b""]
        position = 0
        while position + SHORT_PREFIX <= stop:
            end = position + SHORT_PREFIX + unpack(buffer, position)[0]
            if end > stop:
                break
            if end - position > SHORT_PREFIX:
                records.append(buffer[position:end])
            position = end
        self._rest = buffer[position:]
        return WIDENING.join(records)


def encode_run(run: Buffer, ends: Sequence[int]) -> tuple[bytes, list[int], int]:
    """Return a run of frames, each ending at one of ``ends``, as VDE's stream, where each ends there, and how many
    were left out: of frames longer than 65,535 bytes only a length of 0 goes.

    A run is a batch whose frames are all complete and none of them empty (``ipnd.plane.batch``).
    """
    records: list[Buffer] = []
    left_out = 0
    position = len(WIDENING)
    for end in ends:
        if end - position > SHORT_PREFIX + MAX_FRAME:
            left_out += 1
            records.append(NOTHING)
        else:
            records.append(run[position:end])
        position = end + len(WIDENING)
    return b"".join(records), list(accumulate(map(len, records))), left_out


class BatchEncoder:
    """Takes batches in, in pieces of any size, and makes VDE's stream of them.

    ``left_out``: frames that were longer than 65,535 bytes. At most one incomplete frame of those that can be sent is
    kept between calls; of longer ones nothing is.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._rest = b""
        self._skip = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take ``data`` in and return the frames that are now complete, each with VDE's length before it."""
        position = min(self._skip, len(data))
        self._skip -= position
        buffer = self._rest + data if self._rest else data
        unpack, stop = LENGTH.unpack_from, len(buffer)
        records = []
        while position + PREFIX <= stop:
            end = position + PREFIX + unpack(buffer, position)[0]
            if end - position > PREFIX + MAX_FRAME:
                self.left_out += 1
                self._skip = max(0, end - stop)
            elif end > stop:
                break
            elif end - position > PREFIX:
                records.append(buffer[position + len(WIDENING) : end])
            position = end
        self._rest = buffer[position:]
        return records


def in_chunks(records: Sequence[bytes], size: int) -> Iterator[bytes]:
    """Yield ``records``, each a frame with its length, in chunks of at most ``size`` bytes in which no length is cut.

    A chunk is some whole records, or a part of a longer one and nothing else.
    """
    waiting: list[bytes] = []
    room = size
    for record in records:
        if len(record) > room and waiting:
            yield b"".join(waiting)
            waiting, room = [], size
        if len(record) > size:
            yield from (record[start : start + size] for start in range(0, len(record), size))
            continue
        waiting.append(record)
        room -= len(record)
    if waiting:
        yield b"".join(waiting)
