"""Frames on the standard input and output of VDE's programs: each behind its length in two bytes, big-endian."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import Final

from tests.raw import RawMember

SIZES: Final = (60, 590, 1514)


class Plug:
    """A program that has frames on its standard input and output."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def send_frame(self, data: bytes) -> None:
        """Write one frame."""
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack(">H", len(data)) + data)

    def recv_frame(self) -> bytes:
        """Read one frame."""
        return self._read(struct.unpack(">H", self._read(2))[0])

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        data = b""
        while len(data) < size:
            piece = self.process.stdout.read(size - len(data))
            assert piece, f"it has ended with {self.process.wait()}"
            data += piece
        return data


def frame(size: int, sender: int) -> bytes:
    """Return a broadcast frame."""
    return b"\xff" * 6 + bytes((2, 0, 0, 0, 0, sender)) + b"\x88\xb5" + os.urandom(size - 14)


def exchange(one: Plug | RawMember, other: Plug | RawMember) -> None:
    """Send frames of each size both ways."""
    for size in SIZES:
        for number, (sender, receiver) in enumerate(((one, other), (other, one)), 1):
            sent = frame(size, number)
            sender.send_frame(sent)
            assert receiver.recv_frame() == sent
