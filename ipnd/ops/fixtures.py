"""Operations on fixtures: adding gateways, uplinks and cables to a network, and removing them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from ipn.control import Message
from ipnd.fields import take_text

from .base import ANY, PATH_MAX, Op

if TYPE_CHECKING:
    from ipnd.session import Session


def _add(session: Session, message: Message) -> Any:
    network = session.managed(message)
    options = message.get("options", {})
    if not isinstance(options, dict):
        raise OSError(errno.EINVAL, "add: 'options' must be an object")
    kind, address = take_text(message, "kind", 16), take_text(message, "address", PATH_MAX, "")
    return network.fixtures.add(session.daemon, session.peer, kind, address, options).show()


def _remove(session: Session, message: Message) -> None:
    network = session.managed(message)
    network.fixtures.remove(take_text(message, "kind", 16), take_text(message, "address", PATH_MAX, ""))


OPS: Final[dict[str, Op]] = {
    "add": Op(ANY, False, _add),
    "remove": Op(ANY, False, _remove),
}
