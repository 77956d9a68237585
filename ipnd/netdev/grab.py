"""Grabbed interfaces: the packet socket (AF_PACKET) that a member has bound to one, and its link.

Frames come and go behind a ``struct virtio_net_hdr``, as with a TAP, so that what the interface's driver left to be
cut or checksummed may stay so. The kernel takes a VLAN tag out of the frame and tells it beside the frame: it is put
back. Whatever the network sends goes out on the wire only, and whatever comes goes to the host's own stack as well.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final

from ipn.framing import LENGTH, PREFIX
from ipn.netdev import PACKET_AUXDATA, PACKET_VNET_HDR, SOL_PACKET
from ipnd.plane.gso import HEADER, PLAIN
from ipnd.plane.offload import is_unfinished, segment_length, tagged
from ipnd.plane.packet import MessageLink

from .closing import close_aside
from .tap import BURST, LARGEST, SHORTEST, TAGS, VLAN_TAG

if TYPE_CHECKING:
    from ipnd.plane.delivery import Delivery, Unfinished
    from ipnd.plane.plane import Plane
    from ipnd.plane.port import Port

AUXDATA: Final = struct.Struct("=IIIHHHH")
"""``struct tpacket_auxdata``: status, len, snaplen, mac, net, vlan_tci, vlan_tpid (linux/if_packet.h)."""
TP_STATUS_VLAN_VALID: Final = 1 << 4
TP_STATUS_VLAN_TPID_VALID: Final = 1 << 6
ETH_P_8021Q: Final = 0x8100
ADDRESSES: Final = 12
"""Bytes in front of a VLAN tag: the two MAC addresses."""
ANCILLARY: Final = socket.CMSG_SPACE(AUXDATA.size)
WAIT_NOT: Final = socket.MSG_DONTWAIT


def check_packet_socket(sock: socket.socket) -> str:
    """Return the name of the interface that a packet socket is bound to; EINVAL unless it is one, bound and raw."""
    try:
        bound = sock.family == socket.AF_PACKET and sock.type == socket.SOCK_RAW and sock.getsockname()
    except OSError:
        bound = False
    if not bound or not bound[0]:
        raise OSError(errno.EINVAL, "attach: the first descriptor must be a packet socket bound to an interface")
    try:
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    except OSError as error:
        raise OSError(errno.EINVAL, f"attach: the packet socket cannot be used: {error.strerror}") from None
    return str(bound[0])


class GrabLink(MessageLink):
    """A grabbed interface: one frame a call, in either direction."""

    takes_unfinished = True
    # It is down or gone (``Interface`` says which), or does not take such a frame.
    LOST = MessageLink.LOST | {errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.EINVAL}

    def __init__(self, plane: Plane, sock: socket.socket, delivery: Delivery, port: Port) -> None:
        super().__init__(plane, sock, delivery, port)
        self.receiver = 0
        self._header = bytearray(HEADER)

    def close_endpoint(self) -> None:
        """Close the socket, and so let the interface go, without waiting for it."""
        close_aside(self.sock.detach())

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read a batch of frames, each straight behind the gap for its length."""
        plane, header, scratch = self.plane, self._header, self.plane.scratch
        view = plane.scratch_view
        last = plane.scratch_size - LARGEST - PREFIX
        position = 0
        ends: list[int] = []
        headers: dict[int, bytes] = {}
        receive = self.sock.recvmsg_into
        try:
            for _ in range(BURST):
                if position > last:
                    break
                frame = view[position + PREFIX : position + PREFIX + LARGEST]
                got, ancillary, flags, _ = receive((header, frame), ANCILLARY, WAIT_NOT)
                got -= HEADER
                if got < SHORTEST:
                    continue
                now = PLAIN if header == PLAIN else bytes(header)
                for _, _, data in ancillary:
                    if tag := _tag(data):
                        frame[ADDRESSES + VLAN_TAG : got + VLAN_TAG] = frame[ADDRESSES:got]
                        frame[ADDRESSES : ADDRESSES + VLAN_TAG] = tag
                        got, now = got + VLAN_TAG, tagged(now)
                unfinished = is_unfinished(now)
                length = segment_length(frame[:got], now) if unfinished else got
                if length > self._longest(frame) or length <= 0 or flags & socket.MSG_TRUNC:
                    self.port.oversize += 1
                    continue
                if unfinished:
                    headers[len(ends)] = now
                LENGTH.pack_into(scratch, position, got)
                position += PREFIX + got
                ends.append(position)
        except BlockingIOError:
            pass
        except OSError as error:
            self._failed(error)
        if not ends or self.sock.fileno() < 0:
            return
        self.run_at = 0
        if headers:
            self.delivery.forward_unfinished(self, view[:position], ends, headers)
        else:
            self.delivery.forward(self, view[:position], ends)

    def _longest(self, frame: memoryview) -> int:
        """Return how long a frame may be: as the network's MTU says, and a VLAN tag more when it has one."""
        return self.delivery.mtu + (VLAN_TAG if bytes(frame[ADDRESSES : ADDRESSES + 2]) in TAGS else 0)

    def _failed(self, error: OSError) -> None:
        """Leave unless the interface is only down: then its next frame comes when it is up again."""
        if error.errno != errno.ENETDOWN or not self.still_bound():
            self._gone()

    def _hung_up(self) -> None:
        """Do the same while nothing is read from the interface; asking for the error clears it."""
        self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not self.still_bound():
            self._gone()

    def _gone(self) -> None:
        self.reading = False
        if self.port.interface is not None:
            self.port.interface.on_gone()

    def still_bound(self) -> bool:
        """Return whether the interface is still there, in the namespace where it was grabbed."""
        try:
            return bool(self.sock.getsockname()[0])
        except OSError:
            return False

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, message: memoryview) -> None:
        """Give one finished frame to the kernel."""
        self.sock.sendmsg((PLAIN, message), (), WAIT_NOT)

    def write_unfinished(self, run: Unfinished) -> int:
        """Write frames, each with what is left to do to it, until the kernel's queue is full."""
        view, headers, sendmsg = run.view, run.headers, self.sock.sendmsg
        start = run.ends[run.first - 1] if run.first else 0
        size = lost = 0
        index = run.first
        try:
            for index in range(run.first, run.upto):
                end = run.ends[index]
                try:
                    sendmsg((headers.get(index, PLAIN), view[start + PREFIX : end]), (), WAIT_NOT)
                    size += end - start
                except OSError as error:
                    if error.errno not in self.LOST:
                        raise
                    lost += 1
                start = end
            index = run.upto
        except BlockingIOError:
            pass
        except OSError:
            self.delivery.broken(self)
            index = run.upto
        self.port.dropped += lost
        self.delivery.whole_bytes += size
        self.sent(index - run.first - lost, size)
        return index

    def send_marker(self) -> None:
        """Do nothing: an interface hears of no notices."""

    def stop_reading(self) -> None:
        """Take nothing more from the interface."""
        self.reading = False
        self.update_interest()

    def drain(self) -> None:
        """Leave at once."""
        self.delivery.gone(self)


def _tag(auxdata: bytes) -> bytes:
    """Return the VLAN tag that the kernel took out of a frame, as it was in it; empty when there was none."""
    if len(auxdata) < AUXDATA.size:
        return b""
    status, _, _, _, _, tci, tpid = AUXDATA.unpack_from(auxdata)
    if not status & TP_STATUS_VLAN_VALID:
        return b""
    return struct.pack(">HH", tpid if status & TP_STATUS_VLAN_TPID_VALID else ETH_P_8021Q, tci)


