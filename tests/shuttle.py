"""Carries frames between TAP interfaces and a network of ours: ``tests.lab`` runs it inside a network namespace.

``shuttle.py PATH eth0 [eth0.10=10 …]``: PATH is the network's socket; ``NAME=VID`` is a TAP whose frames get the 802.1Q
tag VID on their way out and lose it on their way in. Written without ``ipn``, as a guest's hypervisor would be.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
from typing import Final

TUNSETIFF: Final = 0x400454CA
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
LARGEST: Final = 65_536


def open_tap(name: str) -> int:
    """Make the TAP interface ``name`` and return its descriptor (Documentation/networking/tuntap.rst)."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def tag_of(frame: bytes) -> int | None:
    """Return the VLAN of a tagged frame, None without a tag."""
    return int.from_bytes(frame[14:16], "big") & 0xFFF if frame[12:14] == b"\x81\x00" else None


class Shuttle:
    """One raw member connection and its TAPs, by VLAN (None: frames as they are)."""

    def __init__(self, path: str, taps: dict[int | None, int]) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        self.taps = taps
        self.buffer = bytearray()

    def run(self) -> None:
        """Carry frames until the network ends."""
        poll = select.epoll()
        vlan_of = {fd: vlan for vlan, fd in self.taps.items()}
        for fd in (self.sock.fileno(), *vlan_of):
            poll.register(fd, select.EPOLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd in vlan_of:
                    self.to_network(os.read(fd, LARGEST), vlan_of[fd])
                elif not self.from_network():
                    return

    def to_network(self, frame: bytes, vlan: int | None) -> None:
        """Send what a TAP gave."""
        if vlan is not None:
            frame = frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]
        self.sock.sendall(struct.pack(">I", len(frame)) + frame)

    def from_network(self) -> bool:
        """Give what has arrived to the TAPs; False at the end of the network."""
        data = self.sock.recv(LARGEST)
        self.buffer += data
        while len(self.buffer) >= 4:
            end = 4 + int.from_bytes(self.buffer[:4], "big")
            if len(self.buffer) < end:
                break
            self.to_tap(bytes(self.buffer[4:end]))
            del self.buffer[:end]
        return bool(data)

    def to_tap(self, frame: bytes) -> None:
        """Give one frame to the TAP of its VLAN, or to the plain one."""
        vlan = tag_of(frame)
        try:
            if vlan is not None and vlan in self.taps:
                os.write(self.taps[vlan], frame[:12] + frame[16:])
            else:
                os.write(self.taps[None], frame)
        except OSError:
            pass  # the interface is down, or the frame too short for one: lost, as on a wire


def main(path: str, *names: str) -> None:
    """Make the TAPs, join the network, say so, carry frames."""
    taps: dict[int | None, int] = {}
    for spec in names:
        name, _, vlan = spec.partition("=")
        taps[int(vlan) if vlan else None] = open_tap(name)
    shuttle = Shuttle(path, taps)
    print("ready", flush=True)
    shuttle.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
