"""The client's end of a data socket: whole messages over a stream (framed) or over SEQPACKET. Blocking or not.

Both transports keep the promise that makes ``fileno()`` truthful: a *complete* message is never held in this
process, only in the kernel; at most the beginning of one that is still on its way is. Deadlines are
``None`` (wait for ever), ``0.0`` (do not wait) or a value of ``time.monotonic()``.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final

from .framing import LENGTH, PREFIX

Buffer = bytes | bytearray | memoryview
Deadline = float | None

DONTWAIT: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
BATCH: Final = 256 * 1024
"""Bytes moved by one system call of ``receive_many`` and ``send_many``; the daemon reads as much at once."""
JOIN_BELOW: Final = 16 * 1024
"""Up to this size copying a message behind its length is cheaper than handing the kernel two buffers."""
NOW: Final = 0.0


class _Transport:
    """What both kinds share: ownership of the socket, and waiting for it."""

    defer = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._receive_lock = threading.Lock()
        self._send_lock = threading.Lock()

    def ended(self) -> bool:
        """Return whether the daemon has closed its end and nothing is left to read."""
        with contextlib.suppress(BlockingIOError):
            return not self._sock.recv(1, DONTWAIT | socket.MSG_PEEK)
        return False

    def _wait(self, event: int, deadline: Deadline) -> None:
        """Wait until ``event`` (POLLIN or POLLOUT); BlockingIOError or TimeoutError when ``deadline`` passes."""
        if deadline == NOW:
            raise BlockingIOError(errno.EAGAIN, "the operation would block")
        poll = select.poll()
        poll.register(self._sock, event)
        if deadline is None:
            poll.poll()
        elif not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "timed out")


class StreamTransport(_Transport):
    """Messages over a stream, each behind its 4-byte length. Takes ownership of ``sock``."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._partial: bytes | bytearray = b""
        self._unsent = b""
        self.defer = False
        """Whether the rest of what did not fit may wait here for ``flush``: for callers that cannot block."""

    def receive(self, deadline: Deadline) -> bytes | None:
        """Return the next message (empty for a notice marker), None at the end of the stream."""
        with self._receive_lock:
            if self._partial:
                return self._receive_rest(deadline)
            # The common case: the whole message is there, two system calls and one copy.
            try:
                head = self._sock.recv(PREFIX, DONTWAIT if deadline is not None else 0)
                if not head:
                    return None
                self._partial = head
                if len(head) == PREFIX:
                    (length,) = LENGTH.unpack(head)
                    body = self._sock.recv(length, DONTWAIT) if length else b""
                    if len(body) == length:
                        self._partial = b""
                        return body
                    self._partial += body
            except BlockingIOError:
                pass
            return self._receive_rest(deadline)

    def _receive_rest(self, deadline: Deadline) -> bytes | None:
        partial = self._partial = bytearray(self._partial)
        while True:
            header = len(partial) >= PREFIX
            wanted = PREFIX + LENGTH.unpack_from(partial)[0] if header else PREFIX
            if header and len(partial) == wanted:
                message = bytes(memoryview(partial)[PREFIX:])
                self._partial = b""
                return message
            try:
                chunk = self._sock.recv(min(wanted - len(partial), BATCH), DONTWAIT)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            if not chunk:
                return None
            partial += chunk

    def receive_many(self, deadline: Deadline) -> list[bytes]:
        """Return all messages that one read of up to 256 KiB brings, at least one; empty at the end of the stream."""
        with self._receive_lock:
            while True:
                try:
                    chunk = self._sock.recv(BATCH, DONTWAIT)
                except BlockingIOError:
                    self._wait(select.POLLIN, deadline)
                    continue
                if not chunk:
                    return []
                if messages := self._cut(chunk):
                    return messages

    def _cut(self, chunk: bytes) -> list[bytes]:
        if self._partial:
            partial = self._partial = bytearray(self._partial)
            partial += chunk
            if len(partial) < PREFIX or len(partial) < PREFIX + LENGTH.unpack_from(partial)[0]:
                return []
            chunk = bytes(partial)
        unpack, messages = LENGTH.unpack_from, []
        position, end = 0, len(chunk)
        while end - position >= PREFIX:
            start = position + PREFIX
            stop = start + unpack(chunk, position)[0]
            if stop > end:
                break
            messages.append(chunk[start:stop])
            position = stop
        self._partial = chunk[position:]
        return messages

    def skip_markers(self, count: int) -> int:
        """Take up to ``count`` notice markers off the head of the stream; return how many were there."""
        skipped = 0
        with self._receive_lock, contextlib.suppress(BlockingIOError):
            while skipped < count and not self._partial:
                if self._sock.recv(PREFIX, DONTWAIT | socket.MSG_PEEK) != bytes(PREFIX):
                    break
                self._sock.recv(PREFIX, DONTWAIT)
                skipped += 1
        return skipped

    def send(self, message: Buffer, deadline: Deadline) -> None:
        """Send one message. It goes whole or not at all, except that one larger than the socket's buffer may be
        cut off by a timeout; its rest then goes before whatever is sent next.
        """
        size = len(message)
        with self._send_lock:
            if self._unsent:
                self._flush(deadline)
            if size <= JOIN_BELOW:
                data = LENGTH.pack(size) + message
                try:
                    if (sent := self._sock.send(data, DONTWAIT)) == size + PREFIX:
                        return
                except BlockingIOError:
                    sent = 0
            else:
                data = b"".join((LENGTH.pack(size), message))
                sent = 0
            self._send_rest(data, sent, deadline)

    def send_many(self, messages: Sequence[Buffer], deadline: Deadline) -> int:
        """Send messages, many to a system call. Return how many: all of them, unless there is no waiting."""
        pack, done = LENGTH.pack, 0
        with self._send_lock:
            self._flush(deadline)
            while done < len(messages) and not self._unsent:
                parts: list[Buffer] = []
                size, upto = 0, done
                while upto < len(messages) and size < BATCH // 2:
                    message = messages[upto]
                    length = len(message)
                    parts += (pack(length), message)
                    size += length + PREFIX
                    upto += 1
                try:
                    self._send_rest(b"".join(parts), 0, deadline)
                except BlockingIOError:
                    if done:
                        break
                    raise
                done = upto
        return done

    def flush(self) -> bool:
        """Send what ``defer`` kept, without waiting; return whether all of it is out."""
        with self._send_lock, contextlib.suppress(BlockingIOError):
            self._flush(NOW)
        return not self._unsent

    def _flush(self, deadline: Deadline) -> None:
        if self._unsent:
            data, self._unsent = self._unsent, b""
            self._send_rest(data, 0, deadline, torn=True)
            if self._unsent:
                raise BlockingIOError(errno.EAGAIN, "the operation would block")

    def _send_rest(self, data: bytes, sent: int, deadline: Deadline, torn: bool = False) -> None:
        """Send ``data`` from ``sent`` on. What has begun is finished: without waiting only until the first byte
        is out, and kept for the next call when something (a signal's exception, a timeout) interrupts.
        """
        view, torn = memoryview(data), torn or sent > 0
        try:
            while sent < len(data):
                try:
                    sent += self._sock.send(view[sent:], DONTWAIT)
                    torn = True
                except BlockingIOError:
                    if torn and self.defer:
                        self._unsent = bytes(view[sent:])
                        return
                    self._wait(select.POLLOUT, None if torn and deadline == NOW else deadline)
        except BaseException:
            if torn:
                self._unsent = bytes(view[sent:])
            raise


class PacketTransport(_Transport):
    """Messages over SEQPACKET: the kernel keeps their boundaries. Takes ownership of ``sock``."""

    def __init__(self, sock: socket.socket, mtu: int) -> None:
        super().__init__(sock)
        self._mtu = mtu

    def receive(self, deadline: Deadline) -> bytes | None:
        """Return the next message (empty for a notice marker), None at the end."""
        while True:
            try:
                message = self._sock.recv(self._mtu, DONTWAIT)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            return message if message or not self._ended() else None

    def _ended(self) -> bool:
        """Tell an empty message from the end of the connection: only the end stays readable and hung up."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | select.POLLRDHUP)
        return any(event & (select.POLLHUP | select.POLLRDHUP) for _, event in poll.poll(0))

    def receive_many(self, deadline: Deadline) -> list[bytes]:
        """Return the messages that are there, at least one; empty at the end."""
        first = self.receive(deadline)
        if first is None:
            return []
        messages = [first]
        with contextlib.suppress(BlockingIOError):
            while (message := self.receive(NOW)) is not None:
                messages.append(message)
        return messages

    def skip_markers(self, count: int) -> int:
        """Take up to ``count`` notice markers off the head of the queue; return how many were there."""
        skipped = 0
        with contextlib.suppress(BlockingIOError):
            while skipped < count and not self._sock.recv(1, DONTWAIT | socket.MSG_PEEK) and not self._ended():
                self._sock.recv(1, DONTWAIT)
                skipped += 1
        return skipped

    def send(self, message: Buffer, deadline: Deadline) -> None:
        """Send one message, whole."""
        while True:
            try:
                self._sock.send(message, DONTWAIT)
                return
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)

    def send_many(self, messages: Sequence[Buffer], deadline: Deadline) -> int:
        """Send messages one by one. Return how many: all of them, unless there is no waiting."""
        for done, message in enumerate(messages):
            try:
                self.send(message, deadline)
            except BlockingIOError:
                if done:
                    return done
                raise
        return len(messages)

    def flush(self) -> bool:
        """Return True: a message is taken whole or not at all."""
        return True
