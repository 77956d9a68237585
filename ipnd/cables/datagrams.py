"""What the cables over UDP have in common: looking their hosts up, and leaving."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from ipnd.access import Peer
from ipnd.fixture import Fixture, Host
from ipnd.plane.hops import CableEnd
from ipnd.supervisor import Attempt, keep_trying

if TYPE_CHECKING:
    from ipnd.network import Network
    from ipnd.plane.port import Port

EVERY_ERROR: Final = frozenset(errno.errorcode) - {errno.EAGAIN}
"""No error in sending a datagram ends a cable: each loses one frame."""
DEPTH: Final = 1
"""Hops that what comes counts as: datagrams do not say over how many cables a frame has come."""


class DatagramCable(Fixture):
    """A cable whose member is ``port``, once it has joined."""

    group = "cable"

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(host, network, peer, address, options)
        self.port: Port | None = None
        self._looking: trio.CancelScope | None = None

    @property
    def name(self) -> str:
        """What people know it by."""
        return f"{self.address} of {self.network.path}"

    def begin_looking(self, look: Attempt) -> None:
        """Have ``look`` find the addresses of names, again and again until it has called what it is given."""
        self.state = "connecting"
        self._looking = self.host.spawn(partial(keep_trying, self.name, look, self._now))

    def _now(self, state: str, problem: str) -> None:
        self.state, self.problem = state, problem

    def show(self) -> dict[str, Any]:
        """Return the cable as ``net show --json`` prints it."""
        link = self.port.link if self.port is not None else None
        looped = link.looped if isinstance(link, CableEnd) else 0
        return {**super().show(), "counts": self.counts | ({"hop limit": looped} if looped else {})}

    def close(self) -> None:
        """Leave the network."""
        if self._looking is not None:
            self._looking.cancel()
        port, self.port = self.port, None
        if port is not None:
            self.network.leave(port, "the cable is removed")
