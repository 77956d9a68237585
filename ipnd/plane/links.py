"""Links to members: what all kinds share: their place in the loop and the queue of what a member has not taken.

A link never blocks and never tears a frame: a frame begun is finished before another goes out. A unix stream
socket takes up to ``ATOMIC`` bytes whole or not at all (one buffer of the kernel), so runs are written in
such pieces once the socket runs full; then not even the kernel holds half a frame, and a receiver that polls
is told the truth. Only a frame longer than that may lie there in part.
"""

from __future__ import annotations

import contextlib
import select
import socket
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from ipn.framing import PREFIX

from .batch import Ends

if TYPE_CHECKING:
    from .delivery import Delivery, Unfinished
    from .plane import Plane
    from .port import Port

ATOMIC: Final = 32 * 1024
"""Bytes that a unix stream socket surely takes in one piece: the kernel's buffers hold 32 KiB in pages and more."""
SEND_BUFFER: Final = 1024 * 1024
"""Send buffer asked for on the daemon's side: a member not scheduled for some milliseconds should not lose."""

EPOLLIN: Final = select.EPOLLIN
READ: Final = select.EPOLLIN | select.EPOLLRDHUP
WRITE: Final = select.EPOLLOUT
GONE: Final = select.EPOLLHUP | select.EPOLLERR


class Piece:
    """Frames waiting in a queue: their bytes, prefixes included, where each ends, and the pool's claim on them.

    ``depth``: how many hops over cables they have come.
    """

    __slots__ = ("claim", "data", "depth", "ends", "offset")

    def __init__(self, data: bytes, ends: Ends, claim: Claim | None = None, depth: int = 0) -> None:
        self.data = data
        self.ends = ends
        self.offset = 0
        self.claim = claim
        self.depth = depth


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


class Endpoint(Protocol):
    """What frames come from and go to: a socket, or a device. ``fileno`` is -1 once it is closed."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def close(self) -> None:
        """Close the descriptor."""


class Link:
    """What all links share: the endpoint, its place in the loop, the queue. Owns ``sock``.

    ``takes_unfinished``: whether it takes frames that are yet to be cut and checksummed (``write_unfinished``).
    ``receiver``: the process that reads what is written, 0 when it is none. ``depth``: how many hops over cables what
    it brings has come. ``relays``: whether it is the end of a cable, behind which there is another network.
    """

    boundary = PREFIX
    takes_unfinished = False
    relays = False
    depth = 0

    def __init__(self, plane: Plane, sock: Endpoint, delivery: Delivery, port: Port) -> None:
        self.plane = plane
        self.sock = sock
        self.delivery = delivery
        self.port = port
        self.receiver = port.peer.pid
        self.queue: deque[Piece] = deque()
        self.queued = 0
        self.queued_bytes = 0
        self.reading = port.writer
        self.run_at = 0
        self.closing = False
        self.hung_up = False
        # What delivery keeps for this link as a receiver and as a sender.
        self.credit_ns = 0
        self.settled_frames = self.settled_bytes = 0
        self.hold_since = 0
        self.patience = 0
        self.held: list[Link] = []
        self.holds = 0
        self.backlog: tuple[bytes, Ends] | None = None
        self.mask = READ if self.reading else 0
        self.registered = False
        self._watch(self.mask)

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

    def leave_for_later(self, view: memoryview, ends: Ends) -> None:
        """Put frames behind those that this sender could not send on yet."""
        data, old = self.backlog or (b"", [])
        shift = len(data)
        self.backlog = data + bytes(view), [*old, *(end + shift for end in ends)]

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
            self._stop_watching()

    def update_interest(self) -> None:
        """Tell the loop what this link waits for."""
        if self.sock.fileno() < 0:
            return
        mask = READ if self.reading and self.backlog is None and not self.holds else 0
        if self.queue:
            mask |= WRITE
        if not self.registered or mask != self.mask:
            self._watch(mask)

    def _watch(self, mask: int) -> None:
        """Have the loop call ``on_event`` for ``mask``."""
        if self.registered:
            self.plane.modify(self.sock.fileno(), mask)
        else:
            self.plane.register(self.sock.fileno(), mask, self.on_event)
            self.registered = True
        self.mask = mask

    def _stop_watching(self) -> None:
        """Have the loop forget the endpoint."""
        self.plane.unregister(self.sock.fileno())
        self.registered = False

    def close(self) -> None:
        """Leave the loop and close the socket; what is queued is given up."""
        if self.sock.fileno() < 0:
            return
        if self.registered:
            self._stop_watching()
        self.close_endpoint()
        self.discard()

    def close_endpoint(self) -> None:
        """Close what frames come from and go to."""
        self.sock.close()

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

    def write_unfinished(self, run: Unfinished) -> int:
        """Write frames of a run of which some are unfinished; return the index of the first that was not taken."""
        raise NotImplementedError

    def room(self) -> int:
        """Return how many bytes of a run a single write surely takes; 0 when even one frame may not fit."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write what is queued as far as the socket takes it."""
        with contextlib.suppress(BlockingIOError):
            try:
                self.write_queue()
            except BlockingIOError:
                raise
            except OSError:
                self.delivery.broken(self)
                return
        if not self.queue:
            self.update_interest()
        self.delivery.flushed(self)

    def write_queue(self) -> None:
        """Write queued pieces; BlockingIOError when the socket is full."""
        raise NotImplementedError

    def stop_reading(self) -> None:
        """Take nothing more from the member."""
        self.reading = False
        self.update_interest()

    def send_marker(self) -> None:
        """Send an empty frame: it wakes a member whose notice waits on its control connection."""
        raise NotImplementedError

    # -- the queue -------------------------------------------------------------------------------------------------

    def enqueue(self, data: bytes, ends: Ends, claim: Claim | None = None) -> None:
        """Put frames at the end of the queue."""
        if claim:
            claim.holders += 1
        self.queue.append(Piece(data, ends, claim, self.plane.depth))
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

    def sent(self, frames: int, size: int) -> None:
        """Count frames that the socket took; ``size`` in bytes, prefixes included."""
        self.port.tx_frames += frames
        self.port.tx_bytes += size - self.boundary * frames

    def pop(self) -> None:
        """Take the first piece off the queue: the socket has all of it."""
        piece = self.queue.popleft()
        self.queued -= len(piece.ends)
        self.queued_bytes -= len(piece.data)
        self.sent(len(piece.ends), len(piece.data))
        if piece.claim:
            piece.claim.release()


class SocketLink(Link):
    """What the links to data sockets share."""

    sock: socket.socket

    def __init__(self, plane: Plane, sock: socket.socket, delivery: Delivery, port: Port) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.send_buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        super().__init__(plane, sock, delivery, port)

    def stop_reading(self) -> None:
        """Let the kernel refuse what the member sends from now on; what it sent before is still read."""
        self.sock.shutdown(socket.SHUT_RD)

    def drain(self) -> None:
        """Read what is left behind; the kernel refuses what comes now, or whoever goes on sending is read for ever."""
        with contextlib.suppress(OSError):
            self.stop_reading()
        super().drain()


class Joint:
    """The endpoint of a link that has no descriptor of its own."""

    def __init__(self) -> None:
        self._open = True

    def fileno(self) -> int:
        """Return 0 while it is open, else -1. It is no descriptor."""
        return 0 if self._open else -1

    def close(self) -> None:
        """Close it."""
        self._open = False


class VirtualLink(Link):
    """A link without a descriptor of its own: whoever brings its frames calls it, and it hears what it may do."""

    def _watch(self, mask: int) -> None:
        """Note what the link waits for."""
        self.mask, self.registered = mask, True
        self.wanted(bool(mask & EPOLLIN), bool(mask & WRITE))

    def _stop_watching(self) -> None:
        self.registered = False

    def wanted(self, read: bool, write: bool) -> None:
        """The link takes frames from its member now, or not; it has frames queued for it, or not."""
        raise NotImplementedError

    def stop_reading(self) -> None:
        """Take nothing more from the member."""
        self.reading = False
        self.update_interest()

    def send_marker(self) -> None:
        """Nobody needs to be woken."""
