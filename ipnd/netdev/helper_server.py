"""The helper's loop: many clients, one thread, nobody waited for.

A client connects, sends requests, one message each (SOCK_SEQPACKET), and gets one answer to each. Whoever sends noise,
does not take an answer, or keeps silent for too long is dropped, and nobody else notices.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Final

from ipn.control import ControlError, Message, decode_message, error_body
from ipn.netdev import Device, close_device

from .helper_caller import Caller, caller_of

MAX_REQUEST: Final = 8192
"""Bytes of the longest request: a TAP with 16 addresses takes under 2,000."""
MAX_PER_USER: Final = 8
"""Connections of one user at a time. A request takes milliseconds, so nobody needs many."""
MAX_CLIENTS: Final = 128
"""Connections of all users; the one that has been silent the longest makes room for a new one."""
SIOCOUTQ: Final = 0x5411
PATIENCE: Final = 10.0
"""Seconds that a connection may be silent."""

Answerer = Callable[[Caller, Message], tuple[Message, Device | None]]


@dataclass(eq=False)
class Client:
    """A connection and who is at its other end; ``deadline`` is when it has been silent for too long."""

    sock: socket.socket
    caller: Caller
    deadline: float


class HelperServer:
    """Serves ``listener`` with ``answer``, whose ``OSError`` goes to the client, until SIGTERM or SIGINT."""

    def __init__(self, listener: socket.socket, answer: Answerer, log: Callable[[str], None]) -> None:
        self._listener = listener
        self._answer = answer
        self._log = log
        self._clients: dict[Client, None] = {}
        """In the order of their deadlines, as each gets the same patience anew and moves to the end."""
        self._selector = selectors.DefaultSelector()

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT; ``ready`` is called when clients and signals may come."""
        with _end_signals() as ends, self._selector:
            self._selector.register(ends, selectors.EVENT_READ)
            self._selector.register(self._listener, selectors.EVENT_READ)
            ready()
            while True:
                for key, _ in self._selector.select(self._time_left()):
                    if key.fileobj is ends:
                        return self._end()
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._clients:
                        self._serve(key.data)
                self._drop_silent()

    def _time_left(self) -> float | None:
        first = next(iter(self._clients), None)
        return None if first is None else max(0.0, first.deadline - time.monotonic())

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        sock.setblocking(False)
        caller = caller_of(sock)
        if sum(client.caller.uid == caller.uid for client in self._clients) >= MAX_PER_USER:
            text = f"user {caller.uid} has {MAX_PER_USER} connections to the helper already"
            self._log(f"refused {caller} a connection: {text}")
            return _turn_away(sock, OSError(errno.EAGAIN, text))
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(next(iter(self._clients)))
        client = Client(sock, caller, 0.0)
        self._selector.register(sock, selectors.EVENT_READ, client)
        self._be_patient(client)

    def _serve(self, client: Client) -> None:
        """Answer one message of ``client``, or drop it. Descriptors that came along are the kernel's to close."""
        try:
            data = client.sock.recv(MAX_REQUEST + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            return self._drop(client)
        try:
            if len(data) > MAX_REQUEST:
                raise ControlError(f"a request of more than {MAX_REQUEST} bytes")
            message = decode_message(data)
        except ControlError as error:
            return self._drop(client, str(error))
        if not _has_unread(client.sock) and self._reply(client, message):
            return self._be_patient(client)
        self._drop(client, "it does not take its answers")

    def _reply(self, client: Client, message: Message) -> bool:
        """Send the answer to ``message``; False when the client does not take it."""
        try:
            body, device = self._answer(client.caller, message)
        except OSError as error:
            return _send(client.sock, {"error": error_body(error)})
        try:
            return _send(client.sock, {"ok": body}, device.fds if device else ())
        finally:
            if device is not None:
                close_device(device)

    def _be_patient(self, client: Client) -> None:
        client.deadline = time.monotonic() + PATIENCE
        self._clients.pop(client, None)
        self._clients[client] = None

    def _drop_silent(self) -> None:
        now = time.monotonic()
        for client in [client for client in self._clients if client.deadline <= now]:
            self._drop(client)

    def _drop(self, client: Client, fault: str = "") -> None:
        del self._clients[client]
        self._selector.unregister(client.sock)
        client.sock.close()
        if fault:
            self._log(f"dropped {client.caller}: {fault}")

    def _end(self) -> None:
        for client in list(self._clients):
            self._drop(client)


def _turn_away(sock: socket.socket, error: OSError) -> None:
    """Tell a client that it is not served, and close. A request left unread would take the answer with it."""
    with sock:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RD)
            while sock.recv(MAX_REQUEST):
                pass
        _send(sock, {"error": error_body(error)})


def _send(sock: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> bool:
    """Send one message and tell whether it went: there is room for several answers, only a hung client has none."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([json.dumps(message, separators=(",", ":")).encode()], ancillary, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def _has_unread(sock: socket.socket) -> bool:
    """Tell whether the other end has an answer that it did not take yet.

    It gets no further one: what lies there may hold descriptors, of which all processes of root together may have
    only so many underway (ETOOMANYREFS of unix(7)).
    """
    return any(fcntl.ioctl(sock, SIOCOUTQ, bytes(4)))


@contextlib.contextmanager
def _end_signals() -> Iterator[socket.socket]:
    """Give a socket that becomes readable when SIGTERM or SIGINT comes."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        for end in (theirs, ours):
            end.setblocking(False)

        def noted(number: int, frame: FrameType | None) -> None:
            """Do nothing: the byte that the wakeup descriptor gets is enough."""

        previous = {number: signal.signal(number, noted) for number in (signal.SIGTERM, signal.SIGINT)}
        signal.set_wakeup_fd(theirs.fileno())
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in previous.items():
                signal.signal(number, handler)
