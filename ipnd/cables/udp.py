"""A cable of bare frames in UDP datagrams, to one remote: what QEMU's ``-netdev dgram`` and VDE's ``udp://`` speak.

The socket is connected, so that the kernel lets nothing in from elsewhere. A remote that is not there answers with
ICMP errors; these are counted, and the cable goes on.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from ipn.abi import IPN_DESCRLEN
from ipnd.access import Peer
from ipnd.fixture import Host
from ipnd.plane.batch import Ends
from ipnd.plane.hops import CableEnd
from ipnd.plane.links import Link
from ipnd.plane.packet import DatagramLink, MessageWriting

from .addresses import Address, any_address, look_up, numeric, open_udp, refuse_ourselves
from .datagrams import DEPTH, EVERY_ERROR, DatagramCable
from .url import ip_of, parse_udp

if TYPE_CHECKING:
    from ipnd.network import Network

log = logging.getLogger("ipnd.cables")


class UdpLink(CableEnd, DatagramLink):
    """The cable as a member. ``cable`` hears of errors."""

    LOST = EVERY_ERROR
    depth = DEPTH
    cable: UdpCable | None = None
    write_piece = MessageWriting.write_piece  # one by one, so that each error is seen

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.receiver = 0  # who has laid the cable reads nothing

    def on_event(self, mask: int) -> None:
        """Note what ICMP had to say; it ends nothing."""
        if mask & select.EPOLLERR:
            self._complain(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            mask &= ~select.EPOLLERR
        if mask:
            super().on_event(mask)

    def carry(self, view: memoryview, ends: Ends) -> int:
        """Send frames, many with one system call; from the first that meets with an error on, they are queued."""
        return DatagramLink.write(self, view, ends)

    def put(self, message: memoryview) -> None:
        """Send one frame. A call that only reports an earlier frame's error is made again."""
        try:
            self.sock.send(message)
        except BlockingIOError:
            raise
        except OSError as error:
            self._complain(error.errno or 0)
            if error.errno != errno.ECONNREFUSED:
                raise
            self.sock.send(message)

    def _complain(self, number: int) -> None:
        if number and self.cable is not None:
            self.cable.complain(number)


class UdpCable(DatagramCable):
    """A cable to what ``address``, a udp:// URL, names."""

    kind = "udp"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"udp": UdpLink}

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(host, network, peer, address, options)
        self._url = parse_udp(self.address)

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL unless the address is a udp:// URL; return it in its one spelling."""
        return super().check(str(parse_udp(address)), options)

    def start(self) -> None:
        """Join the network; when the remote is a name, or no route leads there, as soon as that can be."""
        if ip_of(self._url.host) is not None:
            try:
                self._plug(numeric(self._url.host, self._url.port))
            except OSError as error:
                if error.errno not in NO_ROUTE:
                    raise
            else:
                return
        self.begin_looking(self._look_up)

    def start_again(self) -> None:
        """Join the network as soon as that can be: our own address may come later than ipnd."""
        self.begin_looking(self._look_up)

    async def _look_up(self, up: Any) -> str:
        self._plug(await look_up(self._url.host, self._url.port, self._url.local))
        up()
        await trio.sleep_forever()
        return ""

    def _plug(self, remote: Address) -> None:
        local = any_address(remote.family, self._url.local, self._url.local_port)
        refuse_ourselves(local, remote)
        sock = open_udp(local, self.peer)
        try:
            _connect(sock, local, remote)
            port = self.network.join("udp", self.peer, lambda: sock, description=self.address[:IPN_DESCRLEN])
        except OSError:
            sock.close()
            raise
        assert isinstance(port.link, UdpLink)
        port.link.cable = self
        self.port = port
        self.network.joined(port)

    def complain(self, number: int) -> None:
        """Count an error of the socket's."""
        what = errno.errorcode.get(number, str(number))
        if self.count(what):
            log.warning("%s: %s; its like are counted only", self.name, COMPLAINTS.get(number, what))


def _connect(sock: socket.socket, local: Address, remote: Address) -> None:
    try:
        sock.connect(remote.sockaddr)
    except OSError as error:
        raise OSError(error.errno, f"no datagrams go from {local} to {remote}: {error.strerror}") from None


NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH})
"""What may be different in a moment, as when the machine has just started."""

COMPLAINTS: Final = {
    errno.ECONNREFUSED: "nobody takes datagrams there now (ICMP); what is sent is lost",
    errno.EMSGSIZE: "a frame is longer than a datagram can be, and lost",
    errno.ENETUNREACH: "no route leads there; what is sent is lost",
    errno.EHOSTUNREACH: "the host cannot be reached; what is sent is lost",
}
