"""A cable between two networks of one daemon: what one side is given, the other side's network gets from it.

Each end is a member of its network. Frames wait between them in an inbox, with the hops they have come, and are
handed on in the loop's next step: nothing recurses, however networks are tied together.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ipn.framing import PREFIX
from ipnd.access import Peer
from ipnd.fixture import Fixture, Host
from ipnd.plane.batch import Ends
from ipnd.plane.hops import CableEnd
from ipnd.plane.links import Joint, Link, Piece, VirtualLink

if TYPE_CHECKING:
    from ipnd.network import Network
    from ipnd.plane.port import Port

log = logging.getLogger("ipnd.cables")

INBOX: Final = 512 * 1024
"""Bytes that may wait between the two ends; what a full one does not take, waits with the network or is lost."""
CHARGE: Final = 256
"""Bytes that a piece is charged besides its frames, so that many short ones do not take more memory than that says."""
AT_ONCE: Final = 64
"""Pieces handed on in one step of the loop: a storm of frames between networks must not keep it from all others."""


class End(Joint):
    """One end of a cable. ``other``: the link of the other end; ``left`` is called when it leaves on its own."""

    def __init__(self, left: Callable[[], None]) -> None:
        super().__init__()
        self.other: CableLink | None = None
        self.left = left


class CableLink(CableEnd, VirtualLink):
    """One end of a cable as a member's link: what is written to it, is read from the other end."""

    sock: End

    def __init__(self, *arguments: Any) -> None:
        self._inbox: deque[Piece] = deque()
        self._waiting = 0
        self._called = False
        super().__init__(*arguments)
        self.receiver = 0  # who has laid the cable reads nothing

    def carry(self, view: memoryview, ends: Ends) -> int:
        """Put frames into the other end's inbox; none when that is full."""
        other = self.sock.other
        if other is None or not other.reading:
            self.port.dropped += len(ends)  # it may not send there: nobody is to wait for that
            return len(ends)
        if not other.accept(bytes(view), ends, self.plane.depth + 1):
            return 0
        self.sent(len(ends), len(view))
        return len(ends)

    def accept(self, data: bytes, ends: Ends, depth: int) -> bool:
        """Take frames from the other end; False when too many wait already."""
        if self._waiting >= INBOX:
            return False
        self._inbox.append(Piece(data, ends, depth=depth))
        self._waiting += CHARGE + len(data)
        self._call()
        return True

    def _call(self) -> None:
        if not self._called:
            self._called = True
            self.plane.later(self._come)

    def _come(self) -> None:
        self._called = False
        self.read()

    def read(self) -> None:
        """Hand on what waits in the inbox, as long as the network takes it."""
        for _ in range(AT_ONCE):
            if not self._inbox or not self.may_read():
                break
            piece = self._inbox.popleft()
            self._waiting -= CHARGE + len(piece.data)
            self.depth, self.run_at = piece.depth, 0
            view, ends = memoryview(piece.data), self._fitting(piece)
            if ends is not piece.ends:
                view, ends = self._without_oversize(piece)
            if ends:
                self.delivery.forward(self, view, ends)
        if self._inbox and self.may_read():
            self._call()
        other = self.sock.other
        if other is not None and other.queue and self._waiting < INBOX:
            other.flush()

    def _fitting(self, piece: Piece) -> Ends | None:
        """Return the frames' ends when none can be longer than this network's MTU, None when some may be."""
        other = self.sock.other
        return piece.ends if other is None or other.delivery.mtu <= self.delivery.mtu else None

    def _without_oversize(self, piece: Piece) -> tuple[memoryview, Ends]:
        """Return the frames of a piece that this network takes."""
        kept, ends, start, size = [], [], 0, 0
        for end in piece.ends:
            if end - start - PREFIX <= self.delivery.mtu:
                kept.append(piece.data[start:end])
                size += end - start
                ends.append(size)
            else:
                self.port.oversize += 1
            start = end
        return memoryview(b"".join(kept)), ends

    def write_queue(self) -> None:
        """Put what is queued into the other end's inbox; BlockingIOError when that is full."""
        while self.queue:
            piece, other = self.queue[0], self.sock.other
            if other is not None and not other.accept(piece.data, piece.ends, piece.depth + 1):
                raise BlockingIOError
            self.pop()

    def wanted(self, read: bool, write: bool) -> None:
        """Go on with the inbox when the network takes frames again."""
        if read and self._inbox:
            self._call()

    def room(self) -> int:
        """Return what the other end's inbox surely takes."""
        other = self.sock.other
        return 0 if self.queue or other is None else max(0, INBOX - other._waiting)

    def drain(self) -> None:
        """The cable is taken out."""
        self.delivery.gone(self)

    def close_endpoint(self) -> None:
        """The member has left: without the cable's doing, the other end must hear of it."""
        super().close_endpoint()
        if self.sock.other is not None:
            self.plane.later(self.sock.left)


class PatchCable(Fixture):
    """A cable from its network to the one at ``address``; up as long as both are there."""

    group = "cable"
    kind = "cable"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"cable": CableLink}

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(host, network, peer, address, options)
        self._ports: list[tuple[Network, Port]] = []
        self._stop: Callable[[], None] | None = None

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL unless the address is an absolute path."""
        if not address.startswith("/"):
            raise OSError(errno.EINVAL, f"a cable goes to the path of a network, not to {address!r}")
        return super().check(address, options)

    def start(self) -> None:
        """Join both networks; the other one must be there, and let the user in."""
        self._plug(self._other())
        self._stop = self.host.networks_changed(self._look)

    def start_again(self) -> None:
        """Join both networks, now or as soon as the other one is there."""
        self._stop = self.host.networks_changed(self._look)
        self._look()

    def _other(self) -> Network:
        """Return the network at the other end. ENOENT, also when its path does not lead the user to it."""
        other = self.host.network_at(self.address)
        if other is None or other.ended or not other.can_be_reached_by(self.peer):
            text = f"this ipnd has no network at {self.address} (to one of another daemon: ipnctl cable add ssh://…)"
            raise FileNotFoundError(errno.ENOENT, text)
        if other is self.network:
            raise OSError(errno.EINVAL, f"a cable from {self.address} to itself would only be a loop")
        if any(_leads_to(other, port) for port in self.network.ports.values()):
            raise FileExistsError(errno.EEXIST, f"a cable joins {self.network.path} and {other.path} already")
        return other

    def _plug(self, other: Network) -> None:
        ends = [End(self._look), End(self._look)]
        joined: list[tuple[Network, Port]] = []
        for network, end, to in ((self.network, ends[0], other), (other, ends[1], self.network)):
            try:
                port = network.join("cable", self.peer, partial(_itself, end), description=f"to {to.path}")
            except OSError:
                for there, port in joined:
                    there.leave(port, "the other end could not join")
                raise
            joined.append((network, port))
        self._ports = joined
        for (_, port), end in zip(reversed(joined), ends, strict=True):
            assert isinstance(port.link, CableLink)
            end.other = port.link
        for network, port in joined:
            network.joined(port)
        self.state, self.problem = "up", ""

    def _look(self) -> None:
        """A network has come or gone: be up exactly when both ends can be."""
        whole = len(self._ports) == 2 and all(
            not network.ended and network.ports.get(port.number) is port for network, port in self._ports
        )
        if whole or self.network.ended or self._stop is None:
            return
        self._unplug("the other end is gone")
        try:
            self._plug(self._other())
        except OSError as error:
            self._down(str(error.strerror))
        else:
            log.warning("%s: the cable to %s is up again", self.network.path, self.address)

    def _down(self, problem: str) -> None:
        if (self.state, self.problem) != ("down", problem):
            log.warning("%s: the cable to %s is down: %s", self.network.path, self.address, problem)
        self.state, self.problem = "down", problem

    def _unplug(self, why: str) -> None:
        ports, self._ports = self._ports, []
        for _, port in ports:
            if isinstance(port.link, CableLink):
                port.link.sock.other = None
        for network, port in ports:
            network.leave(port, why)

    def show(self) -> dict[str, Any]:
        """Return the cable as ``net show --json`` prints it."""
        looped = sum(port.link.looped for _, port in self._ports if isinstance(port.link, CableLink))
        return {**super().show(), "counts": {"hop limit": looped} if looped else {}}

    def close(self) -> None:
        """Leave both networks."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        self._unplug("the cable is removed")


def _itself(end: End) -> End:
    return end


def _leads_to(network: Network, port: Port) -> bool:
    """Return whether a port is the end of a cable whose other end is on ``network``."""
    link = port.link
    other = link.sock.other if isinstance(link, CableLink) else None
    return other is not None and other.delivery is network.delivery
