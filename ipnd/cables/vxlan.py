"""Cables over VXLAN (RFC 7348): one network of ours, and tunnel endpoints elsewhere, the kernel's or ours.

The cable is one member of its network, whatever the number of its remotes, so that what one remote sends never goes
to another: each is expected to send to all others itself. What is meant for many, or for an address that was not
heard yet, goes to every remote (ingress replication); other frames to the remote that their receiver is behind.
VXLAN does not say how many cables a frame has come over: it counts as one, and a loop through it has no end.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs
import trio

from ipn.abi import IPN_DESCRLEN
from ipnd.access import Peer
from ipnd.fixture import Host
from ipnd.plane.batch import Ends
from ipnd.plane.hops import CableEnd
from ipnd.plane.links import Link
from ipnd.plane.packet import MessageWriting
from ipnd.plane.shared import Share, SharedLink

from .addresses import Address, any_address, look_up, numeric, refuse_ourselves
from .datagrams import DEPTH, EVERY_ERROR, DatagramCable
from .remotes import Remotes
from .url import ip_of, parse_vxlan
from .vxlan_header import encode_header
from .vxlan_socket import Source, VxlanSocket, enter

if TYPE_CHECKING:
    from ipnd.network import Network

log = logging.getLogger("ipnd.cables")

ADDRESSES: Final = 12
"""Bytes of a frame's two addresses, the receiver's first."""
TTL: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT),
}
"""Family → what says how many routers a datagram may pass."""


@attrs.frozen(eq=False)
class Remote:
    """A tunnel endpoint, and the socket that reaches it. ``control``: what goes beside each datagram."""

    shared: VxlanSocket
    address: Address
    control: tuple[tuple[int, int, bytes], ...]


class VxlanShare(Share):
    """The cable as the endpoint of its link."""

    def __init__(self, cable: VxlanCable) -> None:
        super().__init__()
        self._cable = cable

    def put(self, message: memoryview) -> None:
        """Send one frame."""
        self._cable.send(message)


class VxlanLink(CableEnd, SharedLink):
    """The cable as a member."""

    LOST = EVERY_ERROR
    depth = DEPTH

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.receiver = 0  # who has laid the cable reads nothing

    def carry(self, view: memoryview, ends: Ends) -> int:
        """Send frames one by one."""
        return MessageWriting.write(self, view, ends)


class VxlanCable(DatagramCable):
    """A cable to the endpoints that ``address``, a vxlan:// URL, names."""

    kind = "vxlan"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"vxlan": VxlanLink}

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(host, network, peer, address, options)
        self._url = parse_vxlan(self.address)
        self._header = encode_header(self._url.vni)
        self._sockets: dict[int, VxlanSocket] = {}
        self._remotes: dict[Source, Remote] = {}
        self._behind: Remotes[Remote] = Remotes()

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL unless the address is a vxlan:// URL; return it in its one spelling."""
        return super().check(str(parse_vxlan(address)), options)

    # -- coming and going --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Join the network, and take datagrams. Remotes that are names follow when they have been looked up."""
        names = [host for host in self._url.remotes if ip_of(host) is None]
        try:
            for host in self._url.remotes:
                if host not in names:
                    self._reach(numeric(host, self._url.port))
            self._join()
        except OSError:
            self.close()
            raise
        if names:
            self.begin_looking(partial(self._look_up, names))

    def start_again(self) -> None:
        """Join the network. The remotes follow, as soon as our own address is there."""
        self._join()
        self.begin_looking(partial(self._look_up, list(self._url.remotes)))

    def _join(self) -> None:
        share = VxlanShare(self)
        self.port = self.network.join("vxlan", self.peer, lambda: share, description=self.address[:IPN_DESCRLEN])
        self.network.joined(self.port)

    async def _look_up(self, names: list[str], up: Any) -> str:
        while names:
            self._reach(await look_up(names[0], self._url.port, self._url.local))
            names.pop(0)
        up()
        await trio.sleep_forever()
        return ""

    def _reach(self, address: Address) -> None:
        """Have one remote more. EINVAL when it is ourselves, and the errors of ``enter``."""
        local = any_address(address.family, self._url.local, self._url.port)
        refuse_ourselves(local, address)
        if address.family not in self._sockets:
            self._sockets[address.family] = enter(self.host.plane, local, self.peer, self._url.vni, self)
        ttl = struct.pack("=i", self._url.ttl)
        control = ((*TTL[socket.AddressFamily(address.family)], ttl),) if self._url.ttl else ()
        self._remotes[_who(address.sockaddr)] = Remote(self._sockets[address.family], address, control)

    def close(self) -> None:
        """Leave the network and the sockets."""
        super().close()
        sockets, self._sockets = self._sockets, {}
        for shared in sockets.values():
            shared.leave(self._url.vni)

    # -- frames ------------------------------------------------------------------------------------------------------

    def admits(self, source: Source, frame: memoryview, size: int, now: int) -> bool:
        """Tell whether a frame from ``source`` may go on, and learn from it."""
        remote = self._remotes.get(_who(source))
        if remote is None:
            self._refuse("from strangers", f"{source[0]} is none of its remotes")
        elif size <= 0:
            self._refuse("empty", f"from {source[0]}")
        elif size > self.network.delivery.mtu:
            self._refuse("longer than the MTU", f"{size} bytes from {source[0]}")
            if self.port is not None:
                self.port.oversize += 1
        else:
            if size >= ADDRESSES and len(self._remotes) > 1:
                self._behind.learn(bytes(frame[6:ADDRESSES]), remote, now)
            return True
        return False

    def _refuse(self, what: str, detail: str) -> None:
        if self.count(what):
            log.warning("%s: a frame is refused, %s: %s; its like are counted only", self.name, what, detail)

    def take(self, view: memoryview, ends: Ends, run_at: int) -> None:
        """Hand on a run of frames to the network."""
        if self.port is not None and isinstance(self.port.link, VxlanLink):
            self.port.link.take(view, ends, run_at)

    def send(self, frame: memoryview) -> None:
        """Send a frame to the remote that its receiver is behind, or to all.

        BlockingIOError when the kernel takes none now; any other error means that nobody got it.
        """
        behind = self._behind.find(bytes(frame[:6]), time.monotonic_ns()) if len(self._remotes) > 1 else None
        problem, sent = OSError(errno.EHOSTUNREACH, "no remote is known yet"), False
        for remote in self._remotes.values() if behind is None else (behind,):
            try:
                remote.shared.send(self._header, frame, remote.control, remote.address.sockaddr)
                sent = True
            except OSError as error:
                if isinstance(error, BlockingIOError) and not sent:
                    raise  # all of it again; once one has it, the others lose it
                problem = error
                self._not_sent(remote, error)
        if not sent:
            raise problem

    def _not_sent(self, remote: Remote, error: OSError) -> None:
        if self.count(f"not sent: {error.strerror}"):
            log.warning("%s: a frame to %s is lost: %s", self.name, remote.address.sockaddr[0], error.strerror)

    def show(self) -> dict[str, Any]:
        """Return the cable as ``net show --json`` prints it; what its sockets refused is counted for all who share."""
        shown = super().show()
        counts = Counter(shown["counts"])
        for shared in self._sockets.values():
            counts.update(shared.counts)
        if self._behind.full:
            counts["addresses not learned"] = self._behind.full
        return {**shown, "counts": dict(counts)}


def _who(sockaddr: Source) -> Source:
    """Return what tells remotes apart: the host, for IPv6 with its zone; the port may be any."""
    return sockaddr[::3]
