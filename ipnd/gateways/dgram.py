"""Bare datagrams: one unix datagram socket for many programs, told apart by the address each sends from.

What QEMU's ``-netdev dgram`` speaks, and vfkit and libkrun, which say ``VFKT`` first. The kernel vouches for the sender
of each datagram (SCM_CREDENTIALS). Frames go back over a socket that is connected to the member's, whose file so is
looked up once; a member that is itself connected to our address takes frames from that one only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import struct
import sys
import termios
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ipn.framing import LENGTH, PREFIX
from ipnd.access import Peer
from ipnd.fixture import Fixture, Host
from ipnd.identity import sender
from ipnd.plane.batch import Ends
from ipnd.plane.links import SEND_BUFFER, Link
from ipnd.plane.shared import Share, SharedLink

from .modes import socket_mode
from .place import Place, bind_at, check_path
from .reach import connect_datagrams, pin, pinned, shown

if TYPE_CHECKING:
    from ipnd.network import Network
    from ipnd.plane.port import Port

log = logging.getLogger("ipnd.dgram")

BURST: Final = 64
"""Datagrams read in one go; the kernel holds about 11 (net.unix.max_dgram_qlen)."""
HELLO: Final = b"VFKT"
"""What vfkit and libkrun send when they have connected. No frame is so short."""
UCRED: Final = struct.Struct("=iII")
"""struct ucred (unix(7)): pid, uid, gid."""
CONTROL: Final = socket.CMSG_SPACE(UCRED.size)
LOOK_NS: Final = 5_000_000_000
"""How often it is looked whether the members are still there: nobody tells when a datagram socket closes."""
SHARE: Final = 8
"""A member that is connected to our address may be sent one part in so many of the send buffer it shares with others
before it says anything, unless that is …"""
FREE: Final = 2
"""… filled to less than one part in so many: one that is stuck shall not take all of it from the others."""
OVERHEAD: Final = 768
"""What the kernel charges for a datagram besides its bytes, about."""
MAX_REFUSED: Final = 1024
"""Addresses remembered as turned away, so that their next datagrams cost nothing and are not logged again."""


class DatagramShare(Share):
    """How frames go to one member. ``name``: the address that it sends from."""

    def __init__(self, gateway: DatagramGateway, name: bytes, peer: Peer) -> None:
        super().__init__()
        self.name = name
        self.peer = peer
        self._gateway = gateway
        self._holding = False
        self._unheard = 0
        self._pinned = -1 if name.startswith(b"\0") else pin(name, peer)
        try:
            self._own = self._connected()
        except OSError:
            self._let_go()
            raise

    def _connected(self) -> socket.socket | None:
        """Return a socket that is connected to the member's; None when that is itself connected to our address."""
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        own.setblocking(False)
        with contextlib.suppress(OSError):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            connect_datagrams(own, self.name, self.peer)
        except OSError as error:
            own.close()
            if error.errno == errno.EPERM:
                return None
            raise
        return own

    def put(self, message: memoryview) -> None:
        """Send one frame. BlockingIOError when the member's queue is full."""
        if self._own is not None:
            self._own.send(message)
            return
        if self._unheard > self._gateway.share:
            self._gateway.wait_for_room()
            self._unheard = 0
        self._gateway.send_to(message, self._address())
        self._unheard += len(message) + OVERHEAD

    def heard(self) -> None:
        """Note that the member lives: it has sent something."""
        self._unheard = 0

    def _address(self) -> str | bytes:
        return self.name if self._pinned < 0 else pinned(self._pinned)

    def is_there(self) -> bool:
        """Return whether somebody still has the address; also when that cannot be told for want of descriptors."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(self._address())
        except OSError as error:
            return error.errno in (errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
        return True

    def hold(self, hold: bool) -> None:
        """Read nothing, of nobody, while the member is to wait: they share the socket."""
        if hold != self._holding:
            self._holding = hold
            self._gateway.hold(hold)

    def close(self) -> None:
        """Close what frames went over."""
        super().close()
        if self._own is not None:
            self._own.close()
        self._let_go()
        self.hold(False)  # the others need not wait for what it had left to send
        self._gateway.forget(self)

    def _let_go(self) -> None:
        if self._pinned >= 0:
            os.close(self._pinned)
            self._pinned = -1


class DatagramMember(SharedLink):
    """A member behind the gateway's socket."""

    sock: DatagramShare

    def take(self, view: memoryview, ends: Ends, run_at: int = 0) -> None:
        """Hand on what came from the member."""
        self.sock.heard()
        super().take(view, ends, run_at)

    def put(self, message: memoryview) -> None:
        """Send one frame to the member; one whose socket is gone sends nothing more either."""
        try:
            self.sock.put(message)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in self.LOST:
                self.reading = False
            raise


class DatagramGateway(Fixture):
    """A datagram socket at ``address``."""

    group = "gateway"
    kind = "dgram"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"dgram": DatagramMember}

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(host, network, peer, address, options)
        self._sock: socket.socket | None = None
        self._place: Place | None = None
        self._members: dict[bytes, Port] = {}
        self._refused: set[tuple[bytes, int]] = set()
        self._holds = 0
        self.share = self._buffer = 0

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL or ENAMETOOLONG unless the address can be a socket's path."""
        return check_path(super().check(address, options))

    def start(self) -> None:
        """Bind the socket."""
        mode, gid = socket_mode(self.network.file_access())
        sock, self._place = bind_at(self.address, socket.SOCK_DGRAM, self.peer, mode, gid)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self.share = self._buffer // SHARE
        self._sock = sock
        self.host.plane.register(sock.fileno(), select.EPOLLIN, self._ready)
        self._look_later()

    # -- reading -----------------------------------------------------------------------------------------------------

    def _ready(self, mask: int) -> None:
        """Read what is there into the scratch buffer, and hand on what comes from one member together."""
        plane = self.host.plane
        largest = min(self.network.delivery.mtu, plane.scratch_size - PREFIX - 1)
        position = first = 0
        ends: list[int] = []
        current: Port | None = None
        for _ in range(BURST):
            if plane.scratch_size - position < PREFIX + largest + 1:
                break
            body = plane.scratch_view[position + PREFIX : position + PREFIX + largest + 1]
            got, port = self._receive(body)
            if got < 0:
                break
            if port is None or got == 0 or (got == len(HELLO) and bytes(body[:got]) == HELLO):
                continue
            if got > largest:
                port.oversize += 1
                continue
            if port is not current:
                self._hand_on(current, first, position, ends)
                current, first, ends = port, position, []
            LENGTH.pack_into(plane.scratch, position, got)
            position += PREFIX + got
            ends.append(position - first)
        self._hand_on(current, first, position, ends)

    def _receive(self, body: memoryview) -> tuple[int, Port | None]:
        """Read one datagram; return its length (-1: there is none) and whose it is, None for nobody's."""
        if self._sock is None or self._holds:
            return -1, None
        try:
            got, control, _, address = self._sock.recvmsg_into([body], CONTROL)
        except OSError:
            return -1, None
        name = address if isinstance(address, bytes) else os.fsencode(address or "")
        credentials = next((UCRED.unpack(data[: UCRED.size]) for level, kind, data in control
                            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)), None)
        if credentials is None:
            return got, None
        port = self._members.get(name)
        if port is not None and port.link is not None and port.peer.uid == credentials[1]:
            return got, port
        return got, self._join(name, *credentials)

    def _join(self, name: bytes, pid: int, uid: int, gid: int) -> Port | None:
        """Make the sender of a datagram a member; None, counted and logged once, when it cannot be one."""
        if (name, uid) in self._refused:
            self.count("datagrams of those turned away")
            return None
        peer = sender(pid, uid, gid)
        port = None
        try:
            if not name:
                raise OSError(errno.EDESTADDRREQ, "it sends from a socket without an address: bind it to a path first")
            if pid == os.getpid():
                raise OSError(errno.ELOOP, f"{shown(name)} is ipnd's own socket: frames would go round for ever")
            if name in self._members:
                raise OSError(errno.EADDRINUSE, f"{shown(name)} is the address of another user's")
            share = DatagramShare(self, name, peer)
            port = self.network.join_visitor("dgram", peer, share, description=shown(name))
        except OSError as error:
            self.network.refusals.refuse(peer, f"{error.strerror} (by {self.address})")
        if port is None:
            self.count("refused")
            if len(self._refused) < MAX_REFUSED:
                self._refused.add((name, uid))
            return None
        self._members[name] = port
        return port

    def _hand_on(self, port: Port | None, start: int, stop: int, ends: list[int]) -> None:
        if port is not None and isinstance(port.link, DatagramMember) and ends:
            port.link.take(self.host.plane.scratch_view[start:stop], ends, start)

    # -- writing -----------------------------------------------------------------------------------------------------

    def send_to(self, message: memoryview, address: str | bytes) -> None:
        """Send a frame from our own address. BlockingIOError when the member's queue is full."""
        if self._sock is None:
            raise OSError(errno.ENOTCONN, "the gateway is closed")
        self._sock.sendto(message, address)

    def wait_for_room(self) -> None:
        """BlockingIOError when so much of what was sent from our own address is not read that some must wait."""
        if self._sock is not None:
            fcntl.ioctl(self._sock, termios.TIOCOUTQ, queued := bytearray(4))
            if int.from_bytes(queued, sys.byteorder) > self._buffer // FREE:
                raise BlockingIOError(errno.EAGAIN, "its queue is full")

    def hold(self, hold: bool) -> None:
        """Read nothing while any member is to wait."""
        self._holds += 1 if hold else -1
        if self._sock is not None:
            self.host.plane.modify(self._sock.fileno(), 0 if self._holds else select.EPOLLIN)

    # -- coming and going --------------------------------------------------------------------------------------------

    def forget(self, share: DatagramShare) -> None:
        """A member has left."""
        self._members.pop(share.name, None)

    def _look_later(self) -> None:
        self.host.plane.call_at(time.monotonic_ns() + LOOK_NS, self._look)

    def _look(self) -> None:
        """Have members leave whose sockets are gone; who was turned away may try again."""
        if self._sock is None:
            return
        self._refused.clear()
        for port in list(self._members.values()):
            if isinstance(port.link, DatagramMember) and not port.link.sock.is_there():
                self.network.leave(port, "its socket is closed")
        self._look_later()

    def close(self) -> None:
        """Close the socket; its members leave."""
        sock, self._sock = self._sock, None
        if sock is None or self._place is None:
            return
        self.host.plane.unregister(sock.fileno())
        sock.close()
        self._place.remove()
        for port in list(self._members.values()):
            self.network.leave(port, "its gateway is closed")
