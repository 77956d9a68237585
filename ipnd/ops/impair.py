"""The operation that impairs a member's port: loss, delay and the like, until it leaves."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final

from ipn.abi import MAX_NUMNODES
from ipn.control import Message
from ipnd.fields import take_int, take_text
from ipnd.plane import impaired
from ipnd.plane.impairment import Impairment

from .base import ANY, Op

if TYPE_CHECKING:
    from ipnd.network import Network
    from ipnd.plane.port import Port
    from ipnd.session import Session


def _impair(session: Session, message: Message) -> Message:
    """Impair the directions that are named, and only as the request says; with nothing to do, no more."""
    network = session.managed(message)
    port = _port(network, take_int(message, "port", 0, MAX_NUMNODES))
    direction, settings = take_text(message, "direction", 16, "both"), message.get("settings", {})
    if direction not in impaired.DIRECTIONS:
        known = ", ".join(impaired.DIRECTIONS)
        raise OSError(errno.EINVAL, f"impair: 'direction' must be one of {known}, not {direction!r}")
    if not isinstance(settings, dict):
        raise OSError(errno.EINVAL, "impair: 'settings' must be an object")
    impairment = Impairment.decode(settings, port.number)
    wanted = None if impairment.nothing else impairment
    lossless = network.options.lossless
    before = [impaired.replace(port, way, wanted, lossless=lossless) for way in impaired.DIRECTIONS[direction]]
    network.runner.invalidate()
    for way in before:
        if way is not None:
            way.lift()
    shown: Message = port.show(time.monotonic_ns()).get("impairment", {})
    return shown


def _port(network: Network, number: int) -> Port:
    """Return the port with that number; EADDRNOTAVAIL when nobody is on it."""
    port = network.ports.get(number)
    if port is None or port.link is None:
        raise OSError(errno.EADDRNOTAVAIL, f"nobody is on port {number} of {network.path}")
    return port


OPS: Final[dict[str, Op]] = {"impair": Op(ANY, False, _impair)}
