"""What uplinks and cables over ssh share: one member, there while the other end is, and tried for again.

All is done as the user who added it: it may connect to what that user may connect to, no more.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from ipn.abi import IPN_DESCRLEN
from ipn.rendezvous import short_address

from .access import Peer
from .fixture import Fixture, Host
from .ownership import acting_as
from .plane.links import SocketLink
from .plane.packet import PacketLink
from .plane.stream import StreamLink
from .supervisor import keep_trying, require_identity

if TYPE_CHECKING:
    from .network import Network
    from .plane.port import Port

WHY: Final = {
    errno.ENOENT: "there is no socket at {path}",
    errno.ECONNREFUSED: "nobody serves the socket {path}",
    errno.EPROTOTYPE: "{path} is a socket of another type",
    errno.EACCES: "user {uid} may not connect to {path}",
    errno.EAGAIN: "{path} takes no connections now",
}
"""What is wrong with a socket's path, by errno."""


class EndingLink(SocketLink):
    """A link that tells when it is closed: ``ended``."""

    def __init__(self, *arguments: Any) -> None:
        self.ended = trio.Event()
        super().__init__(*arguments)

    def close_endpoint(self) -> None:
        """Close the socket, and tell."""
        super().close_endpoint()
        self.ended.set()


class EndingStream(EndingLink, StreamLink):
    """A stream with 4-byte lengths."""


class EndingPackets(EndingLink, PacketLink):
    """A SEQPACKET connection."""


class AttemptingFixture(Fixture):
    """What is there only sometimes: a kind says in ``attempt`` how it is had."""

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(host, network, peer, address, options)
        self.state = "connecting"
        self._port: Port | None = None
        self._scope: trio.CancelScope | None = None

    def start(self) -> None:
        """Begin trying. EPERM where ipnd cannot act as who asked."""
        require_identity(self.peer)
        self._scope = self.host.spawn(self._keep)

    async def _keep(self) -> None:
        what = f"{self.network.path}: the {self.group} {self.address}"
        await keep_trying(what, self.attempt, self._on_state)

    def _on_state(self, state: str, problem: str) -> None:
        self.state, self.problem = state, problem

    async def attempt(self, up: Callable[[], None]) -> str:
        """Have the member there, call ``up``, and return why it has gone; or raise ``OSError``."""
        raise NotImplementedError

    async def serve(self, kind: str, sock: socket.socket, pid: int, command: str, up: Callable[[], None]) -> str:
        """Make ``sock`` (taken) a member until it leaves, and return why. ``pid``: the process behind it."""
        try:
            peer = attrs.evolve(self.peer, pid=pid, command=command)
            description = f"{self.group} {self.address}"[:IPN_DESCRLEN]
            port = self.network.join(kind, peer, lambda: sock, description=description)
        except BaseException:
            sock.close()
            raise
        self._port = port
        self.network.joined(port)
        up()
        assert isinstance(port.link, EndingLink)
        await port.link.ended.wait()
        return f"{command} has closed the connection"

    def leave(self, why: str) -> None:
        """Take the member out, if it is there."""
        port, self._port = self._port, None
        if port is not None:
            self.network.leave(port, why)

    def close(self) -> None:
        """Take the member out and try no more."""
        if self._scope is not None:
            self._scope.cancel()
            self._scope = None
        self.leave(f"the {self.group} is removed")


def connect_as(peer: Peer, kind: socket.SocketKind, path: str) -> socket.socket:
    """Return a socket connected to the one at ``path`` as ``peer``, without waiting. Raises what explains itself."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(False)
        with acting_as(peer.uid, peer.gid), _readable(path, peer), short_address(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _readable(path: str, peer: Peer) -> Iterator[None]:
    """Give the errors of connecting a sentence."""
    try:
        yield
    except OSError as error:
        text = WHY.get(error.errno or 0, "cannot connect to {path}: " + (error.strerror or ""))
        raise OSError(error.errno, text.format(path=path, uid=peer.uid)) from None
