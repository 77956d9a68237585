"""Links that take one frame with each call: SEQPACKET data sockets, and what grabbed interfaces share with them."""

from __future__ import annotations

import contextlib
import errno
import select
from bisect import bisect_right
from typing import ClassVar, Final

from ipn.framing import LENGTH, PREFIX

from .batch import Ends
from .links import Link, SocketLink

SEQPACKET_BURST: Final = 64
"""Messages read in one go; the kernel holds about 11 (net.unix.max_dgram_qlen)."""


class MessageWriting(Link):
    """What takes one frame with each call, until its queue in the kernel is full.

    ``LOST``: errors that mean that it will never take this frame, but perhaps the next.
    """

    LOST: ClassVar[frozenset[int]] = frozenset({errno.EMSGSIZE, errno.ENOBUFS})

    def put(self, message: memoryview) -> None:
        """Give one frame to the kernel."""
        raise NotImplementedError

    def write(self, view: memoryview, ends: Ends) -> int:
        """Write frames one by one until the kernel's queue is full."""
        start = done = size = lost = 0
        try:
            for end in ends:
                if self._send(view[start + PREFIX : end]):
                    size += end - start
                else:
                    lost += 1
                start = end
                done += 1
        except BlockingIOError:
            pass
        except OSError:
            self.delivery.broken(self)
            return len(ends)
        self.sent(done - lost, size)
        return done

    def _send(self, message: memoryview) -> bool:
        """Send one frame; False when it is lost."""
        try:
            self.put(message)
        except OSError as error:
            if error.errno not in self.LOST:
                raise
            self.port.dropped += 1
            return False
        return True

    def room(self) -> int:
        """Return 0: the kernel tells of no message queue how full it is."""
        return 0

    def write_queue(self) -> None:
        """Write queued messages until the kernel's queue is full."""
        while self.queue:
            piece = self.queue[0]
            view, start = memoryview(piece.data), piece.offset
            if not piece.ends:
                self.put(memoryview(b""))
            for end in piece.ends[bisect_right(piece.ends, start) :]:
                self._send(view[start + PREFIX : end])
                start = piece.offset = end
            self.pop()


class MessageLink(MessageWriting, SocketLink):
    """A socket that takes one frame with each call."""

    def put(self, message: memoryview) -> None:
        """Give one frame to the kernel."""
        self.sock.send(message)


class PacketLink(MessageLink):
    """A SEQPACKET data socket: one frame a message."""

    connected = True
    """Whether an empty message may mean that the other end has closed."""

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
                if not self.connected:
                    break
                got = 0
            if not got and self.connected and self._peer_closed():
                at_end = True
                break
            if not 0 < got <= mtu:
                self.port.oversize += 1
                continue
            LENGTH.pack_into(scratch, position, got)
            position += PREFIX + got
            ends.append(position)
        if ends:
            self.run_at = 0
            self.delivery.forward(self, view[:position], ends)
        if at_end:
            self.reading = False
            self.delivery.end_of_input(self)

    def _peer_closed(self) -> bool:
        """Tell the end of the connection from an empty message."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def send_marker(self) -> None:
        """Send an empty message."""
        if not self.queue:
            with contextlib.suppress(OSError):
                self.sock.send(b"")
                return
        self.enqueue(LENGTH.pack(0), ())


class DatagramLink(PacketLink):
    """A datagram socket connected to the member's own: one frame a datagram. Something else tells when it goes."""

    connected = False
