"""SEQPACKET data sockets: one message a frame, for members that want the kernel to keep the boundaries."""

from __future__ import annotations

import contextlib
import errno
import select
from bisect import bisect_right
from typing import Final

from ipn.framing import LENGTH, PREFIX

from .batch import Ends
from .links import Link

SEQPACKET_BURST: Final = 64
"""Messages read in one go; the kernel holds about 11 (net.unix.max_dgram_qlen)."""


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
        self.sent(done, size)
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

    def write_queue(self) -> None:
        """Write queued messages until the kernel's queue is full."""
        while self.queue:
            piece = self.queue[0]
            view, start = memoryview(piece.data), piece.offset
            if not piece.ends:
                self.sock.send(b"")
            for end in piece.ends[bisect_right(piece.ends, start) :]:
                self._send(view[start + PREFIX : end])
                start = piece.offset = end
            self.pop()

    def send_marker(self) -> None:
        """Send an empty message."""
        if not self.queue:
            with contextlib.suppress(OSError):
                self.sock.send(b"")
                return
        self.enqueue(LENGTH.pack(0), ())
