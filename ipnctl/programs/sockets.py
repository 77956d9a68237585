"""A program's AF_IPN socket as its supervisor keeps it: the library's, but for the data socket.

That is the program's own: a SEQPACKET socket which it has had since socket(2), and which ipnd connects to a member
where it is. The supervisor has no copy of it but for moments, or nobody would notice when the program closes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import ipn
from ipn import abi
from ipn.channel import ControlChannel
from ipn.transport import Deadline

from .messages import SPACE, close_all


class OwnTransport:
    """Stands where a socket of the library's has its data socket: messages are the program's business."""

    defer = False

    def ended(self) -> bool:
        """Return False: the program will see."""
        return False

    def receive_many(self, deadline: Deadline) -> list[bytes]:
        """Refuse: the supervisor receives nothing. BlockingIOError."""
        raise BlockingIOError

    def flush(self) -> bool:
        """Return True: nothing waits here."""
        return True


class ProgramSocket(ipn.Socket):
    """An AF_IPN socket of a program's. ``family``: as the program called it. ``inode``: what tells it from others."""

    def __init__(self, family: int, type: int, proto: int) -> None:
        super().__init__(abi.AF_IPN, type, proto)
        self.called = family
        self.inode = 0
        self._copy = -1
        self._process = 0

    def make(self) -> socket.socket:
        """Return the socket for the program, which the caller must close once that has it."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(self.getblocking())
        self.inode = os.fstat(sock.fileno()).st_ino
        return sock

    @contextlib.contextmanager
    def with_copy(self, fd: int, process: int) -> Iterator[None]:
        """Let the calls of ``process`` get at the program's socket, of which ``fd`` is a copy, for a while."""
        self._copy, self._process = fd, process
        try:
            yield
        finally:
            self._copy = -1

    @property
    def handles_notices(self) -> bool:
        """Whether the program has asked for out-of-band messages."""
        return self._flags["handle_oob"]

    @property
    def must_be_watched(self) -> bool:
        """Whether something depends on it, and nobody else notices when the program closes it."""
        return self._channel is not None and (self._transport is None or all(self._shutdown.values()))

    @property
    def sends(self) -> bool:
        """Whether it may send messages."""
        return self._transport is not None and not self._shutdown["write"]

    # -- what the library does otherwise -------------------------------------------------------------------------

    def _attach(self, path: str, channel: ControlChannel) -> None:
        info, _ = channel.request(
            "connect",
            fds=(self._copy,),
            policy=self.proto,
            **self._node_settings(),
            data="program",
            pid=self._process,
            handle_oob=self._flags["handle_oob"],
            want_oob=self._flags["want_oob"],
        )
        self._joined(path, channel, info)
        self._shutdown = {"read": "r" not in info["rights"], "write": "w" not in info["rights"]}
        self._port = int(info["port"])
        self._transport = OwnTransport()  # type: ignore[assignment]  # all that is asked of it here
        if self._shutdown["read"]:
            self._receive_no_more()

    def shutdown(self, how: int) -> None:
        """End receiving, sending or both, as ``ipn.Socket.shutdown``; what has come is thrown away."""
        super().shutdown(how)
        if self._shutdown["read"] and self._transport is not None:
            self._receive_no_more()

    def _receive_no_more(self) -> None:
        """Throw away what has come, and have the program told that nothing more does, unless notices still may."""
        with socket.socket(fileno=os.dup(self._copy)) as sock:
            with contextlib.suppress(OSError):
                while not self._is_notice_next(sock) and sock.recv(1, socket.MSG_DONTWAIT):
                    pass
            if not self.handles_notices:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)

    def _is_notice_next(self, sock: socket.socket) -> bool:
        """Return whether a notice is to be received next, which must not be lost, nor what is behind it overtake it."""
        flags = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        return self.handles_notices and close_all(sock.recvmsg(1, SPACE, flags)[1])

    def _discard(self, transport: Any) -> None:
        """Nothing: what has come is in the program's socket."""

