"""Links that take one frame with each call: SEQPACKET data sockets, and what grabbed interfaces share with them."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
from bisect import bisect_right
from typing import ClassVar, Final

from ipn.control import Message
from ipn.framing import LENGTH, PREFIX
from ipn.options import OOB_EVENTS, notice_bytes

from .batch import Ends
from .links import GONE, READ, WRITE, Link, Piece, SocketLink
from .mmsg import BURST

MANY: Final = 4
"""Messages from which on they are a burst, that goes with one system call; preparing that costs as much as two do."""


MAX_NOTICES: Final = 256
"""Pieces that may wait for a program before its notices are dropped."""


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
            view = memoryview(piece.data)
            if not piece.ends:
                self.put_notice(piece.data)
            self.write_piece(piece, view, bisect_right(piece.ends, piece.offset))
            self.pop()

    def put_notice(self, data: bytes) -> None:
        """Send what wakes a member whose notice waits on its control connection: an empty message."""
        self.put(memoryview(b""))

    def write_piece(self, piece: Piece, view: memoryview, first: int) -> None:
        """Write the messages of a piece of the queue from that of index ``first`` on."""
        start = piece.offset
        for end in piece.ends[first:]:
            if not self._send(view[start + PREFIX : end]):
                self.sent(-1, start - end)  # it is counted when the piece is done
            start = piece.offset = end


class MessageLink(MessageWriting, SocketLink):
    """A socket that takes one frame with each message: several with one system call, when there are several."""

    def put(self, message: memoryview) -> None:
        """Give one frame to the kernel."""
        self.sock.send(message)

    def write(self, view: memoryview, ends: Ends) -> int:
        """Write frames until the kernel's queue is full."""
        if len(ends) < MANY:
            return super().write(view, ends)
        fd, sender = self.sock.fileno(), self.plane.sender
        done = 0
        try:
            while done < len(ends):
                asked = min(BURST, len(ends) - done)
                sent = sender.send(fd, view, ends, done)
                done += sent
                if sent < asked:
                    break  # full, most likely; if not, writing the rest tells
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in self.LOST:
                self.delivery.broken(self)
                return len(ends)
        if done:
            self.sent(done, ends[done - 1])
        return done

    def write_piece(self, piece: Piece, view: memoryview, first: int) -> None:
        """Write queued messages until the kernel's queue is full."""
        ends = piece.ends
        while len(ends) - first >= MANY:
            try:
                first += self.plane.sender.send(self.sock.fileno(), view, ends, first)
            except OSError as error:
                if error.errno not in self.LOST:
                    raise
                self.port.dropped += 1
                self.sent(-1, piece.offset - ends[first])
                first += 1
            piece.offset = ends[first - 1]
        super().write_piece(piece, view, first)


class PacketLink(MessageLink):
    """A SEQPACKET data socket: one frame a message."""

    connected = True
    """Whether an empty message may mean that the other end has closed."""
    expected = 0
    """Size of the messages of a burst that is going on; 0: there is none."""

    def read(self) -> None:
        """Read the messages that are there: one by one, or many at once as long as they come in bursts."""
        limit = self.delivery.mtu + 1
        view, ends, at_end = self._read_burst(limit) if self.expected else self._read_few(limit)
        if ends:
            self.run_at = 0
            self.delivery.forward(self, view, ends)
        if at_end and self.backlog is None:  # else the end is read once more when what came before it is dealt with
            self.reading = False
            self.delivery.end_of_input(self)

    def _read_few(self, limit: int) -> tuple[memoryview, list[int], bool]:
        """Return up to ``MANY`` messages as a batch, and whether the other end has closed.

        Before each is left the gap for its length; one that is longer than the scratch gets a buffer of its own.
        """
        scratch, view = self.plane.scratch, self.plane.scratch_view
        if PREFIX + limit > len(view):
            scratch = bytearray(PREFIX + limit)
            view = memoryview(scratch)
        position = got = 0
        ends: list[int] = []
        for _ in range(MANY):
            if len(view) - position < PREFIX + limit:
                break
            try:
                got = self.sock.recv_into(view[position + PREFIX :], limit)
            except BlockingIOError:
                return view[:position], ends, self.closing
            except OSError:
                if not self.connected:
                    break
                got = 0
            if not got and self.connected and self._peer_closed():
                return view[:position], ends, True
            if not 0 < got < limit:
                self.port.oversize += 1
                continue
            LENGTH.pack_into(scratch, position, got)
            position += PREFIX + got
            ends.append(position)
        if len(ends) == MANY:
            self.expected = got
        return view[:position], ends, False

    def _read_burst(self, limit: int) -> tuple[memoryview, list[int], bool]:
        """Return all messages as a batch, and whether the other end has closed."""
        try:
            view, ends, sizes = self.plane.receiver.receive(self.sock.fileno(), self.expected, limit)
        except OSError:
            self.expected = 0
            return self._read_few(limit)
        if len(sizes) < MANY:
            self.expected = 0
        elif sizes[-1] != self.expected and sizes.count(sizes[-1]) == len(sizes) == len(ends):
            self.expected = sizes[-1]
        refused = len(sizes) - len(ends)
        if refused and self.connected and not sizes[-1] and self._peer_closed():
            at_end = next(number for number, size in enumerate(reversed(sizes)) if size) if any(sizes) else len(sizes)
            self.port.oversize += refused - at_end
            return view, ends, True
        self.port.oversize += refused
        return view, ends, False

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


class ProgramLink(PacketLink):
    """The socket of a program that knows nothing of a control connection: notices come among its messages.

    A notice has a descriptor with it, of which a program that only receives sees nothing; who looks at what comes with
    messages can tell it from them.
    """

    def on_event(self, mask: int) -> None:
        """Do what the loop found possible. Who has ended both directions by request looks gone, but goes on managing.

        When it is gone, who holds its control connection closes that.
        """
        if mask & GONE and not (self.port.reader or self.port.writer or self.closing):
            if not self.may_read():
                self._stop_watching()
                return
            mask = mask & WRITE | READ
        super().on_event(mask)

    def tell(self, notice: Message) -> None:
        """Send a notice, behind the messages that wait."""
        if notice.get("event") in OOB_EVENTS and len(self.queue) < MAX_NOTICES and self.sock.fileno() >= 0:
            if not self.queue:
                with contextlib.suppress(BlockingIOError):
                    self.put_notice(notice_bytes(notice))
                    return
            self.enqueue(notice_bytes(notice), ())

    def put_notice(self, data: bytes) -> None:
        """Send a notice, which is lost where the kernel has no room for descriptors on their way."""
        mark = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, mark.to_bytes(4, sys.byteorder))])
        except BlockingIOError:
            raise
        except OSError:
            self.port.dropped += 1
        finally:
            os.close(mark)


class DatagramLink(PacketLink):
    """A datagram socket connected to the member's own: one frame a datagram. Something else tells when it goes."""

    connected = False
