"""Cutting what one read brought into runs of whole frames. Pure, and the innermost loop of the daemon.

A *run* is frames lying back to back in one buffer, length prefixes included, described by where each ends. A read
normally is one run; frames that may not pass (longer than the MTU, or empty) split it. Bulk traffic consists
of frames of one size, and those are found at C speed: if every ``stride``-th length prefix is the same as the
first, the frames lie as regularly as the prefixes (each says where the next one is), and a ``range`` describes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ipn.framing import LENGTH, PREFIX

Ends = Sequence[int]
"""Where each frame of a run ends, in bytes from the run's start, ascending: a list, or a range."""

REGULAR: Final = 32
"""Frames of one size in a row that are worth a run of their own; fewer would only break up the writing."""


Run = tuple[int, int, Ends]
"""(start, stop, ends): a run is ``buffer[start:stop]``; ``ends`` count from ``start``."""


def cut(buffer: bytearray | bytes | memoryview, stop: int, mtu: int) -> tuple[list[Run], int, int, int]:
    """Cut ``buffer[:stop]`` into runs of frames of 1 to ``mtu`` bytes; return (runs, consumed, skipped, wanted).

    ``consumed``: bytes dealt with; behind them lies the beginning of a frame that has not come whole.
    ``skipped``: frames left out for being empty or longer than the MTU.
    ``wanted``: bytes that the incomplete frame will take, prefix included; 0 when not even that is known.
    """
    unpack = LENGTH.unpack_from
    runs: list[Run] = []
    ends: list[int] = []
    start = position = skipped = wanted = 0
    look_for_regular = True
    while position + PREFIX <= stop:
        (length,) = unpack(buffer, position)
        end = position + PREFIX + length
        if end > stop:
            wanted = PREFIX + length
            break
        if not 0 < length <= mtu:
            if ends:
                runs.append((start, position, ends))
                ends = []
            skipped += 1
            start = position = end
            continue
        if look_for_regular:
            stride = end - position
            if (count := _count_regular(buffer, position, stop, stride)) >= REGULAR:
                position += count * stride
                runs.append((start, position, range(stride, count * stride + 1, stride)))
                start = position
                continue
            look_for_regular = False
        ends.append(end - start)
        position = end
    if ends:
        runs.append((start, position, ends))
    return runs, position, skipped, wanted


def _count_regular(buffer: bytearray | bytes | memoryview, position: int, stop: int, stride: int) -> int:
    """Return how many whole frames in a row from ``position`` on are as long as the first."""
    count = (stop - position) // stride
    far = position + (REGULAR - 1) * stride
    if count < REGULAR or buffer[far : far + PREFIX] != buffer[position : position + PREFIX]:
        return 0
    last = position + count * stride
    for offset in range(PREFIX):
        column = bytes(buffer[position + offset : last : stride])
        if column.count(column[:1]) != len(column):
            count = min(count, len(column) - len(column.lstrip(column[:1])))
    return count
