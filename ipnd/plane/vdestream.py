"""Streams that speak VDE's framing: the end of a cable to ``vde_plug``, or to whatever else has 2-byte lengths.

What comes is turned into the common layout in the scratch buffer, what goes into VDE's before it is written or queued.
Such a stream does not say over how many cables a frame has come: what it brings counts as having come over one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ipn.vdestream import MAX_FRAME, SHORT_PREFIX, StreamDecoder, encode_run

from .batch import Ends
from .hops import CableEnd
from .links import Claim
from .stream import StreamLink

if TYPE_CHECKING:
    import socket

    from .delivery import Delivery
    from .plane import Plane
    from .port import Port

log = logging.getLogger("ipnd.cables")

READ_SIZE: Final = 96 * 1024
"""Bytes read at once: widened to 5/3 (frames of one byte) and behind a long frame they fit the scratch buffer."""


class VdeStreamLink(CableEnd, StreamLink):
    """A stream in VDE's framing. ``boundary`` is that of what is written."""

    boundary = SHORT_PREFIX
    depth = 1

    def __init__(self, plane: Plane, sock: socket.socket, delivery: Delivery, port: Port) -> None:
        super().__init__(plane, sock, delivery, port)
        self._decoder = StreamDecoder()
        self._left_out = 0
        self._encoded = False

    def read(self) -> None:
        """Read, and hand on the whole frames."""
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            if self.closing:
                self.delivery.gone(self)
            return
        except OSError:
            data = b""
        if not data:
            self._at_end()
        elif batch := self._decoder.feed(data):
            self.plane.scratch_view[: len(batch)] = batch
            self._received(0, len(batch))

    def carry(self, view: memoryview, ends: Ends) -> int:
        """Write frames; a piece that the socket cannot take whole is not begun."""
        data, cuts = self._encode(view, ends)
        try:
            return self._write_pieces(memoryview(data), cuts)
        except OSError:
            self.delivery.broken(self)
            return len(ends)

    def enqueue(self, data: bytes, ends: Ends, claim: Claim | None = None) -> None:
        """Put frames at the end of the queue, in VDE's framing."""
        if not self._encoded:
            data, ends = self._encode(data, ends)
        super().enqueue(data, ends, claim)

    def _torn(self, view: memoryview, ends: Ends, sent: int, counted: int = 0, counted_bytes: int = 0) -> int:
        """Queue the rest of a frame, which is encoded already."""
        self._encoded = True
        try:
            return super()._torn(view, ends, sent, counted, counted_bytes)
        finally:
            self._encoded = False

    def _encode(self, run: bytes | memoryview, ends: Ends) -> tuple[bytes, list[int]]:
        """Return frames in VDE's framing, without those that are too long for it."""
        data, cuts, left_out = encode_run(run, ends)
        if left_out and not self._left_out:
            log.warning(
                "frames longer than %d bytes do not go over %s: VDE's stream cannot tell their length",
                MAX_FRAME, self.port.description or self.port.kind,
            )  # fmt: skip
        self._left_out += left_out
        self.port.dropped += left_out
        return data, cuts
