"""What a member hands over with an interface: its descriptors, looked at before anything relies on them."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from typing import Final

import attrs

from ipn.channel import close_all
from ipnd.plane.links import Link

from .grab import GrabLink, check_packet_socket
from .tap import Tap, TapLink

DESCRIPTORS: Final = {"tap": 2, "grab": 3}
"""Kind of interface → how many descriptors come with it: the device and a watch, of a grabbed one a lock too."""
LINKS: Final[dict[str, type[Link]]] = {"tap": TapLink, "grab": GrabLink}


@attrs.define
class Handed:
    """An interface as it was handed over. Whoever has it owns what is in it."""

    kind: str
    name: str
    endpoint: Tap | socket.socket
    watch: socket.socket
    lock: socket.socket | None

    def close(self) -> None:
        """Close it all."""
        self.endpoint.close()
        self.watch.close()
        if self.lock is not None:
            self.lock.close()


def take_device(kind: str, fds: Sequence[int]) -> Handed:
    """Return the interface behind ``fds`` (see ``ipn.netdev.Device``), which it owns from now on.

    ``OSError`` EINVAL, and all is closed, when they are not what they should be.
    """
    with contextlib.ExitStack() as undo:
        left = list(fds)
        undo.callback(close_all, left)
        watch = undo.enter_context(_socket(left, 1, socket.AF_NETLINK, "second descriptor must be a netlink socket"))
        if watch.proto != socket.NETLINK_ROUTE:
            raise OSError(errno.EINVAL, "attach: the second descriptor must be a NETLINK_ROUTE socket")
        lock = None
        if kind == "grab":
            lock = undo.enter_context(_socket(left, 1, socket.AF_UNIX, "third descriptor must be the lock"))
        endpoint: Tap | socket.socket
        if kind == "tap":
            endpoint = Tap(left[0])
            name = endpoint.opened_as
        else:
            packet = _socket(left, 0, socket.AF_PACKET, "first descriptor must be a packet socket")
            endpoint = undo.enter_context(packet)
            name = check_packet_socket(endpoint)
        left.clear()
        undo.pop_all()
        return Handed(kind, name, endpoint, watch, lock)


def _socket(left: list[int], place: int, family: int, what: str) -> socket.socket:
    """Take the descriptor at ``place`` out of ``left`` and return its socket; EINVAL unless it is of ``family``."""
    try:
        sock = socket.socket(fileno=left[place])
    except OSError:
        raise OSError(errno.EINVAL, f"attach: the {what}") from None
    del left[place]
    if sock.family != family:
        sock.close()
        raise OSError(errno.EINVAL, f"attach: the {what}")
    return sock
