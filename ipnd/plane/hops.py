"""Streams of frames that carry how many cables each has come over: what the two ends of a cable between daemons speak.

The framing is that of all streams, a 4-byte big-endian length before each frame, but with the hops in the length's
first byte, which no length that passes here needs (16 MiB - 1 is the longest). So a batch is turned into the common
layout, and back, without moving a byte of its frames.
"""

from __future__ import annotations

import errno
import logging
import socket
from itertools import groupby
from typing import TYPE_CHECKING, Final

from ipn.framing import LENGTH, PREFIX

from .batch import Ends
from .delivery import MAX_DEPTH, Delivery
from .links import Claim, Link
from .stream import StreamLink

if TYPE_CHECKING:
    from .plane import Plane
    from .port import Port

log = logging.getLogger("ipnd.cables")

MAX_LENGTH: Final = (1 << 24) - 1
"""Longest frame, in bytes."""


def take_hops(buffer: bytearray, stop: int, first: int | None = None) -> tuple[dict[int, int], int | None]:
    """Clear the hops in ``buffer[:stop]``, frames back to back; return (where a frame begins → its hops, the last's).

    ``first``: the hops of the frame at 0 when they have been cleared before, else None. The last frame may be
    incomplete: then its hops are returned too, to be given as ``first`` next time; None when its length is not there.
    """
    hops: dict[int, int] = {}
    position, rest = 0, None
    while position + PREFIX <= stop:
        if first is None:
            hops[position] = buffer[position]
            buffer[position] = 0
        else:
            hops[position], first = first, None
        end = position + PREFIX + LENGTH.unpack_from(buffer, position)[0]
        if end > stop:
            rest = hops[position]
            break
        position = end
    return hops, rest


def put_hops(data: bytearray, ends: Ends, depth: int) -> None:
    """Write ``depth`` into the lengths of all frames of a run."""
    if type(ends) is range:
        data[0 :: ends.step] = bytes([depth]) * len(data[0 :: ends.step])
        return
    position = 0
    for end in ends:
        data[position] = depth
        position = end


class CableEnd(Link):
    """What all ends of cables share: frames that have come over ``MAX_DEPTH`` cables go no further.

    ``looped``: how many did not. The first is worth a line in the log.
    """

    relays = True
    looped = 0

    def write(self, view: memoryview, ends: Ends) -> int:
        """Write frames, unless they have come too far."""
        if self.plane.depth >= MAX_DEPTH:
            self._stop(len(ends))
            return len(ends)
        return self.carry(view, ends)

    def carry(self, view: memoryview, ends: Ends) -> int:
        """Write frames as ``write`` does."""
        raise NotImplementedError

    def enqueue(self, data: bytes, ends: Ends, claim: Claim | None = None) -> None:
        """Put frames at the end of the queue, unless they have come too far."""
        if self.plane.depth < MAX_DEPTH:
            super().enqueue(data, ends, claim)
            return
        self._stop(len(ends))

    def _stop(self, frames: int) -> None:
        self.delivery.rules.drop("hop limit", frames)
        if not self.looped:
            log.warning(
                "a frame came over %d cables and was dropped before port %d, %s: the cables may form a loop",
                self.plane.depth, self.port.number, self.port.description or self.port.kind,
            )
        self.looped += frames


class HopsLink(CableEnd, StreamLink):
    """A stream whose frames carry their hops: a member that is the end of a cable. EMSGSIZE if they may be too long."""

    def __init__(self, plane: Plane, sock: socket.socket, delivery: Delivery, port: Port) -> None:
        if delivery.mtu > MAX_LENGTH:
            text = f"frames of {delivery.mtu} bytes leave no room to count hops; {MAX_LENGTH} is the longest MTU"
            raise OSError(errno.EMSGSIZE, text)
        super().__init__(plane, sock, delivery, port)
        self._hops: dict[int, int] = {}
        self._rest: int | None = None

    def _received(self, kept: int, stop: int) -> None:
        """Take the hops out of what has come and hand it on."""
        hops, self._rest = take_hops(self.plane.scratch, stop, self._rest if kept >= PREFIX else None)
        depths = set(hops.values())
        self._hops = hops if len(depths) > 1 else {}
        self.depth = depths.pop() if len(depths) == 1 else 0
        super()._received(kept, stop)
        if self.backlog is not None:
            self.depth = max(hops.values())  # of all that now has to wait; rather too many hops than a loop without end

    def _read_big(self) -> None:
        self.depth = self._rest or 0
        super()._read_big()

    def _hand_on(self, start: int, end: int, ends: Ends) -> None:
        """Deliver a run, frames of the same depth together."""
        hops = self._hops
        if not hops:
            super()._hand_on(start, end, ends)
            return
        begins = [start, *(start + stop for stop in ends[:-1])]
        for depth, group in groupby(zip(begins, ends, strict=True), key=lambda frame: hops[frame[0]]):
            frames = list(group)
            self.depth = depth
            first, stop = frames[0][0], start + frames[-1][1]
            cuts = ends if stop - first == end - start else [upto + start - first for _, upto in frames]
            super()._hand_on(first, stop, cuts)

    def carry(self, view: memoryview, ends: Ends) -> int:
        """Write frames with the hops they have come."""
        return StreamLink.write(self, memoryview(self._with_hops(view, ends)), ends)

    def enqueue(self, data: bytes, ends: Ends, claim: Claim | None = None) -> None:
        """Put frames at the end of the queue, with the hops they have come."""
        super().enqueue(bytes(self._with_hops(data, ends)), ends, claim)

    def _with_hops(self, data: bytes | memoryview, ends: Ends) -> bytearray:
        changed = bytearray(data)
        put_hops(changed, ends, min(self.plane.depth, MAX_DEPTH) + 1)
        return changed
