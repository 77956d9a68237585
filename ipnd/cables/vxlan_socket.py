"""The UDP sockets of VXLAN cables: one for each local address and port, shared by all VNIs and networks of the daemon.

A datagram is read with its header beside the plane's scratch buffer and its frame into it, so that frames of one cable
lie there as one run. What belongs to no cable here is counted; the first of a kind is worth a line in the log.
"""

from __future__ import annotations

import errno
import logging
import select
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from ipn.framing import LENGTH, PREFIX
from ipnd.access import Peer
from ipnd.plane.batch import Ends
from ipnd.plane.plane import Plane

from .addresses import Address, open_udp
from .vxlan_header import HEADER, HeaderError, decode_header

log = logging.getLogger("ipnd.cables")

BURST: Final = 128
"""Datagrams read in one go."""
LARGEST: Final = 65_536
"""Bytes kept free for a frame: no datagram brings more."""

Source = tuple[Any, ...]


class Tunnel(Protocol):
    """The cable that a VNI belongs to."""

    @property
    def name(self) -> str:
        """What people know it by."""

    def admits(self, source: Source, frame: memoryview, size: int, now: int) -> bool:
        """Tell whether ``frame[:size]``, which came from the address ``source``, may go on."""

    def take(self, view: memoryview, ends: Ends, run_at: int) -> None:
        """Hand on a run of admitted frames."""


class VxlanSocket:
    """One socket. ``counts``: what came and was nobody's, by reason."""

    def __init__(self, plane: Plane, local: Address, peer: Peer) -> None:
        self.counts: dict[str, int] = {}
        self.local = local
        self._plane = plane
        self._tunnels: dict[int, Tunnel] = {}
        self._header = bytearray(HEADER.size)
        self._sock = open_udp(local, peer)
        plane.register(self._sock.fileno(), select.EPOLLIN, self._ready)

    def send(self, header: bytes, frame: memoryview, control: Sequence[tuple[int, int, bytes]], to: Source) -> None:
        """Send one frame. BlockingIOError when the kernel takes none now, and whatever else it says."""
        self._sock.sendmsg((header, frame), control, 0, to)

    def _ready(self, mask: int) -> None:
        """Read what is there, and hand on what belongs to one cable together."""
        plane, now = self._plane, time.monotonic_ns()
        position = first = 0
        ends: list[int] = []
        current: Tunnel | None = None
        for _ in range(BURST):
            if plane.scratch_size - position < PREFIX + LARGEST:
                break
            body = plane.scratch_view[position + PREFIX : position + PREFIX + LARGEST]
            try:
                got, _, _, source = self._sock.recvmsg_into((self._header, body))
            except OSError:  # there is no more, or the end of a cable has closed the socket
                break
            tunnel, size = self._whose(got, source), got - HEADER.size
            if tunnel is None or not tunnel.admits(source, body, size, now):
                continue
            if tunnel is not current:
                self._hand_on(current, first, position, ends)
                current, first, ends = tunnel, position, []
            LENGTH.pack_into(plane.scratch, position, size)
            position += PREFIX + size
            ends.append(position - first)
        self._hand_on(current, first, position, ends)

    def _whose(self, got: int, source: Source) -> Tunnel | None:
        """Return the cable that the datagram just read belongs to; None, counted, when there is none."""
        try:
            vni = decode_header(self._header, got)
        except HeaderError as error:
            self._refuse(str(error), source)
            return None
        tunnel = self._tunnels.get(vni)
        if tunnel is None:
            self._refuse("of another VNI", source, f" ({vni})")
        return tunnel

    def _refuse(self, what: str, source: Source, detail: str = "") -> None:
        before = self.counts.get(what, 0)
        self.counts[what] = before + 1
        if not before:
            log.warning(
                "vxlan at %s: a datagram from %s %s%s is ignored; its like are counted only",
                self.local, source[0], what, detail,
            )

    def _hand_on(self, tunnel: Tunnel | None, start: int, stop: int, ends: list[int]) -> None:
        if tunnel is not None and ends:
            tunnel.take(self._plane.scratch_view[start:stop], ends, start)

    # -- who shares it -----------------------------------------------------------------------------------------------

    def enter(self, vni: int, tunnel: Tunnel) -> None:
        """Let a cable have a VNI. EADDRINUSE when another has it."""
        other = self._tunnels.get(vni)
        if other is not None:
            raise OSError(errno.EADDRINUSE, f"VNI {vni} at {self.local} belongs to the cable {other.name} already")
        self._tunnels[vni] = tunnel

    def leave(self, vni: int) -> None:
        """A cable has ended; with the last the socket closes."""
        del self._tunnels[vni]
        if not self._tunnels:
            self._plane.unregister(self._sock.fileno())
            self._sock.close()
            del _sockets[self._plane][self.local]


_sockets: Final[WeakKeyDictionary[Plane, dict[Address, VxlanSocket]]] = WeakKeyDictionary()
"""The sockets of each loop. A loop belongs to one daemon."""


def enter(plane: Plane, local: Address, peer: Peer, vni: int, tunnel: Tunnel) -> VxlanSocket:
    """Return the socket at ``local`` on which ``tunnel`` now has ``vni``; opened for ``peer`` when it is the first.

    Errors: those of ``open_udp`` and of ``VxlanSocket.enter``.
    """
    sockets = _sockets.setdefault(plane, {})
    if local not in sockets:
        sockets[local] = VxlanSocket(plane, local, peer)
    shared = sockets[local]
    shared.enter(vni, tunnel)
    return shared
