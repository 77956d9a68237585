"""Bare SEQPACKET: a listening socket where each message is a frame, and nothing else is said.

What User-Mode Linux calls ``transport=bess``, slirp4netns ``--target-type=bess``, and what the plugs of VDE that pass
such a socket on speak. A member by its connection; rights by SO_PEERCRED, as everywhere.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ipnd.access import Peer
from ipnd.fixture import Fixture, Host
from ipnd.plane.links import Link
from ipnd.plane.packet import PacketLink

from .acceptor import Acceptor
from .modes import socket_mode
from .place import BACKLOG, Place, bind_at, check_path

if TYPE_CHECKING:
    from ipnd.network import Network
    from ipnd.plane.port import Port


class SeqpacketGateway(Fixture):
    """A SEQPACKET socket at ``address``."""

    group = "gateway"
    kind = "seqpacket"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"seqpacket": PacketLink}

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(host, network, peer, address, options)
        self._listener: socket.socket | None = None
        self._acceptor: Acceptor | None = None
        self._place: Place | None = None
        self._ports: list[Port] = []

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL or ENAMETOOLONG unless the address can be a socket's path."""
        return check_path(super().check(address, options))

    def start(self) -> None:
        """Listen."""
        mode, gid = socket_mode(self.network.file_access())
        self._listener, self._place = bind_at(self.address, socket.SOCK_SEQPACKET, self.peer, mode, gid)
        self._listener.listen(BACKLOG)
        self._acceptor = Acceptor(self.host.plane, self._listener, self.address, self._take)

    def _take(self, sock: socket.socket, peer: Peer) -> None:
        """Make a connection a member that keeps the network alive."""
        self._ports = [port for port in self._ports if port.link is not None]
        port = self.network.join_visitor("seqpacket", peer, sock)
        if port is not None:
            self._ports.append(port)

    def close(self) -> None:
        """Stop listening; who came through it leaves."""
        if self._acceptor is None or self._listener is None or self._place is None:
            return
        self._acceptor.close()
        self._listener.close()
        self._place.remove()
        self._acceptor = None
        for port in self._ports:
            self.network.leave(port, "its gateway is closed")
