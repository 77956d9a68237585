"""TAP interfaces on a network: the descriptor of /dev/net/tun that a member has opened, and its link.

Each call reads or writes one frame, behind a ``struct virtio_net_hdr`` that says what is left to do to it: the offloads
are on, so that the host's TCP sends 64 KiB at once, and such frames cross whole to who can take them. Where most of
what a TAP sends has to be cut, its kernel is asked to do that: it is faster at it than we are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable
from itertools import repeat
from typing import TYPE_CHECKING, Final

from ipn.framing import LENGTH, PREFIX
from ipn.netdev import (
    IFF_NO_PI,
    IFF_TAP,
    IFF_VNET_HDR,
    TUN_F_CSUM,
    TUN_F_TSO4,
    TUN_F_TSO6,
    TUN_F_TSO_ECN,
    TUN_F_USO4,
    TUN_F_USO6,
    TUNGETIFF,
    TUNSETOFFLOAD,
    TUNSETOWNER,
    TUNSETPERSIST,
    TUNSETVNETHDRSZ,
    set_mac,
)
from ipn.netlink import IFREQ
from ipnd.plane.batch import Ends
from ipnd.plane.gso import HEADER, PLAIN, surely_fits
from ipnd.plane.links import Link
from ipnd.plane.offload import is_unfinished, segment_length

from .closing import close_aside

if TYPE_CHECKING:
    from ipnd.plane.delivery import Delivery, Unfinished
    from ipnd.plane.plane import Plane
    from ipnd.plane.port import Port

LARGEST: Final = 65_536 + 18
"""Bytes of the largest frame that the kernel gives: an IP packet and its Ethernet header with a VLAN tag."""
SHORTEST: Final = 14
"""Bytes of the Ethernet header: the kernel gives no shorter frame, unless who opened the descriptor sees to it."""
VLAN_TAG: Final = 4
"""Bytes that a frame of an interface may be longer than the network's MTU when they are a tag's."""
TAGS: Final = (b"\x81\x00", b"\x88\xa8")
EVERYTHING: Final = 1 << 30
"""Room of a TAP: the kernel takes or drops a frame at once, so it is never full."""
MODE: Final = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
OFFLOADS: Final = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
UDP_OFFLOADS: Final = TUN_F_USO4 | TUN_F_USO6
"""Cutting of UDP, since Linux 6.2."""
JUDGE_BYTES: Final = 1024 * 1024
"""Bytes of frames to be cut after which it is judged who had better cut."""
BURST: Final = 256
"""Frames read in one go, at about a microsecond each."""
ALONE: Final = 8
"""Frames that come alone, as in conversations, before it is tried again whether another is behind one."""
LOOK_AGAIN_NS: Final = 1_000_000_000
"""After that time frames are asked for whole again, to see who would take them; doubled each time nothing changed …"""
LOOK_AGAIN_MAX_NS: Final = 64_000_000_000
"""… up to this."""
RETIRED: Final = frozenset({errno.EBADFD, errno.EBADF, errno.ENODEV})
"""Errors that mean that the interface is no more."""


class Tap:
    """The descriptor of a TAP. Owns ``fd``. ``OSError`` EINVAL when it is none, or not in the mode that we need."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        name, flags = self._request()
        if flags & MODE != MODE:
            text = "attach: the TAP must be opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"
            raise OSError(errno.EINVAL, text)
        self.opened_as = name
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER))
        os.set_blocking(fd, False)
        self.set_offloads(on=True)

    def _request(self) -> tuple[str, int]:
        try:
            name, rest = IFREQ.unpack(fcntl.ioctl(self._fd, TUNGETIFF, bytes(IFREQ.size)))
        except OSError:
            raise OSError(errno.EINVAL, "attach: the first descriptor is no TAP") from None
        return name.split(b"\0")[0].decode("utf-8", "replace"), struct.unpack_from("H", rest)[0]

    @property
    def name(self) -> str | None:
        """What the interface is called now, in whatever namespace it is; None when it is no more."""
        try:
            return self._request()[0]
        except OSError:
            return None

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; the interface goes unless it is persistent."""
        if self._fd >= 0:
            os.close(self.detach())

    def detach(self) -> int:
        """Return the descriptor, which is the caller's from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def set_offloads(self, *, on: bool) -> None:
        """Ask the kernel for frames as they are, to be finished by whoever sends them on, or for finished ones."""
        try:
            fcntl.ioctl(self._fd, TUNSETOFFLOAD, OFFLOADS | UDP_OFFLOADS if on else 0)
        except OSError:
            fcntl.ioctl(self._fd, TUNSETOFFLOAD, OFFLOADS if on else 0)

    def set_mac(self, mac: str) -> None:
        """Give the interface another MAC address: EINVAL for what is none."""
        set_mac(self._fd, mac)

    def set_persistent(self, on: bool) -> None:
        """Have the interface outlive the descriptor, for this process's user to open again; or not."""
        if on:
            fcntl.ioctl(self._fd, TUNSETOWNER, os.geteuid())
        fcntl.ioctl(self._fd, TUNSETPERSIST, int(on))


class TapLink(Link):
    """A TAP: one frame a call, in either direction; nothing ever waits for it."""

    sock: Tap
    takes_unfinished = True

    def __init__(self, plane: Plane, sock: Tap, delivery: Delivery, port: Port) -> None:
        super().__init__(plane, sock, delivery, port)
        self.receiver = 0
        self._header = bytearray(HEADER)
        self._now = _nowait(sock.fileno())
        self._whole = self._cut = 0
        self._alone = 0
        self._look_again = 0
        self._patience = LOOK_AGAIN_NS

    def close_endpoint(self) -> None:
        """Close the descriptor, and so end the interface, without waiting for it."""
        close_aside(self.sock.detach())

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read a batch of frames, each straight behind the gap for its length."""
        if self._look_again:
            self._ask_for_whole_frames_again()
        plane, header, scratch = self.plane, self._header, self.plane.scratch
        view = plane.scratch_view
        last = plane.scratch_size - LARGEST - PREFIX
        position = 0
        ends: list[int] = []
        headers: dict[int, bytes] = {}
        lengths: set[int] = set()
        mtu = self.delivery.mtu
        try:
            for _ in range(BURST):
                if position > last:
                    break
                frame = view[position + PREFIX : position + PREFIX + LARGEST]
                got = self._read(header, frame) - HEADER
                if got < SHORTEST:
                    continue
                if header != PLAIN and is_unfinished(now := bytes(header)):
                    if not surely_fits(frame, now, mtu) and not self._fits(frame, segment_length(frame[:got], now)):
                        continue
                    headers[len(ends)] = now
                elif got > mtu and not self._fits(frame, got):
                    continue
                lengths.add(got)
                LENGTH.pack_into(scratch, position, got)
                position += PREFIX + got
                ends.append(position)
                if self._alone:
                    self._alone -= 1
                    break
        except BlockingIOError:
            self._alone = ALONE if len(ends) == 1 else 0
        except OSError as error:
            self._failed(error)
        if ends and self.sock.fileno() >= 0:
            self.run_at = 0
            if headers:
                delivery = self.delivery
                whole, finished = delivery.whole_bytes, delivery.finished_bytes
                delivery.forward_unfinished(self, view[:position], ends, headers)
                self._judge(delivery.whole_bytes - whole, delivery.finished_bytes - finished)
            else:
                regular = len(lengths) == 1
                self.delivery.forward(self, view[:position], range(ends[0], position + 1, ends[0]) if regular else ends)

    def _read(self, header: bytearray, frame: memoryview) -> int:
        return os.preadv(self.sock.fileno(), (header, frame), -1, self._now)

    def _fits(self, frame: memoryview, length: int) -> bool:
        """Return whether a frame is within the network's MTU, or longer by no more than a VLAN tag; else count it."""
        mtu = self.delivery.mtu
        if 0 < length <= mtu or (0 < length <= mtu + VLAN_TAG and bytes(frame[12:14]) in TAGS):
            return True
        self.port.oversize += 1
        return False

    def _failed(self, error: OSError) -> None:
        if error.errno in RETIRED:
            self._hung_up()

    def _hung_up(self) -> None:
        """The interface was deleted, by whomever, or has only been moved: its network finds out."""
        self.reading = False
        if self.port.interface is not None:
            self.port.interface.on_gone()

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, view: memoryview, ends: Ends) -> int:
        """Write frames; the kernel takes them all, or it will never take them."""
        self._put(view, 0, zip(repeat(PLAIN), ends), len(ends))
        return len(ends)

    def write_unfinished(self, run: Unfinished) -> int:
        """Write frames whole, each with what is left to do to it."""
        start = run.ends[run.first - 1] if run.first else 0
        header = run.headers.get
        frames = [(header(index, PLAIN), run.ends[index]) for index in range(run.first, run.upto)]
        self.delivery.whole_bytes += self._put(run.view, start, frames, len(frames))
        return run.upto

    def _put(self, view: memoryview, start: int, frames: Iterable[tuple[bytes, int]], count: int) -> int:
        """Write ``count`` frames that lie in ``view`` from ``start`` on, given as (header, end); return their bytes."""
        fd, now, writev = self.sock.fileno(), self._now, os.pwritev
        begin = start
        lost = lost_bytes = 0
        for header, end in frames:
            try:
                writev(fd, (header, view[start + PREFIX : end]), -1, now)
            except OSError as error:
                lost += 1
                lost_bytes += end - start
                if error.errno in RETIRED:
                    self.delivery.broken(self)
            start = end
        self.port.dropped += lost
        self.sent(count - lost, start - begin - lost_bytes)
        return start - begin

    def room(self) -> int:
        """Return that there is always room."""
        return EVERYTHING

    def write_queue(self) -> None:
        """Do nothing: nothing is ever queued, but what a network's end may have left."""
        self.discard()

    def send_marker(self) -> None:
        """Do nothing: an interface hears of no notices."""

    def drain(self) -> None:
        """Leave at once: what the host has not sent yet, it has not sent."""
        self.delivery.gone(self)

    # -- who cuts ----------------------------------------------------------------------------------------------------

    def _judge(self, whole: int, finished: int) -> None:
        """Have the kernel finish frames when more of them had to be finished (bytes) than crossed whole."""
        self._whole += whole
        self._cut += finished
        if self._whole + self._cut < JUDGE_BYTES:
            return
        if self._cut > self._whole:
            self.sock.set_offloads(on=False)
            self._look_again = time.monotonic_ns() + self._patience
            self._patience = min(2 * self._patience, LOOK_AGAIN_MAX_NS)
        else:
            self._patience = LOOK_AGAIN_NS
        self._whole = self._cut = 0

    def _ask_for_whole_frames_again(self) -> None:
        if time.monotonic_ns() >= self._look_again:
            self._look_again = 0
            self.sock.set_offloads(on=True)


def _nowait(fd: int) -> int:
    """Return the flag that keeps calls from waiting, whatever who opened the descriptor makes of it; 0 if unknown here.

    A write that is too short for a frame tells: the kernel looks at the flag first.
    """
    try:
        os.pwritev(fd, (b"\0",), -1, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return 0
    return os.RWF_NOWAIT
