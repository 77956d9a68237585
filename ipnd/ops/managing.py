"""Operations that manage networks: looking at them, changing, watching and ending them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from ipn.abi import IPN_MAX_PROTO, MAX_NUMNODES
from ipn.control import Message
from ipnd.fields import take_int, take_text
from ipnd.policies.registry import policies, policy_class

from .base import ANY, Op

if TYPE_CHECKING:
    from ipnd.session import Session


def _show(session: Session, message: Message) -> Message:
    network = session.target(message)
    if not any(network.rights(session.peer)):
        raise PermissionError(errno.EACCES, f"{network.path} gives {session.peer} no permission at all")
    return network.show()


def _list(session: Session, message: Message) -> list[Message]:
    networks = [n for n in session.daemon.networks.values() if n.can_be_reached_by(session.peer)]
    shown = [n.show(ports=False) for n in networks if session.peer.uid == 0 or any(n.rights(session.peer))]
    return sorted(shown, key=lambda entry: str(entry["path"]))


def _resize(session: Session, message: Message) -> None:
    network = session.target(message)
    network.require_manage(session.peer)
    network.resize(take_int(message, "maxports", 1, MAX_NUMNODES))
    session.daemon.save()


def _delete(session: Session, message: Message) -> None:
    network = session.managed(message)
    network.end(f"deleted by {session.peer}")


def _monitor(session: Session, message: Message) -> Message:
    network = session.target(message)
    if not any(network.rights(session.peer)):
        raise PermissionError(errno.EACCES, f"{network.path} gives {session.peer} no permission at all")
    session.stop_watching()
    session.stop_watching = network.watch(session.notify)
    session.watched = network
    network.sessions.add(session)
    return network.show()


def _policy_verb(session: Session, message: Message) -> Any:
    network = session.target(message)
    if not any(network.rights(session.peer)):
        raise PermissionError(errno.EACCES, f"{network.path} gives {session.peer} no permission at all")
    arguments = message.get("arguments", {})
    if not isinstance(arguments, dict):
        raise OSError(errno.EINVAL, "policy: 'arguments' must be an object")
    return network.policy_verb(session.peer, take_text(message, "verb", 64), arguments)


def _set(session: Session, message: Message) -> None:
    network = session.target(message)
    network.require_manage(session.peer)
    old = network.options.maxports
    if "maxports" in message:
        network.resize(take_int(message, "maxports", 1, MAX_NUMNODES))
    try:
        if "policy" in message:
            network.set_policy(policy_class(take_int(message, "policy", 1, IPN_MAX_PROTO)))
    except BaseException:
        network.resize(old)
        raise
    session.daemon.save()


def _policies(session: Session, message: Message) -> list[Message]:
    return [{"number": number, "name": policy.name} for number, policy in policies()]


OPS: Final[dict[str, Op]] = {
    "show": Op(ANY, False, _show),
    "list": Op(ANY, False, _list),
    "resize": Op(ANY, False, _resize),
    "delete": Op(ANY, False, _delete),
    "monitor": Op(ANY, False, _monitor),
    "policy": Op(ANY, False, _policy_verb),
    "set": Op(ANY, False, _set),
    "policies": Op(ANY, False, _policies),
}
