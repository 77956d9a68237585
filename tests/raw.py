"""A raw member, as QEMU or passt would be one: a plain unix stream socket that speaks the 4-byte framing.

It is written without ``ipn``, so that a mistake in the package's framing cannot hide here.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, Self

TIMEOUT: Final = 5.0
"""Seconds a receive may take before the test fails."""


class RawMember:
    """A unix stream socket with QEMU's framing. A context manager."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        try:
            self.sock.connect(path)
        except BaseException:
            self.sock.close()
            raise

    def send_frame(self, frame: bytes) -> None:
        """Send one frame."""
        self.sock.sendall(struct.pack(">I", len(frame)) + frame)

    def recv_frame(self) -> bytes | None:
        """Return the next frame, None at the end of the stream; ``EOFError`` when it ends inside a frame."""
        prefix = self._recv_exactly(4, at_start=True)
        return None if prefix is None else self._recv_exactly(struct.unpack(">I", prefix)[0])

    def _recv_exactly(self, size: int, *, at_start: bool = False) -> bytes | None:
        data = b""
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            if not chunk:
                if at_start and not data:
                    return None
                raise EOFError(f"the stream ended after {len(data)} of {size} bytes")
            data += chunk
        return data

    def settimeout(self, seconds: float | None) -> None:
        """Set how long the calls may take."""
        self.sock.settimeout(seconds)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.sock.fileno()

    def close(self) -> None:
        """Leave the network."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def raw_member(path: str) -> RawMember:
    """Connect to the socket file of a network as a raw member."""
    return RawMember(path)
