"""A network as a VDE switch: ``DIR/ctl`` takes VDE's requests, frames go over datagram sockets, ``DIR.mgmt`` is the
text console.

Unmodified clients of libvdeplug (vde_plug, QEMU, User-Mode Linux, wirefilter …) become members. Each keeps its
connection to ``DIR/ctl`` for as long as it stays, and has a data socket of ours in DIR beside it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import socket
import stat
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ipnd.access import Peer
from ipnd.fixture import Fixture, Host
from ipnd.ownership import acting_as
from ipnd.plane.links import Link
from ipnd.plane.packet import DatagramLink

from .acceptor import Acceptor
from .console import ConsoleConnection
from .modes import directory_mode, socket_mode
from .place import BACKLOG, Place, bind_at, check_path, is_alive, remove_file, require_identity
from .reach import connect_datagrams
from .vderequest import MAX_REQUEST, Request, RequestError, decode_request, encode_reply

if TYPE_CHECKING:
    from ipnd.network import Network
    from ipnd.plane.port import Port

log = logging.getLogger("ipnd.vde")

LONGEST: Final = 85
"""Longest path of DIR, in bytes, that leaves room in a sockaddr_un for what clients and we put into it."""
REQUEST_NS: Final = 10_000_000_000
"""Nanoseconds that a client has for its request."""
DATA_SOCKETS: Final = re.compile(r"[0-9]{3,}\.[0-9]+|\.[0-9]{5,}-[0-9]{5}")
"""The names of our data sockets (port, dot, descriptor, as vde_switch has them) and of libvdeplug's."""


class VdeLink(DatagramLink):
    """A client's data sockets. ``client``: the connection that says when it goes."""

    client: VdeClient | None = None

    def close_endpoint(self) -> None:
        """Close the data socket, and with it the client's connection."""
        super().close_endpoint()
        if self.client is not None:
            self.client.close()


class VdeGateway(Fixture):
    """VDE's sockets in the directory ``address``, which without symbolic links is ``directory``."""

    group = "gateway"
    kind = "vde"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"vde": VdeLink}

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(host, network, peer, address, options)
        self.clients: set[VdeClient] = set()
        self.consoles: set[ConsoleConnection] = set()
        self.directory = self.address
        self._made_directory = False
        self._doors: list[tuple[socket.socket, Place, Acceptor]] = []

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL or ENAMETOOLONG unless the address can be the path of such a directory."""
        return check_path(super().check(address, options), LONGEST)

    def start(self) -> None:
        """Make the directory, unless it is there, and listen in it; the console is beside it."""
        require_identity(self.peer)
        self._directory()
        self.directory = os.path.realpath(self.address)
        try:
            self._listen(f"{self.address}/ctl", self._called)
        except BaseException:
            self.close()
            raise
        try:
            self._listen(f"{self.address}.mgmt", self._console)
        except OSError as error:
            self.problem = f"no console: {error.strerror}"
            log.warning("%s: %s", self.address, self.problem)

    def _directory(self) -> None:
        mode, gid = directory_mode(self.network.file_access())
        with acting_as(self.peer.uid, self.peer.gid):
            try:
                os.mkdir(self.address, 0o700)
            except FileExistsError:
                self._take_over_directory()
            except OSError as error:
                why = f"cannot make the directory {self.address}: {error.strerror}"
                raise OSError(error.errno, why) from None
            else:
                self._made_directory = True
                os.chmod(self.address, mode)
                with contextlib.suppress(PermissionError):
                    os.chown(self.address, -1, gid)  # only a member of the group may give it to the group

    def _take_over_directory(self) -> None:
        """Use a directory that is there, without what a killed ipnd has left in it."""
        info = os.lstat(self.address)
        if not stat.S_ISDIR(info.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no directory"
            raise FileExistsError(errno.EEXIST, f"{self.address} is in the way: it is {what}")
        if is_alive(f"{self.address}/ctl"):
            raise OSError(errno.EADDRINUSE, f"somebody serves {self.address} already")
        names = os.listdir(self.address)
        for path in (os.path.join(self.address, name) for name in names if DATA_SOCKETS.fullmatch(name)):
            with contextlib.suppress(PermissionError, FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(path).st_mode) and not is_alive(path):
                    os.unlink(path)
        self._made_directory = "ctl" in names  # by an ipnd that was killed: it goes with us when nothing else is in it

    def _listen(self, path: str, take: Any) -> None:
        mode, gid = socket_mode(self.network.file_access())
        listener, place = bind_at(path, socket.SOCK_STREAM, self.peer, mode, gid)
        listener.listen(BACKLOG)
        self._doors.append((listener, place, Acceptor(self.host.plane, listener, path, take)))

    def _called(self, sock: socket.socket, peer: Peer) -> None:
        self.clients.add(VdeClient(self, sock, peer))

    def _console(self, sock: socket.socket, peer: Peer) -> None:
        if not any(self.network.rights(peer)):
            self.network.refusals.refuse(peer, "it has no permission at all, so no console either")
            sock.close()
            return
        self.consoles.add(ConsoleConnection(self.host.plane, sock, peer, self.network, self.consoles.discard))

    def refuse(self, peer: Peer, why: str) -> None:
        """Count a client that is turned away, and say so."""
        self.count("refused")
        self.network.refusals.refuse(peer, f"{why} (by {self.address})")

    def close(self) -> None:
        """Stop listening, put the clients out, and remove what was made."""
        doors, self._doors = self._doors, []
        for listener, place, acceptor in doors:
            acceptor.close()
            listener.close()
            place.remove()
        for client in list(self.clients):
            client.put_out("its gateway is closed")
        for console in list(self.consoles):
            console.close()
        if self._made_directory:
            self._made_directory = False
            with contextlib.suppress(OSError), acting_as(self.peer.uid, self.peer.gid):
                os.rmdir(self.address)


class VdeClient:
    """A connection to ``DIR/ctl``: waits for a request, then holds the member until it closes. Owns ``sock``."""

    def __init__(self, gateway: VdeGateway, sock: socket.socket, peer: Peer) -> None:
        self._gateway = gateway
        self._network = gateway.network
        self._plane = gateway.host.plane
        self._sock = sock
        self._peer = peer
        self._port: Port | None = None
        self._place: Place | None = None
        self._theirs: tuple[str, tuple[int, int]] | None = None
        sock.setblocking(False)
        self._plane.register(sock.fileno(), select.EPOLLIN | select.EPOLLRDHUP, self._ready)
        self._plane.call_at(time.monotonic_ns() + REQUEST_NS, self._late)

    def _ready(self, mask: int) -> None:
        try:
            data = self._sock.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hung_up()
        elif self._port is None:
            self._asked(data)

    def _asked(self, data: bytes) -> None:
        try:
            self._join(decode_request(data))
        except RequestError as error:
            self._gateway.refuse(self._peer, str(error))
            self.close()
        except OSError as error:
            self._gateway.refuse(self._peer, str(error.strerror))
            self.close()

    def _join(self, request: Request) -> None:
        """Make the client a member: our data socket is connected to its own before anything else."""
        data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            connect_datagrams(data, request.path, self._peer)
            self._remember(request.path)
            port = self._network.join(
                "vde", self._peer, lambda: data, wanted=request.port, description=request.description
            )
        except BaseException:
            data.close()
            raise
        self._port = port
        assert isinstance(port.link, VdeLink)
        port.link.client = self
        if not port.writer:
            data.shutdown(socket.SHUT_RD)  # the kernel tells a member that sends nevertheless: EPIPE
        self._network.anchor(port, True)
        try:
            self._answer(data, port.number)
        except OSError:
            self._network.leave(port, "it has not heard the answer")
            raise
        self._network.joined(port)

    def _remember(self, path: bytes) -> None:
        """Note the client's socket in our directory: one that is killed leaves it there."""
        name = os.fsdecode(path)
        if os.path.dirname(name) in (self._gateway.address, self._gateway.directory):
            with contextlib.suppress(OSError):
                info = os.lstat(name)
                self._theirs = (name, (info.st_dev, info.st_ino))

    def _answer(self, data: socket.socket, number: int) -> None:
        """Give our data socket a name that the client may connect to, and tell it."""
        path = f"{self._gateway.address}/{number:03d}.{data.fileno()}"
        owner = self._gateway.peer
        with acting_as(owner.uid, owner.gid):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            data.bind(path)
            info = os.lstat(path)
            self._place = Place(path, owner, (info.st_dev, info.st_ino))
            os.chmod(path, 0o666)  # it takes datagrams from the one socket that it is connected to, whoever may write
        self._sock.send(encode_reply(os.fsencode(path)))

    def _late(self) -> None:
        if self._port is None and self._sock.fileno() >= 0:
            self._gateway.refuse(self._peer, "it has asked for nothing")
            self.close()

    def _hung_up(self) -> None:
        """The client has gone: what it has sent before is still delivered."""
        port = self._port
        if port is None or port.link is None:
            self.close()
            return
        self._plane.unregister(self._sock.fileno())
        self._sock.close()
        port.link.drain()

    def put_out(self, why: str) -> None:
        """End the membership."""
        if self._port is not None and self._port.link is not None:
            self._network.leave(self._port, why)
        else:
            self.close()

    def close(self) -> None:
        """Close the connection, and remove the data sockets that lie in our directory. May be called twice."""
        self._gateway.clients.discard(self)
        if self._sock.fileno() >= 0:
            self._plane.unregister(self._sock.fileno())
            self._sock.close()
        if self._place is not None:
            self._place.remove()
            self._place = None
        if self._theirs is not None:
            remove_file(*self._theirs, self._peer)
            self._theirs = None
