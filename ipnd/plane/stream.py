"""Stream data sockets: frames behind 4-byte lengths, read and written in batches. Raw members have these too."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from ipn.abi import MAX_MTU
from ipn.framing import LENGTH, PREFIX
from ipnd.errors import PeerFault

from .batch import Ends, cut
from .links import ATOMIC, Piece, SocketLink

if TYPE_CHECKING:
    from .delivery import Delivery
    from .plane import Plane
    from .port import Port

OVERHEAD: Final = 4
"""A write of n bytes is charged at most n + n/OVERHEAD + ATOMIC to the socket's buffer (struct sk_buff, rounding)."""
ENOUGH: Final = 512 * 1024
"""Room once seen, less what was written since, that makes looking again needless: what is left is still more."""
SIOCOUTQ: Final = termios.TIOCOUTQ


class StreamLink(SocketLink):
    """A stream data socket: frames behind 4-byte lengths."""

    def __init__(self, plane: Plane, sock: socket.socket, delivery: Delivery, port: Port) -> None:
        super().__init__(plane, sock, delivery, port)
        self._partial = b""
        self._big: bytearray | None = None
        self._big_filled = 0
        self._skip = 0
        self._outq = bytearray(4)
        self._spare = 0

    def read(self) -> None:
        """Read up to 256 KiB; hand on the whole frames, keep the beginning of the last."""
        if self._big is not None or self._skip:
            self._read_big()
            return
        plane = self.plane
        kept = len(self._partial)
        try:
            if kept:
                plane.scratch[:kept] = self._partial
                got = self.sock.recv_into(plane.scratch_view[kept:])
            else:
                got = self.sock.recv_into(plane.scratch)
        except BlockingIOError:
            if self.closing:
                self.delivery.gone(self)
            return
        except OSError:
            got = 0
        if not got:
            self._at_end()
            return
        self._received(kept, kept + got)

    def _received(self, kept: int, stop: int) -> None:
        """Hand on what lies in the scratch buffer up to ``stop``; its first ``kept`` bytes had come before."""
        plane = self.plane
        if not kept and stop > PREFIX and LENGTH.unpack_from(plane.scratch)[0] == stop - PREFIX <= self.delivery.mtu:
            # One frame and nothing else: conversations consist of these.
            self._hand_on(0, stop, (stop,))
            return
        runs, consumed, skipped, wanted = cut(plane.scratch, stop, self.delivery.mtu)
        if consumed != stop:
            if wanted > plane.scratch_size or wanted - PREFIX > self.delivery.mtu:
                self._begin_big(consumed, stop, wanted)
            else:
                self._partial = bytes(plane.scratch_view[consumed:stop])
        elif kept:
            self._partial = b""
        if skipped:
            self.port.oversize += skipped
        for start, end, ends in runs:
            self._hand_on(start, end, ends)

    def _hand_on(self, start: int, end: int, ends: Ends) -> None:
        """Deliver the run that lies in the scratch buffer from ``start`` to ``end``."""
        self.run_at = start
        self.delivery.forward(self, self.plane.scratch_view[start:end], ends)

    def _begin_big(self, consumed: int, stop: int, wanted: int) -> None:
        """A frame larger than the scratch buffer has begun: give it a buffer of its own, or skip it."""
        self._partial = b""
        length = wanted - PREFIX
        if length > MAX_MTU:
            raise PeerFault(f"announced a frame of {length} bytes; at most {MAX_MTU} are allowed")
        have = stop - consumed
        if length > self.delivery.mtu:
            self.port.oversize += 1
            self._skip = wanted - have
        else:
            self._big = bytearray(wanted)
            self._big[:have] = self.plane.scratch_view[consumed:stop]
            self._big_filled = have

    def _read_big(self) -> None:
        try:
            if self._big is not None:
                got = self.sock.recv_into(memoryview(self._big)[self._big_filled :])
            else:
                got = self.sock.recv_into(self.plane.scratch, min(self._skip, self.plane.scratch_size))
        except BlockingIOError:
            if self.closing:
                self.delivery.gone(self)
            return
        except OSError:
            got = 0
        if not got:
            self._at_end()
        elif self._big is None:
            self._skip -= got
        else:
            self._big_filled += got
            if self._big_filled == len(self._big):
                frame, self._big = self._big, None
                self.delivery.forward(self, memoryview(frame), (len(frame),))

    def _at_end(self) -> None:
        """The member will send no more. It may still receive: a pipe into ``nc -N`` does so."""
        self.reading = False
        self._partial, self._big = b"", None
        self.delivery.end_of_input(self)

    def write(self, view: memoryview, ends: Ends) -> int:
        """Write frames; a piece that the socket cannot take whole is not begun."""
        size = len(view)
        try:
            if size <= ATOMIC or size <= self.room():
                sent = self.sock.send(view)
                self._spare -= sent + ATOMIC
                if sent == size:
                    frames, port = len(ends), self.port
                    port.tx_frames += frames
                    port.tx_bytes += size - PREFIX * frames
                    return frames
                return self._torn(view, ends, sent)
            return self._write_pieces(view, ends)
        except BlockingIOError:
            return 0
        except OSError:
            self.delivery.broken(self)
            return len(ends)

    def _write_pieces(self, view: memoryview, ends: Ends) -> int:
        """Write pieces of whole frames, each small enough to be taken at once or not at all."""
        done, start = 0, 0
        self._spare = 0
        while done < len(ends):
            upto = max(bisect_right(ends, start + ATOMIC, done), done + 1)
            stop = ends[upto - 1]
            try:
                sent = self.sock.send(view[start:stop])
            except BlockingIOError:
                break
            if sent < stop - start:
                self.sent(done, start)
                return self._torn(view, ends, start + sent, done, start)
            done, start = upto, stop
        self.sent(done, start)
        return done

    def _torn(self, view: memoryview, ends: Ends, sent: int, counted: int = 0, counted_bytes: int = 0) -> int:
        """The socket took part of a frame: its rest becomes the head of the queue. Return the frames dealt with."""
        whole = bisect_right(ends, sent, counted)
        begin = ends[whole - 1] if whole else 0
        self.sent(whole - counted, begin - counted_bytes)
        if sent == begin:
            return whole
        frame = bytes(view[begin : ends[whole]])
        self.enqueue(frame, (len(frame),))
        self.queue[-1].offset = sent - begin
        return whole + 1

    def room(self) -> int:
        """Return the bytes that the send buffer surely still takes in one write."""
        if self.queue:
            return 0
        if self._spare > ENOUGH:
            return self._spare
        try:
            fcntl.ioctl(self.sock.fileno(), SIOCOUTQ, self._outq)
        except OSError:
            return 0
        free: int = self.send_buffer - struct.unpack("i", self._outq)[0]
        if free <= 0:
            return 0
        self._spare = (free - ATOMIC) * OVERHEAD // (OVERHEAD + 1)
        return max(ATOMIC, self._spare)

    def write_queue(self) -> None:
        """Write queued pieces until the socket is full."""
        self._spare = 0
        while self.queue:
            piece = self.queue[0]
            if len(piece.data) - piece.offset > ATOMIC and not piece.offset and len(piece.ends) > 1:
                self._split(piece)
                continue
            sent = self.sock.send(memoryview(piece.data)[piece.offset :])
            if piece.offset + sent < len(piece.data):
                piece.offset += sent
                return
            self.pop()

    def _split(self, piece: Piece) -> None:
        """Cut a piece into two so that the first is taken whole or not at all."""
        upto = max(bisect_right(piece.ends, ATOMIC), 1)
        stop = piece.ends[upto - 1]
        rest = Piece(piece.data[stop:], [end - stop for end in piece.ends[upto:]], piece.claim)
        if piece.claim:
            piece.claim.holders += 1
        piece.data, piece.ends = piece.data[:stop], piece.ends[:upto]
        self.queue.insert(1, rest)

    def send_marker(self) -> None:
        """Send an empty frame."""
        marker = LENGTH.pack(0)
        if not self.queue:
            with contextlib.suppress(OSError):
                if self.sock.send(marker) == PREFIX:
                    return
        self.enqueue(marker, ())
