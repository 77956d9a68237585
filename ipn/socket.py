"""The blocking socket of AF_IPN: every call of the specification, on top of a control and a data connection.

A socket is *unbound*, then *bound* (may manage), then *connected* (exchanges messages), or connected straight
away. Until it joins, options are kept here; afterwards the daemon is asked. Joining opens a control
connection (``rendezvous``), and ``connect`` receives the data socket over it, on which nothing but messages
travels. Closing closes both: the daemon notices, exactly as the kernel would.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as _socket
import struct
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from . import abi
from .channel import ControlChannel
from .control import Message
from .create import Creation, create_network
from .interfaces import REQUESTS, InterfaceCalls
from .options import NETWORK_OPTIONS, NODE_FLAGS, as_int, as_json, notice_bytes
from .rendezvous import open_network, registered_policies
from .transport import NOW, Buffer, Deadline, PacketTransport, StreamTransport

MSG_OOB: Final = int(_socket.MSG_OOB)
SHUT_RD, SHUT_WR, SHUT_RDWR = _socket.SHUT_RD, _socket.SHUT_WR, _socket.SHUT_RDWR

HEADROOM: Final = 64
"""Bytes that a message received may be longer than the MTU: policies may add tags."""
NOTICE_TIMEOUT: Final = 5.0
"""Seconds to wait for a notice whose marker has come: ipnd sends the notice before the marker."""


class Socket(InterfaceCalls):
    """An AF_IPN socket. See ``ipn.socket``, ``ipn.bind`` and ``ipn.connect``, which make one."""

    def __init__(self, family: int = abi.AF_IPN, type: int = abi.SOCK_RAW, proto: int = abi.IPN_ANY) -> None:
        if family != abi.AF_IPN:
            raise OSError(errno.EAFNOSUPPORT, f"address family {family} is not AF_IPN ({abi.AF_IPN})")
        if type & ~(_socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK) != abi.SOCK_RAW:
            raise OSError(errno.EPROTOTYPE, "an AF_IPN socket is SOCK_RAW, nothing else")
        if proto not in abi.POLICY_NAMES.values() and proto not in registered_policies().values():
            raise OSError(errno.EPROTONOSUPPORT, f"no delivery policy has the number {proto}")
        self.proto = proto
        self._timeout: float | None = 0.0 if type & _socket.SOCK_NONBLOCK else _socket.getdefaulttimeout()
        self._options: dict[int, int] = {}
        self._port = abi.IPN_PORTNO_ANY
        self._description = b""
        self._flags = {"handle_oob": False, "want_oob": False}
        self._shutdown = {"read": False, "write": False}
        self._packet = False
        self._path: str | None = None
        self._bound = False
        self._mtu = abi.DEFAULT_MTU
        self._channel: ControlChannel | None = None
        self._transport: StreamTransport | PacketTransport | None = None
        self._interface: Message = {}
        self._stale_markers = 0
        # The descriptor exists from the start and keeps its number: connect puts the data socket in its place.
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._data: _socket.socket | None = None

    # -- joining ---------------------------------------------------------------------------------------------

    def bind(self, path: str | os.PathLike[str], *, persistent: bool = False) -> None:
        """Create the network at ``path`` with the options set so far, or join the one there for management.

        ``persistent``: a network created now does not end with its last socket. Errors: EPERM without *x* on an
        existing network, EPROTO when its policy is another, EISCONN when already bound or connected,
        ECONNREFUSED when something else is at ``path``, and those of creating a socket file there.
        """
        self._check_open()
        if self._channel is not None:
            raise OSError(errno.EISCONN, f"the socket is already on {self._path}", self._path)
        name = os.fspath(path)
        options = {field: self._options.get(o, default) for o, (field, default, _) in NETWORK_OPTIONS.items()}
        creation = Creation(
            mtu=options["mtu"],
            maxports=options["maxports"],
            pool=options["pool"],
            flags=options["flags"],
            mode=options["mode"],
            persistent=persistent,
        )
        channel, info = create_network(name, self.proto, creation)
        self._joined(name, channel, info)
        self._bound = True

    def connect(self, path: str | os.PathLike[str] | None = None) -> None:
        """Join the network at ``path``, or the one bound, to exchange messages.

        The direction the socket file gives no permission for is shut down. Errors: EACCES when neither is left,
        ECONNREFUSED or ENOENT when no network is there, EPROTO when its policy is another, EADDRNOTAVAIL when no
        port is free or the one asked for is taken, EISCONN when already connected.
        """
        self._check_open()
        if self._transport is not None or self._interface:
            raise OSError(errno.EISCONN, f"the socket is already connected to {self._path}", self._path)
        if self._channel is None:
            if path is None:
                raise OSError(errno.EINVAL, "connect needs a path unless the socket is bound")
            name = os.fspath(path)
            channel = open_network(name)
            try:
                self._attach(name, channel)
            except BaseException:
                channel.close()
                raise
        else:
            if path is not None and os.path.abspath(os.fspath(path)) != os.path.abspath(self._path or ""):
                raise OSError(errno.EISCONN, f"the socket is bound to {self._path}", self._path)
            self._attach(self._path or "", self._channel)

    def _attach(self, path: str, channel: ControlChannel) -> None:
        info, fds = channel.request(
            "connect",
            policy=self.proto,
            **self._node_settings(),
            data="packet" if self._packet else "stream",
            handle_oob=self._flags["handle_oob"],
            want_oob=self._flags["want_oob"],
        )
        if len(fds) != 1:
            for fd in fds:
                os.close(fd)
            raise OSError(errno.EPROTO, f"ipnd sent {len(fds)} descriptors with a connect, not one", path)
        os.dup2(fds[0], self._fd, inheritable=False)
        os.close(fds[0])
        self._data = _socket.socket(fileno=self._fd)
        self._joined(path, channel, info)
        self._shutdown = {"read": "r" not in info["rights"], "write": "w" not in info["rights"]}
        self._port = int(info["port"])
        packet = PacketTransport(self._data, self._mtu + HEADROOM) if self._packet else None
        self._transport = packet or StreamTransport(self._data)

    def _node_settings(self) -> Message:
        """Return what the specification lets a node choose before it joins."""
        return {
            "port": self._port,
            "descr": self._description.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode(),
            "shut_rd": self._shutdown["read"],
            "shut_wr": self._shutdown["write"],
        }

    @property
    def _plain(self) -> StreamTransport | PacketTransport | None:
        """The transport when receiving is nothing but asking it: neither shut down nor with notices."""
        return None if self._shutdown["read"] or self._flags["handle_oob"] else self._transport

    def _joined(self, path: str, channel: ControlChannel, info: Message) -> None:
        self._path, self._channel = path, channel
        self._mtu = int(info["mtu"])
        self.proto = int(info["policy"])

    # -- messages --------------------------------------------------------------------------------------------

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Send one message of 1 to MTU bytes and return its length.

        Errors: ENOTCONN, EPIPE when sending is shut down, ECONNRESET when the network is gone, EOVERFLOW beyond
        the MTU, EINVAL for an empty message, EAGAIN or ``TimeoutError`` when it would have to wait longer.
        """
        size = len(data) if isinstance(data, (bytes, bytearray)) else memoryview(data).nbytes
        transport = self._sender(size)
        try:
            transport.send(data if isinstance(data, (bytes, bytearray)) else bytes(data), self._deadline(flags))
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone() from None
        return size

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """Send one message, as ``send`` does: a message goes whole."""
        self.send(data, flags)

    def sendto(self, data: Buffer, *args: Any) -> int:
        """Send one message; the address is ignored, as the specification does: the policy decides."""
        return self.send(data, args[0] if len(args) == 2 else 0)

    def sendmsg(self, buffers: Iterable[Buffer], ancdata: Iterable[Any] = (), flags: int = 0, *_: Any) -> int:
        """Send the concatenation of ``buffers`` as one message. Ancillary data: EOPNOTSUPP."""
        if any(True for _ in ancdata):
            raise OSError(errno.EOPNOTSUPP, "messages on an IPN network carry no ancillary data", self._path)
        return self.send(b"".join(bytes(b) for b in buffers), flags)

    def send_many(self, messages: Iterable[Buffer]) -> int:
        """Send several messages with few system calls. Errors as ``send``, checked first.

        Return how many went: all of them, or, on a socket that does not wait, those that fitted.
        """
        batch = [m if isinstance(m, (bytes, bytearray)) else bytes(m) for m in messages]
        if not batch:
            return 0
        sizes = [len(m) for m in batch]
        self._sender(min(sizes))
        transport = self._sender(max(sizes))
        try:
            return transport.send_many(batch, self._deadline(0))
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone() from None

    def recv(self, bufsize: int = abi.MAX_MTU, flags: int = 0) -> bytes:
        """Return the next message, cut to ``bufsize`` bytes; ``b""`` once the network is gone.

        Errors: ENOTCONN, EPIPE on a node that may not receive, EAGAIN or ``TimeoutError`` when none came.
        """
        plain = self._plain
        if plain is not None and not flags:
            try:
                message = plain.receive(None if self._timeout is None else self._deadline(0)) or b""
            except ConnectionResetError:
                return b""
        else:
            message, _ = self._receive(flags)
        return message if len(message) <= bufsize else message[:bufsize]

    def recvfrom(self, bufsize: int = abi.MAX_MTU, flags: int = 0) -> tuple[bytes, str]:
        """Return the next message and the network's address."""
        return self.recv(bufsize, flags), self.getsockname()

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Receive a message into ``buffer``, cut to its size or to ``nbytes``; return how many bytes it got."""
        view = memoryview(buffer).cast("B")
        message = self.recv(nbytes or len(view), flags)
        view[: len(message)] = message
        return len(message)

    def recvmsg(
        self, bufsize: int = abi.MAX_MTU, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[Any], int, str]:
        """Return (message, [], flags, address). Flags: MSG_OOB for a notice (``NumNodes.unpack`` reads it),
        MSG_TRUNC when ``bufsize`` cut the message.
        """
        message, out = self._receive(flags)
        if len(message) > bufsize:
            message, out = message[:bufsize], out | _socket.MSG_TRUNC
        return message, [], out, self._path or ""

    def recv_many(self) -> list[bytes]:
        """Wait for messages and return those that one read brings (up to 256 KiB); ``[]`` once the network is gone.

        On a node that asked for notices these come first, as ``recv`` gives them.
        """
        if not self._flags["handle_oob"]:
            try:
                return self._receiver().receive_many(self._deadline(0))
            except ConnectionResetError:
                return []
        messages = []
        flags = 0
        with contextlib.suppress(BlockingIOError):
            while message := self._receive(flags)[0]:
                messages.append(message)
                flags = _socket.MSG_DONTWAIT
        if not messages and self._deadline(0) == NOW and flags == 0:
            raise BlockingIOError(errno.EAGAIN, "no message is there", self._path)
        return messages

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the messages until the network is gone."""
        while message := self.recv():
            yield message

    def _sender(self, size: int) -> StreamTransport | PacketTransport:
        if self._transport is None:
            raise self._not_connected()
        if self._shutdown["write"]:
            text = f"sending on {self._path} is shut down (or its mode gives you no w)"
            raise BrokenPipeError(errno.EPIPE, text, self._path)
        if size > self._mtu:
            text = f"a message of {size} bytes is longer than the MTU of {self._mtu}"
            raise OSError(errno.EOVERFLOW, text, self._path)
        if size == 0:
            raise OSError(errno.EINVAL, "a message has at least one byte", self._path)
        return self._transport

    def _receiver(self) -> StreamTransport | PacketTransport:
        if self._transport is None:
            raise self._not_connected()
        if self._shutdown["read"] and not self._flags["handle_oob"] and not self._transport.ended():
            text = f"receiving on {self._path} is shut down (or its mode gives you no r)"
            raise BrokenPipeError(errno.EPIPE, text, self._path)
        return self._transport

    def _receive(self, flags: int) -> tuple[bytes, int]:
        if flags & ~(_socket.MSG_DONTWAIT | _socket.MSG_TRUNC | _socket.MSG_WAITALL):
            raise OSError(errno.EOPNOTSUPP, f"receive flags {flags:#x} are not supported", self._path)
        transport, deadline = self._receiver(), self._deadline(flags)
        try:
            if self._flags["handle_oob"]:
                return self._receive_notice_first(transport, deadline)
            return transport.receive(deadline) or b"", 0
        except ConnectionResetError:
            return b"", 0

    def _receive_notice_first(
        self, transport: StreamTransport | PacketTransport, deadline: Deadline
    ) -> tuple[bytes, int]:
        """Give a notice before any message. Each notice (on the control connection) is followed by an empty
        frame, its marker, on the data socket, which makes that readable; a marker whose notice was given
        early is stale and is taken away before it can wake anybody.
        """
        channel = self._channel
        assert channel is not None
        while True:
            if (notice := channel.notice_nowait()) is not None:
                self._stale_markers += 1
                answer = notice_bytes(notice), MSG_OOB
                break
            message = transport.receive(deadline)
            if message is None:
                return b"", 0
            if message:
                answer = message, 0
                break
            if self._stale_markers:
                self._stale_markers -= 1
                continue
            with contextlib.suppress(EOFError):
                if (notice := channel.wait_notice(NOTICE_TIMEOUT)) is not None:
                    answer = notice_bytes(notice), MSG_OOB
                    break
        if self._stale_markers:
            self._stale_markers -= transport.skip_markers(self._stale_markers)
        return answer

    # -- options ---------------------------------------------------------------------------------------------

    def setsockopt(self, level: int, option: int, value: int | bytes | str) -> None:
        """Set an option. Level 0: AF_IPN's own (``IPN_SO_…``); level = the policy's number: the policy's.

        Errors: EISCONN for a network option on a socket that has joined, EINVAL for a value out of range,
        ENOPROTOOPT for an option nobody knows, EPROTONOSUPPORT for another level; see docs/af_ipn.md.
        """
        self._check_open()
        if level != 0:
            self._policy_level(level, "setsockopt", option=option, value=as_json(value))
            return
        if option == abi.IPN_SO_DESCR:
            self._set_description(value)
            return
        number = as_int(value)
        if option in NETWORK_OPTIONS:
            if self._channel is not None:
                raise OSError(errno.EISCONN, "network options are set before bind or connect", self._path)
            field, _, largest = NETWORK_OPTIONS[option]
            lowest = 0 if option in (abi.IPN_SO_FLAGS, abi.IPN_SO_MODE) else 1
            if not lowest <= number <= largest:
                raise OSError(errno.EINVAL, f"{field} must be from {lowest} to {largest}, not {number}")
            self._options[option] = number
        elif option == abi.IPN_SO_PORT:
            if self._transport is not None:
                raise OSError(errno.EISCONN, "the port is chosen before connect", self._path)
            if number < abi.IPN_PORTNO_ANY:
                raise OSError(errno.EINVAL, f"a port is 0 or more, or IPN_PORTNO_ANY, not {number}")
            self._port = number
        elif option == abi.IPN_SO_CHANGE_NUMNODES:
            if not self._bound or self._channel is None:
                raise OSError(errno.ENOTCONN, "only a bound socket may change the number of ports")
            self._channel.request("resize", maxports=number)
        elif option in NODE_FLAGS:
            self._set_node_flag(option, bool(number))
        else:
            raise OSError(errno.ENOPROTOOPT, f"AF_IPN has no option {option:#x}")

    def _set_description(self, value: int | bytes | str) -> None:
        if isinstance(value, int):
            raise OSError(errno.EINVAL, "a description is text, not a number")
        text = value.encode() if isinstance(value, str) else bytes(value)
        if len(text) > abi.IPN_DESCRLEN:
            raise OSError(errno.EINVAL, f"a description has at most {abi.IPN_DESCRLEN} bytes, not {len(text)}")
        self._description = text.split(b"\0")[0]
        if self._transport is not None and self._channel is not None:
            self._channel.request("describe", descr=self._description.decode("utf-8", "replace"))

    def _set_node_flag(self, option: int, on: bool) -> None:
        flags = {**self._flags, NODE_FLAGS[option]: on}
        if option == abi.IPN_SO_WANT_OOB_NUMNODES and on and not flags["handle_oob"]:
            raise OSError(errno.EINVAL, "IPN_SO_WANT_OOB_NUMNODES needs IPN_SO_HANDLE_OOB first")
        if not flags["handle_oob"]:
            flags["want_oob"] = False
        if self._transport is not None and self._channel is not None:
            self._channel.request("oob", handle_oob=flags["handle_oob"], want_oob=flags["want_oob"])
        self._flags = flags

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> int | bytes:
        """Return an option: an int, or with ``buflen`` (and for IPN_SO_DESCR always) bytes.

        Network options: the live network's once joined, else what was set, else the default.
        """
        self._check_open()
        if level != 0:
            value = self._policy_level(level, "getsockopt", option=option, length=buflen)
            return bytes.fromhex(value["hex"]) if isinstance(value, dict) else int(value)
        if option == abi.IPN_SO_DESCR:
            if buflen and buflen < abi.IPN_DESCRLEN:
                raise OSError(errno.EINVAL, f"a description needs a buffer of {abi.IPN_DESCRLEN} bytes")
            return self._description.ljust(abi.IPN_DESCRLEN, b"\0") if buflen else self._description
        number = self._get_number(option)
        if not buflen:
            return number
        if buflen < 4:
            raise OSError(errno.EOVERFLOW, "an option needs a buffer of 4 bytes")
        return struct.pack("@i", number)

    def _get_number(self, option: int) -> int:
        if option in NETWORK_OPTIONS:
            field, default, _ = NETWORK_OPTIONS[option]
            if self._channel is None:
                return self._options.get(option, default)
            if option == abi.IPN_SO_MODE:
                return -1
            return int(self._channel.request("options")[0][field])
        if option == abi.IPN_SO_PORT:
            return self._port
        if option in NODE_FLAGS:
            return int(self._flags[NODE_FLAGS[option]])
        raise OSError(errno.ENOPROTOOPT, f"AF_IPN has no option {option:#x} to read")

    def ioctl(self, request: int, argument: int | bytes = 0) -> int | bytes:
        """Carry out a request about interfaces, with a ``struct ifreq`` (see ``ifreq``), or one of the policy's.

        IPN_CONN_NETDEV, IPN_JOIN_NETDEV, IPN_SETPERSIST (an int), IPN_SETPERSIST_NETDEV, IPN_CLRPERSIST_NETDEV,
        SIOCSIFHWADDR; see docs/af_ipn.md. They return the ``struct ifreq`` with the interface's name, or 0.
        Errors: ENOTCONN before bind or connect, EOPNOTSUPP for a request that the policy does not know.
        """
        self._check_open()
        if request in REQUESTS:
            return REQUESTS[request](self, argument)
        if self._channel is None:
            raise self._not_connected()
        value, _ = self._channel.request("ioctl", request=request, value=as_json(argument))
        return bytes.fromhex(value["hex"]) if isinstance(value, dict) else int(value)

    def _policy_level(self, level: int, op: str, **fields: Any) -> Any:
        if level != self.proto:
            raise OSError(errno.EPROTONOSUPPORT, f"level {level} is neither 0 nor the policy's ({self.proto})")
        if self._channel is None:
            raise OSError(errno.EOPNOTSUPP, "a policy's options exist once the socket has joined a network")
        return self._channel.request(op, **fields)[0]

    # -- the rest of the socket interface --------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        """End receiving (SHUT_RD: what was queued is discarded), sending (SHUT_WR) or both, for good.

        Allowed before ``connect``: the node then joins without that direction.
        """
        self._check_open()
        if how not in (SHUT_RD, SHUT_WR, SHUT_RDWR):
            raise OSError(errno.EINVAL, f"shutdown takes SHUT_RD, SHUT_WR or SHUT_RDWR, not {how}")
        read, write = how in (SHUT_RD, SHUT_RDWR), how in (SHUT_WR, SHUT_RDWR)
        if self._transport is not None and self._channel is not None:
            self._channel.request("shutdown", read=read, write=write)
        self._shutdown["read"] |= read
        self._shutdown["write"] |= write
        if read and self._transport is not None:
            self._discard(self._transport)

    def _discard(self, transport: StreamTransport | PacketTransport) -> None:
        """Throw away what was delivered before receiving ended; markers stay when notices are wanted."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while messages := transport.receive_many(NOW):
                self._stale_markers -= sum(not m for m in messages)
        if self._flags["handle_oob"] and self._stale_markers < 0:
            # The notices of markers just discarded are still to come: recv finds them without a marker.
            self._stale_markers = 0

    def set_packet(self, packet: bool) -> None:
        """Choose a SEQPACKET data socket instead of the default stream, before ``connect`` (EISCONN after)."""
        if self._transport is not None:
            raise OSError(errno.EISCONN, "the kind of data socket is chosen before connect", self._path)
        self._packet = packet

    def getsockname(self) -> str:
        """Return the network's path; ENOTCONN before bind or connect."""
        if self._path is None:
            raise self._not_connected()
        return self._path

    def getpeername(self) -> str:
        """Return the network's path; ENOTCONN before bind or connect."""
        return self.getsockname()

    def listen(self, backlog: int = 0) -> None:
        """Refuse: there are no servers on a network. EOPNOTSUPP."""
        raise OSError(errno.EOPNOTSUPP, "a network has no servers: members connect, nobody listens")

    def accept(self) -> tuple[Socket, str]:
        """Refuse: there are no servers on a network. EOPNOTSUPP."""
        raise OSError(errno.EOPNOTSUPP, "a network has no servers: members connect, nobody accepts")

    def settimeout(self, timeout: float | None) -> None:
        """Set how long calls wait, in seconds: None for ever, 0 not at all."""
        if timeout is not None and timeout < 0:
            raise ValueError("a timeout is not negative")
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        """Return how long calls wait, in seconds."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Make calls wait for ever, or not at all."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Return whether calls may wait."""
        return self._timeout != 0.0

    def fileno(self) -> int:
        """Return the descriptor: readable exactly when ``recv`` would not block; -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Leave. The node goes when every copy of the descriptors (fork, dup) is closed."""
        fd, self._fd = self._fd, -1
        if self._data is not None:
            self._data.close()
        elif fd >= 0:
            os.close(fd)
        if self._channel is not None:
            self._channel.close()
        self._data = self._transport = None

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._fd < 0

    @property
    def path(self) -> str | None:
        """The network's path as given to bind or connect, or None."""
        return self._path

    @property
    def port(self) -> int:
        """The node's port number once connected, else the one asked for (-1: any)."""
        return self._port

    @property
    def mtu(self) -> int:
        """The longest message in bytes."""
        return self._mtu

    @property
    def rights(self) -> str:
        """What the node may do with messages: ``rw``, ``r``, ``w`` or nothing."""
        if self._transport is None:
            return ""
        return "r" * (not self._shutdown["read"]) + "w" * (not self._shutdown["write"])

    def defer_sending(self) -> None:
        """Let what does not fit wait in this process until ``flush_sending``, for callers that cannot block."""
        if self._transport is not None:
            self._transport.defer = True

    def flush_sending(self) -> bool:
        """Send what waits, as far as possible without waiting; return whether all of it is out."""
        try:
            return self._transport is None or self._transport.flush()
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone() from None

    def show(self) -> Message:
        """Return what the daemon knows of the network and its ports, as ``ipnctl net show --json`` prints it."""
        if self._channel is None:
            raise self._not_connected()
        return dict(self._channel.request("show")[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self._transport else "bound" if self._bound else "unbound"
        return f"<ipn.Socket {state} path={self._path!r} port={self._port} fd={self._fd}>"

    def _deadline(self, flags: int) -> Deadline:
        if flags & _socket.MSG_DONTWAIT or self._timeout == 0.0:
            return NOW
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _check_open(self) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the socket is closed")

    def _not_connected(self) -> OSError:
        if self._fd < 0:
            return OSError(errno.EBADF, "the socket is closed")
        if self._interface:
            text = f"messages of this node go through its interface {self._interface['name']}, not through the socket"
            return OSError(errno.EOPNOTSUPP, text, self._path)
        return OSError(errno.ENOTCONN, "the socket is not on a network: connect it first", self._path)

    def _gone(self) -> OSError:
        return ConnectionResetError(errno.ECONNRESET, f"the network {self._path} is gone", self._path)
