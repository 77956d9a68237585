"""The blocking end of a control connection: requests out, replies and notices in, descriptors beside them.

One ``ControlChannel`` belongs to one socket object or one ``ipnctl`` command. Requests are answered in
order; notices that arrive in between are kept (at most ``MAX_NOTICES``) until somebody asks for them.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from .control import (
    MAGIC,
    MAX_FDS,
    MAX_REPLY,
    VERSION,
    ControlDecoder,
    ControlError,
    Message,
    encode_message,
    error_from_body,
)

REPLY_TIMEOUT: Final = 30.0
"""Seconds to wait for a reply. ipnd answers at once; only a stopped or hopelessly busy one takes longer."""
MAX_NOTICES: Final = 1024
"""Notices kept for a program that does not ask for them; the oldest go first."""


class ControlChannel:
    """A control connection, from the greeting on. Takes ownership of ``sock``.

    ``path`` is what errors name. Raises ``ConnectionRefusedError`` when the other end is no ipnd.
    """

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.path = path
        self.info: Message = {}
        self._sock = sock
        self._lock = threading.Lock()
        self._decoder = ControlDecoder(MAX_REPLY)
        self._inbox: deque[Message] = deque()
        self._notices: deque[Message] = deque(maxlen=MAX_NOTICES)
        self._fds: list[int] = []
        self._next_id = 0
        self.closed = False
        sock.settimeout(REPLY_TIMEOUT)

    def greet(self) -> Message:
        """Exchange ``hello`` and return what the daemon says of itself and, on a network's path, of the network."""
        try:
            self._sock.sendall(MAGIC)
            self.info, _ = self.request("hello", version=VERSION)
        except (ConnectionError, TimeoutError) as error:
            text = f"what listens on {self.path} is not an IPN network, or its ipnd does not answer"
            raise ConnectionRefusedError(errno.ECONNREFUSED, text, self.path) from error
        return self.info

    def request(self, op: str, *, fds: Sequence[int] = (), **fields: Any) -> tuple[Any, list[int]]:
        """Send ``op`` with ``fields`` and the descriptors ``fds``; return the reply's ``ok`` and its descriptors.

        The caller owns the returned descriptors. Raises the ``OSError`` that the reply carries,
        ``ConnectionResetError`` when the daemon is gone, ``TimeoutError`` when it does not answer.
        """
        with self._lock:
            self._next_id += 1
            message = encode_message({"id": self._next_id, "op": op, **fields})
            try:
                self._send(message, fds)
                reply, received = self._reply_to(self._next_id)
            except (BrokenPipeError, ConnectionResetError, EOFError) as error:
                text = f"the ipnd that served {self.path} is gone"
                raise ConnectionResetError(errno.ECONNRESET, text, self.path) from error
            except TimeoutError as error:
                # A late reply would be taken for the next one: the channel is of no more use.
                self.close()
                raise TimeoutError(errno.ETIMEDOUT, f"ipnd did not answer {op!r} in time", self.path) from error
        if "error" in reply:
            close_all(received)
            raise error_from_body(reply["error"], self.path)
        return reply.get("ok"), received

    def notice_nowait(self) -> Message | None:
        """Return the oldest notice that has arrived, or None. Never blocks."""
        if not self._lock.acquire(blocking=False):
            return None  # another thread is in a request; it keeps the notices it meets
        try:
            if not self._notices:
                with contextlib.suppress(BlockingIOError, EOFError, ConnectionError):
                    self._sock.setblocking(False)
                    self._read()
                self._sock.settimeout(REPLY_TIMEOUT)
                self._sort_inbox()
            return self._notices.popleft() if self._notices else None
        finally:
            self._lock.release()

    def wait_notice(self, timeout: float | None) -> Message | None:
        """Return the next notice, waiting up to ``timeout`` seconds (None: for ever); None when none came.

        Raises ``EOFError`` when the daemon is gone.
        """
        with self._lock:
            try:
                self._sock.settimeout(timeout)
                self._sort_inbox()
                while not self._notices:
                    self._read()
                    self._sort_inbox()
            except TimeoutError:
                return None
            finally:
                if not self.closed:
                    self._sock.settimeout(REPLY_TIMEOUT)
            return self._notices.popleft()

    def fileno(self) -> int:
        """Return the descriptor of the connection: readable when a notice is there or the daemon is gone."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the connection; what the daemon keeps for it ends."""
        self.closed = True
        self._sock.close()
        close_all(self._fds)

    def _send(self, message: bytes, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self._sock.sendmsg([message], ancillary)
        if sent < len(message):
            self._sock.sendall(message[sent:])

    def _reply_to(self, request_id: int) -> tuple[Message, list[int]]:
        while True:
            self._sort_inbox()
            if self._inbox:
                reply = self._inbox.popleft()
                if reply["id"] == request_id:
                    fds, self._fds = self._fds, []
                    return reply, fds
                continue
            self._read()

    def _sort_inbox(self) -> None:
        while self._inbox and "id" not in self._inbox[0]:
            self._notices.append(self._inbox.popleft())

    def _read(self) -> None:
        size = array.array("i").itemsize * MAX_FDS
        data, ancillary, _, _ = self._sock.recvmsg(65536, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._fds += received
        if not data:
            raise EOFError
        try:
            self._inbox += self._decoder.feed(data)
        except ControlError as error:
            raise ConnectionRefusedError(
                errno.ECONNREFUSED, f"what answers on {self.path} does not speak IPN: {error}", self.path
            ) from None


def close_all(fds: list[int]) -> None:
    """Close every descriptor in ``fds`` and empty the list."""
    while fds:
        os.close(fds.pop())
