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
from enum import Enum
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
from .netdev.attach import DESCRIPTORS, take_device
from .netdev.interface import Lifetime
from .netdev.tap import TapLink
from .network import Network, Options
from .plane.links import SEND_BUFFER
from .plane.port import Port
from .policies.registry import policies, policy_class

if TYPE_CHECKING:
    from .daemon import Daemon

PATH_MAX: Final = 4096
"""Longest path accepted, in bytes (limits.h)."""
IFNAMSIZ: Final = 16
"""Longest name of an interface, in bytes, with the NUL behind it (linux/if.h)."""
MAX_OPTION: Final = 16 * 1024
"""Longest value of a policy's option, in bytes."""


class State(Enum):
    """Where a session stands."""

    UNBOUND = "unbound"
    BOUND = "bound"
    CONNECTED = "connected"


ANY = frozenset(State)
NEW = frozenset({State.UNBOUND})
JOINED = frozenset({State.BOUND, State.CONNECTED})


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
        self._daemon = daemon
        self._finish = finish
        self._greeted = False
        self._stop_watching: Callable[[], None] = lambda: None
        self._watched: Network | None = None
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
        listener_fd, name_fd = self._take_fds(2)
        try:
            listener = socket.socket(fileno=listener_fd)
        except OSError:
            close_all([listener_fd, name_fd])
            raise OSError(errno.EINVAL, "create: the first descriptor must be a bound unix stream socket") from None
        try:
            self._check_listener(listener, name_fd)
            network = self._daemon.add_network(
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
        return self._options(message)

    def _take_fds(self, count: int) -> list[int]:
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
        network = self._network()
        network.matches(take_int(message, "policy", 0, IPN_MAX_PROTO, 0))
        network.require_manage(self.peer)
        self._bound_to(network)
        return self._options(message)

    def _bound_to(self, network: Network) -> None:
        self.network = network
        network.sessions.add(self)
        network.take_socket()
        self.state = State.BOUND

    def _connect(self, message: Message) -> Message:
        network = self._network()
        network.matches(take_int(message, "policy", 0, IPN_MAX_PROTO, 0))
        kind = take_text(message, "data", 16, "stream")
        if kind not in DATA_KINDS:
            raise OSError(errno.EINVAL, f"connect: 'data' must be one of {', '.join(DATA_KINDS)}, not {kind!r}")
        description = take_text(message, "descr", IPN_DESCRLEN, "")
        handle_oob, want_oob = take_bool(message, "handle_oob"), take_bool(message, "want_oob")
        ours, theirs = socket.socketpair(socket.AF_UNIX, DATA_KINDS[kind])
        try:
            port = network.join(
                kind,
                self.peer,
                lambda: ours,
                wanted=take_int(message, "port", -1, MAX_NUMNODES, -1),
                receive=not take_bool(message, "shut_rd"),
                send=not take_bool(message, "shut_wr"),
                description=description,
            )
        except BaseException:
            ours.close()
            theirs.close()
            raise
        with contextlib.suppress(OSError):
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if not port.writer:
            ours.shutdown(socket.SHUT_RD)  # the kernel tells a member that sends nevertheless: EPIPE
        port.session = self
        port.handle_oob, port.want_oob = handle_oob, want_oob
        self.port = port
        if self.state is State.UNBOUND:
            network.take_socket()
        self.state = State.CONNECTED
        network.joined(port)
        self.reply_fds.append(theirs.detach())
        return {**self._options(message), "port": port.number, "rights": port.rights}

    # -- interfaces --------------------------------------------------------------------------------------------------

    def _attach(self, message: Message) -> Message:
        """The node is an interface of the host: what the network sends to it goes there."""
        network = self._network()
        network.matches(take_int(message, "policy", 0, IPN_MAX_PROTO, 0))
        kind = take_text(message, "kind", 16)
        if kind not in DESCRIPTORS:
            raise OSError(errno.EINVAL, f"attach: 'kind' must be one of {', '.join(DESCRIPTORS)}, not {kind!r}")
        lifetime = _lifetime(message, Lifetime.SOCKET)
        if self.state is State.UNBOUND and lifetime is not Lifetime.SOCKET:
            network.require_manage(self.peer)
        wanted = take_int(message, "port", -1, MAX_NUMNODES, -1)
        description = take_text(message, "descr", IPN_DESCRLEN, "")
        receive, send = not take_bool(message, "shut_rd"), not take_bool(message, "shut_wr")
        port = network.attach(
            take_device(kind, self._take_fds(DESCRIPTORS[kind])), self.peer, lifetime,
            wanted=wanted, receive=receive, send=send, description=description, session=self,
        )
        if self.state is State.UNBOUND:
            network.take_socket()
        self.port = port
        self.state = State.CONNECTED
        network.joined(port)
        return self._joined_as(message, port)

    def _join_interface(self, message: Message) -> Message:
        """Take over an interface that no socket controls."""
        network = self._network()
        name, index = take_text(message, "name", IFNAMSIZ, ""), take_int(message, "index", 0, 1 << 31, 0)
        shown = name or f"number {index}"
        port = network.interface(name, index)
        if port is None:
            if any(other.interface(name, index) for other in self._daemon.networks.values()):
                raise PermissionError(errno.EPERM, f"the interface {shown} is on another network than {network.path}")
            raise OSError(errno.EADDRNOTAVAIL, f"no interface {shown} is on {network.path}")
        if port.session is not None:
            raise OSError(errno.EADDRNOTAVAIL, f"another socket controls the interface {shown} on {network.path}")
        port.session, self.port = self, port
        network.anchor(port, False)
        self.state = State.CONNECTED
        return self._joined_as(message, port)

    def _joined_as(self, message: Message, port: Port) -> Message:
        assert port.interface is not None
        return {
            **self._options(message), "port": port.number, "rights": port.rights, "interface": port.interface.show()
        }

    def _keep(self, message: Message) -> None:
        """Set how long the socket's own interface stays; or, by its name on an unbound socket, any that it manages."""
        lifetime = _lifetime(message)
        if self.state is State.CONNECTED:
            port, network = self._own_port(), self._network()
            if port.interface is None:
                raise OSError(errno.ENODEV, "the node is no interface: only those can be persistent")
            if lifetime is not Lifetime.SOCKET:
                network.require_manage(self.peer)  # who joined as a plain member has not been asked for it yet
        else:
            network, port = self._interface_to_manage(message)
        network.keep(port, lifetime)

    def _interface_to_manage(self, message: Message) -> tuple[Network, Port]:
        """Return an interface by its name or index, on the session's network or whichever; EADDRNOTAVAIL, EPERM."""
        name, index = take_text(message, "name", IFNAMSIZ, ""), take_int(message, "index", 0, 1 << 31, 0)
        if self.network is None and "path" not in message:
            for network in self._daemon.networks.values():
                if (port := network.interface(name, index)) is not None:
                    network.require_manage(self.peer)
                    return network, port
            raise OSError(errno.EADDRNOTAVAIL, f"no interface {name or index} is on any network of this ipnd")
        network = self._target(message)
        network.require_manage(self.peer)
        if "port" in message:
            number = take_int(message, "port", 0, MAX_NUMNODES)
            port = network.ports.get(number)
            if port is None or port.interface is None or name not in ("", port.interface.name):
                raise OSError(errno.EADDRNOTAVAIL, f"no interface {name} is on port {number} of {network.path}")
        else:
            port = network.interface(name, index)
        if port is None:
            raise OSError(errno.EADDRNOTAVAIL, f"no interface {name or index} is on {network.path}")
        return network, port

    def _detach(self, message: Message) -> None:
        if (self.network or "path" in message) and (network := self._target(message)).unrestored:
            network.require_manage(self.peer)
            if network.forget_unrestored(take_text(message, "name", IFNAMSIZ, "")):
                return
        network, port = self._interface_to_manage(message)
        network.leave(port, f"detached by {self.peer}")

    def _set_mac(self, message: Message) -> None:
        port = self.port
        if port is None or not isinstance(port.link, TapLink):
            text = "only the MAC address of a TAP can be set, by the socket that controls it"
            raise OSError(errno.EADDRNOTAVAIL, text)
        port.link.sock.set_mac(take_text(message, "mac", 32))
        assert port.interface is not None
        port.interface.look()

    def _options(self, message: Message) -> Message:
        network = self._network()
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
        network, port = self._network(), self._own_port()
        if take_bool(message, "read"):
            port.reader = False
            assert port.link is not None
            port.link.discard()
            port.link.update_interest()
        if take_bool(message, "write") and port.writer:
            port.writer = False
            assert port.link is not None
            port.link.stop_reading()
        network.members_changed()

    def _describe(self, message: Message) -> None:
        self._own_port().description = take_text(message, "descr", IPN_DESCRLEN)
        self._network().runner.invalidate()

    def _oob(self, message: Message) -> None:
        port = self._own_port()
        port.handle_oob, port.want_oob = take_bool(message, "handle_oob"), take_bool(message, "want_oob")

    def _own_port(self) -> Port:
        if self.port is None or self.port.link is None:
            raise OSError(errno.ENOTCONN, "the member has left the network")
        return self.port

    def _network(self) -> Network:
        if self.network is None or self.network.ended:
            raise OSError(errno.ECONNRESET, "the network is gone")
        return self.network

    def _setsockopt(self, message: Message) -> None:
        option = take_int(message, "option", -(1 << 31), (1 << 31) - 1)
        self._network().runner.hook("setsockopt", self._port_number(), option, take_value(message, "value"))

    def _getsockopt(self, message: Message) -> Any:
        option = take_int(message, "option", -(1 << 31), (1 << 31) - 1)
        length = take_int(message, "length", 0, MAX_OPTION, 0)
        return _as_json(self._network().runner.hook("getsockopt", self._port_number(), option, length))

    def _ioctl(self, message: Message) -> Any:
        request = take_int(message, "request", 0, (1 << 32) - 1)
        argument = take_value(message, "value")
        return _as_json(self._network().runner.hook("ioctl", self._port_number(), request, argument))

    def _port_number(self) -> int:
        return self.port.number if self.port is not None else -1

    # -- managing ----------------------------------------------------------------------------------------------------

    def _target(self, message: Message) -> Network:
        """Return the network a management op is about: the session's own, or the one at the path it names."""
        if self.network is not None:
            return self._network()
        path = take_text(message, "path", PATH_MAX)
        for network in self._daemon.networks.values():
            if path in (network.path, network.created_as) and network.can_be_reached_by(self.peer):
                return network
        raise FileNotFoundError(errno.ENOENT, f"this ipnd has no network at {path}")

    def _show(self, message: Message) -> Message:
        network = self._target(message)
        if not any(network.rights(self.peer)):
            raise PermissionError(errno.EACCES, f"{network.path} gives {self.peer} no permission at all")
        return network.show()

    def _list(self, message: Message) -> list[Message]:
        networks = [n for n in self._daemon.networks.values() if n.can_be_reached_by(self.peer)]
        shown = [n.show(ports=False) for n in networks if self.peer.uid == 0 or any(n.rights(self.peer))]
        return sorted(shown, key=lambda entry: str(entry["path"]))

    def _resize(self, message: Message) -> None:
        network = self._target(message)
        network.require_manage(self.peer)
        network.resize(take_int(message, "maxports", 1, MAX_NUMNODES))
        self._daemon.save()

    def _delete(self, message: Message) -> None:
        network = self._target(message)
        network.require_manage(self.peer)
        network.end(f"deleted by {self.peer}")

    def _monitor(self, message: Message) -> Message:
        network = self._target(message)
        if not any(network.rights(self.peer)):
            raise PermissionError(errno.EACCES, f"{network.path} gives {self.peer} no permission at all")
        self._stop_watching()
        self._stop_watching = network.watch(self.notify)
        self._watched = network
        network.sessions.add(self)
        return network.show()

    def _policy_verb(self, message: Message) -> Any:
        network = self._target(message)
        if not any(network.rights(self.peer)):
            raise PermissionError(errno.EACCES, f"{network.path} gives {self.peer} no permission at all")
        arguments = message.get("arguments", {})
        if not isinstance(arguments, dict):
            raise OSError(errno.EINVAL, "policy: 'arguments' must be an object")
        return network.policy_verb(self.peer, take_text(message, "verb", 64), arguments)

    def _set(self, message: Message) -> None:
        network = self._target(message)
        network.require_manage(self.peer)
        old = network.options.maxports
        if "maxports" in message:
            network.resize(take_int(message, "maxports", 1, MAX_NUMNODES))
        try:
            if "policy" in message:
                network.set_policy(policy_class(take_int(message, "policy", 1, IPN_MAX_PROTO)))
        except BaseException:
            network.resize(old)
            raise
        self._daemon.save()

    def _policies(self, message: Message) -> list[Message]:
        return [{"number": number, "name": policy.name} for number, policy in policies()]

    # -- the end -----------------------------------------------------------------------------------------------------

    def port_left(self) -> None:
        """The data socket is closed, by the member or with its network."""
        self.port = None

    def network_ended(self) -> None:
        """The network is gone: the connection ends once the current request is answered."""
        self._finish()

    def close(self) -> None:
        """The client's connection is closed: its member leaves once what it sent is dealt with."""
        self._stop_watching()
        network = self.network
        if self._watched is not None:
            self._watched.sessions.discard(self)
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


def _lifetime(message: Message, default: Lifetime | None = None) -> Lifetime:
    word = take_text(message, "lifetime", 16, default.value if default else None)
    try:
        return Lifetime(word)
    except ValueError:
        known = ", ".join(lifetime.value for lifetime in Lifetime)
        raise OSError(errno.EINVAL, f"{message.get('op')}: 'lifetime' must be one of {known}, not {word!r}") from None


def _as_json(value: object) -> Any:
    """Return an option's value for the wire: a number, or bytes in hexadecimal."""
    return {"hex": bytes(value).hex()} if isinstance(value, (bytes, bytearray)) else value


DATA_KINDS: Final = {"stream": socket.SOCK_STREAM, "packet": socket.SOCK_SEQPACKET}

OPS: Final[dict[str, tuple[frozenset[State], bool, Callable[[Session, Message], Any]]]] = {
    # op: (states it is possible in, whether it needs the session to be on a network, what does it)
    "hello": (NEW, False, Session._hello),
    "create": (NEW, False, Session._create),
    "bind": (NEW, True, Session._bind),
    "connect": (frozenset({State.UNBOUND, State.BOUND}), True, Session._connect),
    "options": (JOINED, True, Session._options),
    "attach": (frozenset({State.UNBOUND, State.BOUND}), True, Session._attach),
    "join_interface": (frozenset({State.BOUND}), True, Session._join_interface),
    "keep": (ANY, False, Session._keep),
    "detach": (ANY, False, Session._detach),
    "set_mac": (ANY, False, Session._set_mac),
    "shutdown": (frozenset({State.CONNECTED}), True, Session._shutdown),
    "describe": (frozenset({State.CONNECTED}), True, Session._describe),
    "oob": (frozenset({State.CONNECTED}), True, Session._oob),
    "setsockopt": (JOINED, True, Session._setsockopt),
    "getsockopt": (JOINED, True, Session._getsockopt),
    "ioctl": (JOINED, True, Session._ioctl),
    "show": (ANY, False, Session._show),
    "list": (ANY, False, Session._list),
    "resize": (ANY, False, Session._resize),
    "delete": (ANY, False, Session._delete),
    "monitor": (ANY, False, Session._monitor),
    "policy": (ANY, False, Session._policy_verb),
    "set": (ANY, False, Session._set),
    "policies": (ANY, False, Session._policies),
}
