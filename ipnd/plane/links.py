"""Data sockets: reading batches from a member, writing runs to it, and the queue of what it has not taken.

A link never blocks and never tears a frame: a frame begun is finished before another goes out. A unix stream
socket takes up to ``ATOMIC`` bytes whole or not at all (one buffer of the kernel), so runs are written in
such pieces once the socket runs full; then not even the kernel holds half a frame, and a receiver that polls
is told the truth. Only a frame longer than that may lie there in part.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import select
import socket
import struct
import termios
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final

from ipn.abi import MAX_MTU
from ipn.framing import LENGTH, PREFIX
from ipnd.errors import PeerFault

from .batch import Ends, cut

if TYPE_CHECKING:
    from .delivery import Delivery
    from .plane import Plane
    from .port import Port

ATOMIC: Final = 32 * 1024
"""Bytes that a unix stream socket surely takes in one piece: the kernel's buffers hold 32 KiB in pages and more."""
OVERHEAD: Final = 4
"""A write of n bytes is charged at most n + n/OVERHEAD + ATOMIC to the socket's buffer (struct sk_buff, rounding)."""
SEND_BUFFER: Final = 1024 * 1024
"""Send buffer asked for on the daemon's side: a member not scheduled for some milliseconds should not lose."""
SEQPACKET_BURST: Final = 64
"""Messages read from a SEQPACKET member in one go; the kernel holds about 11 (net.unix.max_dgram_qlen)."""

EPOLLIN: Final = select.EPOLLIN
READ: Final = select.EPOLLIN | select.EPOLLRDHUP
WRITE: Final = select.EPOLLOUT
GONE: Final = select.EPOLLHUP | select.EPOLLERR
SIOCOUTQ: Final = termios.TIOCOUTQ


class Piece:
    """Frames waiting in a queue: their bytes, prefixes included, where each ends, and the pool's claim on them."""

    __slots__ = ("claim", "data", "ends", "offset")

    def __init__(self, data: bytes, ends: Ends, claim: Claim | None = None) -> None:
        self.data = data
        self.ends = ends
        self.offset = 0
        self.claim = claim


class Claim:
    """Messages of a lossless pool that several queues may share; given back when the last queue is done."""

    __slots__ = ("delivery", "frames", "holders")

    def __init__(self, delivery: Delivery, frames: int) -> None:
        self.delivery = delivery
        self.frames = frames
        self.holders = 0

    def release(self) -> None:
        """One queue is done with the messages."""
        self.holders -= 1
        if not self.holders:
            self.delivery.pool_released(self.frames)


def _frames_begun(piece: Piece) -> int:
    """Return how many frames of a piece the socket has, the torn one included."""
    whole = bisect_right(piece.ends, piece.offset)
    return whole + (piece.offset > (piece.ends[whole - 1] if whole else 0))


class Link:
    """What stream and packet links share: the socket, its place in the loop, the queue. Owns ``sock``."""

    boundary = PREFIX

    def __init__(self, plane: Plane, sock: socket.socket, delivery: Delivery, port: Port) -> None:
        self.plane = plane
        self.sock = sock
        self.delivery = delivery
        self.port = port
        self.queue: deque[Piece] = deque()
        self.queued = 0
        self.queued_bytes = 0
        self.reading = port.writer
        self.closing = False
        self.hung_up = False
        # What delivery keeps for this link as a receiver and as a sender.
        self.credit_ns = 0
        self.settled_frames = self.settled_bytes = 0
        self.hold_since = 0
        self.held: list[Link] = []
        self.holds = 0
        self.backlog: tuple[bytes, Ends] | None = None
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.send_buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self.mask = READ if self.reading else 0
        plane.register(sock.fileno(), self.mask, self.on_event)
        self.registered = True

    # -- the loop ------------------------------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        """Do what the loop found possible."""
        if mask == EPOLLIN and self.reading and self.backlog is None and not self.holds:
            self.read()
            return
        if mask & WRITE and self.queue:
            self.flush()
            self.delivery.bury()
        if mask & (READ | GONE):
            self.hung_up = bool(mask & GONE)
            if self.may_read():
                self.read()
            elif mask & GONE:
                self._hung_up()

    def may_read(self) -> bool:
        """Return whether frames may be taken from the member now: it sends, and nobody it would have to wait for."""
        return self.reading and self.backlog is None and not self.holds and self.sock.fileno() >= 0

    def drain(self) -> None:
        """Read what a member that is leaving has left behind; it is gone when that is done."""
        self.closing = True
        self.delivery.deaf(self)
        if not self.reading and self.sock.fileno() >= 0:
            self.delivery.gone(self)
        while self.may_read():
            self.read()

    def _hung_up(self) -> None:
        self.delivery.deaf(self)
        if self.sock.fileno() < 0:
            return
        if self.backlog is None and not self.holds:
            self.delivery.gone(self)
        elif self.registered:
            # Held back with frames still to read: EPOLLHUP cannot be masked, so look away until released.
            self.plane.unregister(self.sock.fileno())
            self.registered = False

    def update_interest(self) -> None:
        """Tell the loop what this link waits for."""
        if self.sock.fileno() < 0:
            return
        mask = READ if self.reading and self.backlog is None and not self.holds else 0
        if self.queue:
            mask |= WRITE
        if not self.registered:
            self.plane.register(self.sock.fileno(), mask, self.on_event)
            self.registered, self.mask = True, mask
        elif mask != self.mask:
            self.plane.modify(self.sock.fileno(), mask)
            self.mask = mask

    def close(self) -> None:
        """Leave the loop and close the socket; what is queued is given up."""
        if self.sock.fileno() < 0:
            return
        if self.registered:
            self.plane.unregister(self.sock.fileno())
            self.registered = False
        self.sock.close()
        self.discard()

    def discard(self) -> None:
        """Give up what is queued."""
        while self.queue:
            claim = self.queue.popleft().claim
            if claim:
                claim.release()
        self.queued = self.queued_bytes = 0

    # -- what the kinds do differently -----------------------------------------------------------------------------

    def read(self) -> None:
        """Read a batch and hand it to the delivery."""
        raise NotImplementedError

    def write(self, view: memoryview, ends: Ends) -> int:
        """Write frames of a run as far as the socket takes them; return how many are dealt with."""
        raise NotImplementedError

    def room(self) -> int:
        """Return how many bytes of a run a single write surely takes; 0 when even one frame may not fit."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write what is queued as far as the socket takes it."""
        raise NotImplementedError

    def send_marker(self) -> None:
        """Send an empty frame: it wakes a member whose notice waits on its control connection."""
        raise NotImplementedError

    # -- the queue -------------------------------------------------------------------------------------------------

    def enqueue(self, data: bytes, ends: Ends, claim: Claim | None = None) -> None:
        """Put frames at the end of the queue."""
        if claim:
            claim.holders += 1
        self.queue.append(Piece(data, ends, claim))
        self.queued += len(ends)
        self.queued_bytes += len(data)
        if len(self.queue) == 1:
            self.update_interest()

    def trim(self, frames: int) -> int:
        """Drop the newest queued frames until ``frames`` are left; return how many were dropped."""
        dropped = 0
        while self.queued > frames and self.queue:
            piece = self.queue[-1]
            have, surplus = len(piece.ends), self.queued - frames
            keep = max(have - surplus, _frames_begun(piece))
            if keep >= have:
                break
            dropped += have - keep
            self.queued -= have - keep
            if keep:
                stop = piece.ends[keep - 1]
                self.queued_bytes -= len(piece.data) - stop
                piece.data, piece.ends = piece.data[:stop], piece.ends[:keep]
            else:
                self.queued_bytes -= len(piece.data)
                self.queue.pop()
        return dropped

    def _sent(self, frames: int, size: int) -> None:
        self.port.tx_frames += frames
        self.port.tx_bytes += size - self.boundary * frames

    def _pop(self) -> None:
        piece = self.queue.popleft()
        self.queued -= len(piece.ends)
        self.queued_bytes -= len(piece.data)
        self._sent(len(piece.ends), len(piece.data))
        if piece.claim:
            piece.claim.release()


class StreamLink(Link):
    """A stream data socket: frames behind 4-byte lengths."""

    def __init__(self, plane: Plane, sock: socket.socket, delivery: Delivery, port: Port) -> None:
        super().__init__(plane, sock, delivery, port)
        self._partial = b""
        self._big: bytearray | None = None
        self._big_filled = 0
        self._skip = 0
        self._outq = bytearray(4)

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
        if not kept and got > PREFIX and LENGTH.unpack_from(plane.scratch)[0] == got - PREFIX <= self.delivery.mtu:
            # One frame and nothing else: conversations consist of these.
            self.delivery.forward(self, plane.scratch_view[:got], (got,))
            return
        stop = kept + got
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
            self.delivery.forward(self, plane.scratch_view[start:end], ends)

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
        while done < len(ends):
            upto = max(bisect_right(ends, start + ATOMIC, done), done + 1)
            stop = ends[upto - 1]
            try:
                sent = self.sock.send(view[start:stop])
            except BlockingIOError:
                break
            if sent < stop - start:
                self._sent(done, start)
                return self._torn(view, ends, start + sent, done, start)
            done, start = upto, stop
        self._sent(done, start)
        return done

    def _torn(self, view: memoryview, ends: Ends, sent: int, counted: int = 0, counted_bytes: int = 0) -> int:
        """The socket took part of a frame: its rest becomes the head of the queue. Return the frames dealt with."""
        whole = bisect_right(ends, sent, counted)
        begin = ends[whole - 1] if whole else 0
        self._sent(whole - counted, begin - counted_bytes)
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
        try:
            fcntl.ioctl(self.sock.fileno(), SIOCOUTQ, self._outq)
        except OSError:
            return 0
        free: int = self.send_buffer - struct.unpack("i", self._outq)[0]
        if free <= 0:
            return 0
        return max(ATOMIC, (free - ATOMIC) * OVERHEAD // (OVERHEAD + 1))

    def flush(self) -> None:
        """Write queued pieces until the socket is full."""
        try:
            while self.queue:
                piece = self.queue[0]
                if len(piece.data) - piece.offset > ATOMIC and not piece.offset and len(piece.ends) > 1:
                    self._split(piece)
                    continue
                sent = self.sock.send(memoryview(piece.data)[piece.offset :])
                if piece.offset + sent < len(piece.data):
                    piece.offset += sent
                    break
                self._pop()
        except BlockingIOError:
            pass
        except OSError:
            self.delivery.broken(self)
            return
        if not self.queue:
            self.update_interest()
        self.delivery.flushed(self)

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


class PacketLink(Link):
    """A SEQPACKET data socket: one frame a message."""

    def read(self) -> None:
        """Read the messages that are there, leaving before each the gap for its length."""
        plane, mtu = self.plane, self.delivery.mtu
        limit = min(mtu + 1, plane.scratch_size - PREFIX) if mtu < plane.scratch_size else mtu + 1
        big = PREFIX + limit > plane.scratch_size
        scratch = bytearray(PREFIX + limit) if big else plane.scratch
        view = memoryview(scratch) if big else plane.scratch_view
        position, ends = 0, []
        at_end = False
        for _ in range(SEQPACKET_BURST):
            if len(view) - position < PREFIX + limit:
                break
            try:
                got = self.sock.recv_into(view[position + PREFIX :], limit)
            except BlockingIOError:
                if self.closing:
                    at_end = True
                break
            except OSError:
                got = 0
            if not got and self._peer_closed():
                at_end = True
                break
            if not 0 < got <= mtu:
                self.port.oversize += 1
                continue
            LENGTH.pack_into(scratch, position, got)
            position += PREFIX + got
            ends.append(position)
        if ends:
            self.delivery.forward(self, view[:position], ends)
        if at_end:
            self.reading = False
            self.delivery.end_of_input(self)

    def _peer_closed(self) -> bool:
        """Tell the end of the connection from an empty message."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def write(self, view: memoryview, ends: Ends) -> int:
        """Write frames one by one until the kernel's queue is full."""
        start = done = size = 0
        try:
            for end in ends:
                if self._send(view[start + PREFIX : end]):
                    size += end - start
                start = end
                done += 1
        except BlockingIOError:
            pass
        except OSError:
            self.delivery.broken(self)
            return len(ends)
        self._sent(done, size)
        return done

    def _send(self, message: memoryview) -> bool:
        """Send one message; False when it is longer than any the socket takes, and so is lost."""
        try:
            self.sock.send(message)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self.port.dropped += 1
            return False
        return True

    def room(self) -> int:
        """Return 0: the kernel tells of no message queue how full it is."""
        return 0

    def flush(self) -> None:
        """Write queued messages until the kernel's queue is full."""
        try:
            while self.queue:
                piece = self.queue[0]
                view, start = memoryview(piece.data), piece.offset
                if not piece.ends:
                    self.sock.send(b"")
                for end in piece.ends[bisect_right(piece.ends, start) :]:
                    self._send(view[start + PREFIX : end])
                    start = piece.offset = end
                self._pop()
        except BlockingIOError:
            pass
        except OSError:
            self.delivery.broken(self)
            return
        if not self.queue:
            self.update_interest()
        self.delivery.flushed(self)

    def send_marker(self) -> None:
        """Send an empty message."""
        if not self.queue:
            with contextlib.suppress(OSError):
                self.sock.send(b"")
                return
        self.enqueue(LENGTH.pack(0), ())
