"""The trio side of a control connection: bytes and descriptors in, replies and notifications out.

Everything is decided by the ``Session``; here is only what can wait. A client that does not read its replies, or
breaks the protocol, loses its connection, and nobody else notices.
"""

from __future__ import annotations

import array
import logging
import socket
from typing import Final

import trio

from ipn.channel import close_all
from ipn.control import MAX_FDS, MAX_REQUEST, ControlDecoder, ControlError, Message, encode_message, error_body
from ipn.options import OOB_EVENTS

from .access import Peer
from .errors import PeerFault
from .netdev.closing import all_closed
from .network import Network
from .session import Session

log = logging.getLogger("ipnd.control")

HELLO_SECONDS: Final = 10.0
"""A client has so long for its first request."""
REPLY_SECONDS: Final = 10.0
"""A client has so long to take a reply that does not fit its socket's buffer."""
LAST_NOTICES_SECONDS: Final = 1.0
"""… and so long for the notifications that wait when its network ends."""
MAX_NOTICES: Final = 256
"""Notifications waiting for a client; more are dropped, as a lossy network drops messages."""
READ_SIZE: Final = 16 * 1024


class Connection:
    """One control connection. Takes ownership of ``sock``; ``run`` serves it to its end."""

    def __init__(self, daemon: object, sock: socket.socket, peer: Peer, network: Network | None) -> None:
        self.peer = peer
        self.dropped_notices = 0
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._decoder = ControlDecoder(MAX_REQUEST)
        self._session = Session(daemon, peer, network, self.notify, self.finish)  # type: ignore[arg-type]
        self._reading = trio.CancelScope()
        self._finishing = False
        self._nursery: trio.Nursery | None = None
        self._notices: trio.MemorySendChannel[Message] | None = None
        self._sending = trio.Lock()

    async def run(self) -> None:
        """Serve the client until it closes, breaks the protocol, or its network ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._serve()
                self._nursery = None  # from here on nothing new is said
                if self._notices is not None:
                    self._notices.close()
                nursery.cancel_scope.deadline = trio.current_time() + (LAST_NOTICES_SECONDS if self._finishing else 0)
        except* (PeerFault, ControlError) as faults:
            log.warning("closing the connection of %s: %s", self.peer, faults.exceptions[0])
        except* (OSError, trio.ClosedResourceError) as faults:
            log.debug("connection of %s: %s", self.peer, faults.exceptions[0])
        finally:
            self._session.close()
            close_all(self._session.fds)
            close_all(self._session.reply_fds)
            self._sock.close()

    def notify(self, notice: Message) -> None:
        """Send a notification as soon as the client takes it; dropped when too many wait already."""
        if self._notices is None:
            if self._nursery is None:
                return
            self._notices, receive = trio.open_memory_channel[Message](MAX_NOTICES)
            self._nursery.start_soon(self._send_notices, receive)
        try:
            self._notices.send_nowait(notice)
        except trio.ClosedResourceError:
            return
        except trio.WouldBlock:
            self.dropped_notices += 1

    def finish(self) -> None:
        """End the connection once the request at hand is answered."""
        self._finishing = True
        self._reading.cancel()

    async def _serve(self) -> None:
        patience = HELLO_SECONDS
        while not self._finishing:
            data = b""
            with trio.move_on_after(patience) as self._reading:
                data = await self._read()
            if self._reading.cancelled_caught and not self._finishing:
                raise PeerFault("it said nothing")
            if not data:
                break
            patience = float("inf")
            for message in self._decoder.feed(data):
                await self._answer(message)

    async def _read(self) -> bytes:
        space = socket.CMSG_SPACE(array.array("i").itemsize * MAX_FDS)
        data, ancillary, flags, _ = await self._sock.recvmsg(READ_SIZE, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._session.fds += fds
        if flags & socket.MSG_CTRUNC or len(self._session.fds) > MAX_FDS:
            raise PeerFault(f"it sent more than {MAX_FDS} descriptors with a message")
        return bytes(data)

    async def _answer(self, message: Message) -> None:
        session = self._session
        reply: Message = {"id": message.get("id")}
        try:
            reply["ok"] = session.handle(message)
        except OSError as refusal:
            reply["error"] = error_body(refusal)
            close_all(session.reply_fds)
        finally:
            close_all(session.fds)
        await all_closed()
        fds = session.reply_fds
        try:
            with trio.move_on_after(REPLY_SECONDS) as taking:
                await self._send(reply, fds)
        finally:
            close_all(fds)
        if taking.cancelled_caught:
            raise PeerFault(f"it did not take a reply within {REPLY_SECONDS:.0f} s")

    async def _send(self, message: Message, fds: list[int] | None = None) -> None:
        data = encode_message(message)
        async with self._sending:
            if fds:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                sent = await self._sock.sendmsg([data], rights)
            else:
                sent = 0
            await self._send_all(data[sent:])

    async def _send_all(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            sent += await self._sock.send(data[sent:])

    async def _send_notices(self, notices: trio.MemoryReceiveChannel[Message]) -> None:
        async for notice in notices:
            async with self._sending:
                # The marker goes first: who has the notice can be sure that its marker is there to be taken.
                port = self._session.port
                if port is not None and port.handle_oob and port.link is not None and notice.get("event") in OOB_EVENTS:
                    port.link.send_marker()
                await self._send_all(encode_message(notice))


