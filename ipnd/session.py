"""A session: the state machine behind one AF_IPN socket, or behind one command of ipnctl. Synchronous.

unbound → bound (``create``, ``bind``) → connected (``connect``), or unbound → connected. ``OPS`` is the table of what
can be asked in which state; a refusal is an ``OSError`` whose errno and text go back to the client.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ipn import __version__
from ipn.abi import (
    DEFAULT_FLAGS,
    DEFAULT_MSGPOOLSIZE,
    DEFAULT_MTU,
    DEFAULT_NUMNODES,
    IPN_DESCRLEN,
    IPN_FLAG_LOSSLESS,
    IPN_MAX_PROTO,
    MAX_MSGPOOLSIZE,
    MAX_MTU,
    MAX_NUMNODES,
)
from ipn.channel import close_all
from ipn.control import VERSION, Message

from .access import Peer
from .fields import take_bool, take_int, take_text, take_value
from .given import meet, take_socket
from .identity import MAX_PID, for_descendant
from .netdev.interface import Lifetime
from .network import Network, Options
from .ops import fixtures, impair, interfaces, managing
from .ops.base import JOINED, NEW, NOT_CONNECTED, PATH_MAX, Op, State
from .plane.links import SEND_BUFFER, SocketLink
from .plane.packet import ProgramLink
from .plane.port import Port

if TYPE_CHECKING:
    from .daemon import Daemon

MAX_OPTION: Final = 16 * 1024
"""Longest value of a policy's option, in bytes."""


class Session:
    """One client's session. ``network`` is the one on whose path it came, None on the control socket.

    ``notify`` sends a notification without waiting; ``finish`` ends the connection once it is idle.
    """

    def __init__(
        self,
        daemon: Daemon,
        peer: Peer,
        network: Network | None,
        notify: Callable[[Message], None],
        finish: Callable[[], None],
    ) -> None:
        self.peer = peer
        self.network = network
        self.state = State.UNBOUND
        self.port: Port | None = None
        self.notify = notify
        self.fds: list[int] = []
        self.reply_fds: list[int] = []
        self.daemon = daemon
        self._finish = finish
        self._greeted = False
        self.stop_watching: Callable[[], None] = lambda: None
        self.watched: Network | None = None
        if network is not None:
            network.sessions.add(self)

    # -- requests ----------------------------------------------------------------------------------------------------

    def handle(self, message: Message) -> Any:
        """Carry out one request and return what its reply holds; ``OSError`` is the refusal.

        Descriptors that came with it are in ``fds``; those that must go with the reply are put in ``reply_fds``.
        """
        op = message.get("op")
        if not isinstance(op, str) or op not in OPS:
            raise OSError(errno.EOPNOTSUPP, f"unknown op {str(op)[:40]!r}")
        states, needs_network, function = OPS[op]
        if not self._greeted and op != "hello":
            raise OSError(errno.EPROTO, f"say hello first, not {op!r}")
        if self.state not in states:
            wrong = errno.EISCONN if self.state is not State.UNBOUND else errno.ENOTCONN
            raise OSError(wrong, f"{op} is not possible on a socket that is {self.state.value}")
        if needs_network and self.network is None:
            raise OSError(errno.ENOTCONN, f"{op} needs a network: connect to its path")
        return function(self, message)

    def _hello(self, message: Message) -> Message:
        version = take_int(message, "version", 1, 1 << 30)
        if version != VERSION:
            raise OSError(errno.EPROTO, f"this ipnd speaks version {VERSION} of the protocol, not {version}")
        self._greeted = True
        return {"version": VERSION, "server": f"ipnd {__version__}", "pid": os.getpid()}

    def _create(self, message: Message) -> Message:
        if self.network is not None:
            raise OSError(errno.EISCONN, f"this connection is on {self.network.path}; create on the control socket")
        listener_fd, name_fd = self.take_fds(2)
        try:
            listener = socket.socket(fileno=listener_fd)
        except OSError:
            close_all([listener_fd, name_fd])
            raise OSError(errno.EINVAL, "create: the first descriptor must be a bound unix stream socket") from None
        try:
            self._check_listener(listener, name_fd)
            network = self.daemon.add_network(
                take_text(message, "path", PATH_MAX),
                listener,
                name_fd,
                take_int(message, "policy", 0, IPN_MAX_PROTO),
                Options(
                    mtu=take_int(message, "mtu", 1, MAX_MTU, DEFAULT_MTU),
                    maxports=take_int(message, "maxports", 1, MAX_NUMNODES, DEFAULT_NUMNODES),
                    pool=take_int(message, "pool", 1, MAX_MSGPOOLSIZE, DEFAULT_MSGPOOLSIZE),
                    flags=take_int(message, "flags", 0, IPN_FLAG_LOSSLESS, DEFAULT_FLAGS),
                ),
                persistent=take_bool(message, "persistent"),
            )
        except BaseException:
            listener.close()
            os.close(name_fd)
            raise
        self._bound_to(network)
        return self.options(message)

    def take_fds(self, count: int) -> list[int]:
        """Take over the descriptors that came with the request; EINVAL unless they are ``count``."""
        if len(self.fds) != count:
            raise OSError(errno.EINVAL, f"{count} descriptors must come with this op, not {len(self.fds)}")
        taken, self.fds = self.fds, []
        return taken

    def _check_listener(self, listener: socket.socket, name_fd: int) -> None:
        """EINVAL or EPERM unless the descriptors are a bound unix stream socket and a socket file of the peer's."""
        if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM or not listener.getsockname():
            raise OSError(errno.EINVAL, "create: the first descriptor must be a bound unix stream socket")
        info = os.fstat(name_fd)
        if not stat.S_ISSOCK(info.st_mode):
            raise OSError(errno.EINVAL, "create: the second descriptor must name the socket file (O_PATH)")
        if self.peer.uid not in (0, info.st_uid):
            raise OSError(errno.EPERM, f"create: the socket file belongs to user {info.st_uid}, not to you")

    def _bind(self, message: Message) -> Message:
        network = self.require_network()
        network.matches(take_int(message, "policy", 0, IPN_MAX_PROTO, 0))
        network.require_manage(self.peer)
        self._bound_to(network)
        return self.options(message)

    def _bound_to(self, network: Network) -> None:
        self.network = network
        network.sessions.add(self)
        network.take_socket()
        self.state = State.BOUND

    def _connect(self, message: Message) -> Message:
        network = self.require_network()
        network.matches(take_int(message, "policy", 0, IPN_MAX_PROTO, 0))
        kind = take_text(message, "data", 16, "stream")
        if kind not in DATA_KINDS:
            raise OSError(errno.EINVAL, f"connect: 'data' must be one of {', '.join(DATA_KINDS)}, not {kind!r}")
        description = take_text(message, "descr", IPN_DESCRLEN, "")
        handle_oob, want_oob = take_bool(message, "handle_oob"), take_bool(message, "want_oob")
        peer = for_descendant(self.peer, take_int(message, "pid", 0, MAX_PID, 0))
        with contextlib.ExitStack() as unless_joined:
            ours, theirs = self._data_sockets(kind, unless_joined)
            port = network.join(
                kind,
                peer,
                ours,
                wanted=take_int(message, "port", -1, MAX_NUMNODES, -1),
                receive=not take_bool(message, "shut_rd"),
                send=not take_bool(message, "shut_wr"),
                description=description,
            )
            unless_joined.pop_all()
        assert isinstance(port.link, SocketLink)
        with contextlib.suppress(OSError):
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if not port.writer:
            port.link.stop_reading()  # the kernel tells a member that sends nevertheless: EPIPE
        port.session = self
        port.handle_oob, port.want_oob = handle_oob, want_oob
        self.port = port
        if self.state is State.UNBOUND:
            network.take_socket()
        self.state = State.CONNECTED
        if isinstance(port.link, ProgramLink):
            self.notify = port.link.tell
            theirs.close()
        else:
            self.reply_fds.append(theirs.detach())
        network.joined(port)
        return {**self.options(message), "port": port.number, "rights": port.rights}

    def _data_sockets(
        self, kind: str, owner: contextlib.ExitStack
    ) -> tuple[Callable[[], socket.socket], socket.socket]:
        """Return what gives our end of a data socket, and the client's: a new one, or the one that it brings along.

        They are ``owner``'s.
        """
        if kind == "program":
            (fd,) = self.take_fds(1)
            given = owner.enter_context(take_socket(fd))
            return (lambda: meet(given)), given
        ours, theirs = map(owner.enter_context, socket.socketpair(socket.AF_UNIX, DATA_KINDS[kind]))
        return (lambda: ours), theirs

    def options(self, message: Message) -> Message:
        """Return the network's name and options."""
        network = self.require_network()
        options = network.options
        return {
            "path": network.path,
            "policy": network.policy.number,
            "mtu": options.mtu,
            "maxports": options.maxports,
            "pool": options.pool,
            "flags": options.flags,
        }

    def _shutdown(self, message: Message) -> None:
        network, port = self.require_network(), self.own_port()
        if take_bool(message, "read"):
            port.reader = False
            assert port.link is not None
            port.link.discard()
            if port.outlet is not None:
                port.outlet.discard()
            port.link.update_interest()
        if take_bool(message, "write") and port.writer:
            port.writer = False
            assert port.link is not None
            port.link.stop_reading()
        network.members_changed()

    def _describe(self, message: Message) -> None:
        self.own_port().description = take_text(message, "descr", IPN_DESCRLEN)
        self.require_network().runner.invalidate()

    def _oob(self, message: Message) -> None:
        port = self.own_port()
        port.handle_oob, port.want_oob = take_bool(message, "handle_oob"), take_bool(message, "want_oob")

    def own_port(self) -> Port:
        """Return the session's member; ENOTCONN when it has left."""
        if self.port is None or self.port.link is None:
            raise OSError(errno.ENOTCONN, "the member has left the network")
        return self.port

    def require_network(self) -> Network:
        """Return the session's network; ECONNRESET when it is gone."""
        if self.network is None or self.network.ended:
            raise OSError(errno.ECONNRESET, "the network is gone")
        return self.network

    def _setsockopt(self, message: Message) -> None:
        option = take_int(message, "option", -(1 << 31), (1 << 31) - 1)
        self.require_network().runner.hook("setsockopt", self._port_number(), option, take_value(message, "value"))

    def _getsockopt(self, message: Message) -> Any:
        option = take_int(message, "option", -(1 << 31), (1 << 31) - 1)
        length = take_int(message, "length", 0, MAX_OPTION, 0)
        return _as_json(self.require_network().runner.hook("getsockopt", self._port_number(), option, length))

    def _ioctl(self, message: Message) -> Any:
        request = take_int(message, "request", 0, (1 << 32) - 1)
        argument = take_value(message, "value")
        return _as_json(self.require_network().runner.hook("ioctl", self._port_number(), request, argument))

    def _port_number(self) -> int:
        return self.port.number if self.port is not None else -1

    def managed(self, message: Message) -> Network:
        """Return the network that a management op is about. EPERM unless the socket is bound to it or has *x* on it."""
        network = self.target(message)
        if self.state is not State.BOUND:
            network.require_manage(self.peer)
        return network

    def target(self, message: Message) -> Network:
        """Return the network a management op is about: the session's own, or the one at the path it names."""
        if self.network is not None:
            return self.require_network()
        path = take_text(message, "path", PATH_MAX)
        for network in self.daemon.networks.values():
            if path in (network.path, network.created_as) and network.can_be_reached_by(self.peer):
                return network
        raise FileNotFoundError(errno.ENOENT, f"this ipnd has no network at {path}")

    # -- the end -----------------------------------------------------------------------------------------------------

    def port_left(self) -> None:
        """The data socket is closed, by the member or with its network. A socket of a program's is all there is."""
        if self.port is not None and self.port.kind == "program":
            self._finish()
        self.port = None

    def network_ended(self) -> None:
        """The network is gone: the connection ends once the current request is answered."""
        self._finish()

    def close(self) -> None:
        """The client's connection is closed: its member leaves once what it sent is dealt with."""
        self.stop_watching()
        network = self.network
        if self.watched is not None:
            self.watched.sessions.discard(self)
        if network is None:
            return
        network.sessions.discard(self)
        port = self.port
        if port is not None and port.interface is not None and port.interface.lifetime is not Lifetime.SOCKET:
            port.session = None
            network.anchor(port, port.interface.lifetime is Lifetime.PERSISTENT)
        elif port is not None and port.link is not None:
            port.link.drain()
        if self.state is not State.UNBOUND and not network.ended:
            network.release_socket()


def _as_json(value: object) -> Any:
    """Return an option's value for the wire: a number, or bytes in hexadecimal."""
    return {"hex": bytes(value).hex()} if isinstance(value, (bytes, bytearray)) else value


DATA_KINDS: Final = {
    "stream": socket.SOCK_STREAM,
    "packet": socket.SOCK_SEQPACKET,
    "hops": socket.SOCK_STREAM,
    "program": socket.SOCK_SEQPACKET,
}
"""Kind of data socket → its type."""

OPS: Final[dict[str, Op]] = {
    "hello": Op(NEW, False, Session._hello),
    "create": Op(NEW, False, Session._create),
    "bind": Op(NEW, True, Session._bind),
    "connect": Op(NOT_CONNECTED, True, Session._connect),
    "options": Op(JOINED, True, Session.options),
    "shutdown": Op(frozenset({State.CONNECTED}), True, Session._shutdown),
    "describe": Op(frozenset({State.CONNECTED}), True, Session._describe),
    "oob": Op(frozenset({State.CONNECTED}), True, Session._oob),
    "setsockopt": Op(JOINED, True, Session._setsockopt),
    "getsockopt": Op(JOINED, True, Session._getsockopt),
    "ioctl": Op(JOINED, True, Session._ioctl),
    **fixtures.OPS,
    **impair.OPS,
    **interfaces.OPS,
    **managing.OPS,
}
