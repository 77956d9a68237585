"""Operations on the host's interfaces: putting them on a network, taking them over, keeping them, taking them off."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from ipn.abi import IPN_DESCRLEN, IPN_MAX_PROTO, MAX_NUMNODES
from ipn.control import Message
from ipnd.fields import take_bool, take_int, take_text
from ipnd.netdev.attach import DESCRIPTORS, take_device
from ipnd.netdev.interface import Lifetime
from ipnd.netdev.tap import TapLink

from .base import ANY, NOT_CONNECTED, Op, State

if TYPE_CHECKING:
    from ipnd.network import Network
    from ipnd.plane.port import Port
    from ipnd.session import Session

IFNAMSIZ: Final = 16
"""Longest name of an interface, in bytes, with the NUL behind it (linux/if.h)."""


def _attach(session: Session, message: Message) -> Message:
    """The node is an interface of the host: what the network sends to it goes there."""
    network = session.require_network()
    network.matches(take_int(message, "policy", 0, IPN_MAX_PROTO, 0))
    kind = take_text(message, "kind", 16)
    if kind not in DESCRIPTORS:
        raise OSError(errno.EINVAL, f"attach: 'kind' must be one of {', '.join(DESCRIPTORS)}, not {kind!r}")
    lifetime = _lifetime(message, Lifetime.SOCKET)
    if session.state is State.UNBOUND and lifetime is not Lifetime.SOCKET:
        network.require_manage(session.peer)
    wanted = take_int(message, "port", -1, MAX_NUMNODES, -1)
    description = take_text(message, "descr", IPN_DESCRLEN, "")
    receive, send = not take_bool(message, "shut_rd"), not take_bool(message, "shut_wr")
    port = network.interfaces.attach(
        take_device(kind, session.take_fds(DESCRIPTORS[kind])), session.peer, lifetime,
        wanted=wanted, receive=receive, send=send, description=description, session=session,
    )
    if session.state is State.UNBOUND:
        network.take_socket()
    session.port = port
    session.state = State.CONNECTED
    network.joined(port)
    return _joined_as(session, message, port)


def _join_interface(session: Session, message: Message) -> Message:
    """Take over an interface that no socket controls."""
    network = session.require_network()
    name, index = take_text(message, "name", IFNAMSIZ, ""), take_int(message, "index", 0, 1 << 31, 0)
    shown = name or f"number {index}"
    port = network.interfaces.find(name, index)
    if port is None:
        if any(other.interfaces.find(name, index) for other in session.daemon.networks.values()):
            raise PermissionError(errno.EPERM, f"the interface {shown} is on another network than {network.path}")
        raise OSError(errno.EADDRNOTAVAIL, f"no interface {shown} is on {network.path}")
    if port.session is not None:
        raise OSError(errno.EADDRNOTAVAIL, f"another socket controls the interface {shown} on {network.path}")
    port.session, session.port = session, port
    network.anchor(port, False)
    session.state = State.CONNECTED
    return _joined_as(session, message, port)


def _joined_as(session: Session, message: Message, port: Port) -> Message:
    assert port.interface is not None
    return {
        **session.options(message), "port": port.number, "rights": port.rights, "interface": port.interface.show()
    }


def _keep(session: Session, message: Message) -> None:
    """Set how long the socket's own interface stays; or, by its name on an unbound socket, any that it manages."""
    lifetime = _lifetime(message)
    if session.state is State.CONNECTED:
        port, network = session.own_port(), session.require_network()
        if port.interface is None:
            raise OSError(errno.ENODEV, "the node is no interface: only those can be persistent")
        if lifetime is not Lifetime.SOCKET:
            network.require_manage(session.peer)  # who joined as a plain member has not been asked for it yet
    else:
        network, port = _interface_to_manage(session, message)
    network.interfaces.keep(port, lifetime)


def _interface_to_manage(session: Session, message: Message) -> tuple[Network, Port]:
    """Return an interface by its name or index, on the session's network or whichever; EADDRNOTAVAIL, EPERM."""
    name, index = take_text(message, "name", IFNAMSIZ, ""), take_int(message, "index", 0, 1 << 31, 0)
    if session.network is None and "path" not in message:
        for network in session.daemon.networks.values():
            if (port := network.interfaces.find(name, index)) is not None:
                network.require_manage(session.peer)
                return network, port
        raise OSError(errno.EADDRNOTAVAIL, f"no interface {name or index} is on any network of this ipnd")
    network = session.target(message)
    network.require_manage(session.peer)
    if "port" in message:
        number = take_int(message, "port", 0, MAX_NUMNODES)
        port = network.ports.get(number)
        if port is None or port.interface is None or name not in ("", port.interface.name):
            raise OSError(errno.EADDRNOTAVAIL, f"no interface {name} is on port {number} of {network.path}")
    else:
        port = network.interfaces.find(name, index)
    if port is None:
        raise OSError(errno.EADDRNOTAVAIL, f"no interface {name or index} is on {network.path}")
    return network, port


def _detach(session: Session, message: Message) -> None:
    if (session.network or "path" in message) and (network := session.target(message)).interfaces.unrestored:
        network.require_manage(session.peer)
        if network.interfaces.forget_unrestored(take_text(message, "name", IFNAMSIZ, "")):
            return
    network, port = _interface_to_manage(session, message)
    network.leave(port, f"detached by {session.peer}")


def _set_mac(session: Session, message: Message) -> None:
    port = session.port
    if port is None or not isinstance(port.link, TapLink):
        text = "only the MAC address of a TAP can be set, by the socket that controls it"
        raise OSError(errno.EADDRNOTAVAIL, text)
    port.link.sock.set_mac(take_text(message, "mac", 32))
    assert port.interface is not None
    port.interface.look()


def _lifetime(message: Message, default: Lifetime | None = None) -> Lifetime:
    word = take_text(message, "lifetime", 16, default.value if default else None)
    try:
        return Lifetime(word)
    except ValueError:
        known = ", ".join(lifetime.value for lifetime in Lifetime)
        raise OSError(errno.EINVAL, f"{message.get('op')}: 'lifetime' must be one of {known}, not {word!r}") from None


OPS: Final[dict[str, Op]] = {
    "attach": Op(NOT_CONNECTED, True, _attach),
    "join_interface": Op(frozenset({State.BOUND}), True, _join_interface),
    "keep": Op(ANY, False, _keep),
    "detach": Op(ANY, False, _detach),
    "set_mac": Op(ANY, False, _set_mac),
}
