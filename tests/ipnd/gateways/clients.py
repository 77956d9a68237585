"""Members that speak the protocols of the gateways, written by hand from what the real programs do.

``VdeClient`` has the habits of libvdeplug and of the programs from before it, ``DatagramClient`` those of QEMU's
``-netdev dgram`` and of vfkit, ``PacketClient`` those of User-Mode Linux's bess. None uses code of the package.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Final, Self

from tests.running import RunningDaemon
from tests.waiting import eventually

TIMEOUT: Final = 5.0
"""Seconds a receiver may take before the test fails."""
MAGIC: Final = 0xFEEDFACE
_numbers = itertools.count()


def vde_request(path: bytes, *, kind: int = 0, version: int = 3, description: bytes = b"", magic: int = MAGIC) -> bytes:
    """Return a request; ``kind``: the wanted port times 256, or 1 for port 0."""
    if version == 1:
        return struct.pack("=II6sH108s", magic, kind, b"\2\0\0\0\0\1", 1, path) + description
    return struct.pack("=IIIH108s", magic, version, kind, 1, path) + description


def vde_ask(directory: str, request: bytes) -> bytes:
    """Send a request and return the path in the answer, empty when the connection is closed instead."""
    with vde_connection(directory) as ctl:
        ctl.sendall(request)
        return vde_answer(ctl)


def vde_connection(directory: str) -> socket.socket:
    """Connect to ``directory``/ctl."""
    ctl = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ctl.settimeout(TIMEOUT)
    try:
        ctl.connect(f"{directory}/ctl")
    except BaseException:
        ctl.close()
        raise
    return ctl


def vde_answer(ctl: socket.socket) -> bytes:
    """Return the path in the answer to a request, empty when the connection is closed instead."""
    try:
        reply = ctl.recv(1000)
    except ConnectionResetError:
        return b""
    assert len(reply) in (0, 110), reply
    assert not reply or reply[:2] == struct.pack("=H", 1)
    return reply[2:].split(b"\0", 1)[0]


ASK: Final = """
import socket, sys
ctl = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
ctl.connect(sys.argv[1] + "/ctl")
ctl.sendall(bytes.fromhex(sys.argv[2]))
try:
    print(len(ctl.recv(1000)))
except ConnectionResetError:
    print(0)
"""


def vde_ask_as(prefix: tuple[str, ...], directory: str, request: bytes) -> bool:
    """Send a request as another user (``peers.as_user``); return whether it was answered."""
    command = [*prefix, sys.executable, "-S", "-E", "-c", ASK, directory, request.hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, cwd="/")
    return int(done.stdout) == 110


class _Client:
    """What all clients do with frames: one a message."""

    sock: socket.socket

    def send_frame(self, frame: bytes) -> None:
        """Send one frame."""
        self.sock.send(frame)

    def recv_frame(self) -> bytes:
        """Return the next frame."""
        return self.sock.recv(1 << 20)

    def is_silent(self) -> bool:
        """Tell whether nothing lies there to be received."""
        return not select.select([self.sock], [], [], 0)[0]

    def fileno(self) -> int:
        """Return the descriptor that frames come from."""
        return self.sock.fileno()

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VdeClient(_Client):
    """A client of libvdeplug: its data socket lies in the switch's directory, and is removed when it closes.

    ``path``: where else; ``abstract``: as User-Mode Linux's ``daemon`` transport has it. ``connected``: whether it
    connects its data socket to ours, which old programs do not.
    """

    def __init__(
        self, directory: str, *, version: int = 3, kind: int = 0, description: bytes = b"", path: str = "",
        abstract: bool = False, connected: bool = True,
    ) -> None:
        number = next(_numbers)
        self.path = "" if abstract else path or f"{directory}/.{os.getpid():05d}-{number:05d}"
        name = b"\0%d %d" % (os.getpid(), number) if abstract else os.fsencode(self.path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(TIMEOUT)
        self.ctl = vde_connection(directory)
        try:
            self.sock.bind(name.ljust(108, b"\0") if abstract else name)
            self.ctl.sendall(vde_request(name, kind=kind, version=version, description=description))
            self.switch = vde_answer(self.ctl)
            assert self.switch, "the request was refused"
            if connected:
                self.sock.connect(self.switch)
        except BaseException:
            self.close()
            raise
        self._connected = connected

    def send_frame(self, frame: bytes) -> None:
        """Send one frame."""
        if self._connected:
            self.sock.send(frame)
        else:
            self.sock.sendto(frame, self.switch)

    def die(self) -> None:
        """Be gone as a program that is killed is: its file stays."""
        self.sock.close()
        self.ctl.close()

    def close(self) -> None:
        """Leave as libvdeplug does."""
        if self.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        self.die()


class DatagramClient(_Client):
    """A program behind a unix datagram socket bound to ``path`` (abstract when it begins with NUL).

    ``connected``: as vfkit's and libkrun's, which take frames from the gateway's own address only.
    """

    def __init__(self, gateway: str, path: str | bytes, *, connected: bool = False) -> None:
        self.gateway = gateway
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(TIMEOUT)
        if path:
            self.sock.bind(path)
        if connected:
            self.sock.connect(gateway)
        self._connected = connected

    def send_frame(self, frame: bytes) -> None:
        """Send one frame."""
        if self._connected:
            self.sock.send(frame)
        else:
            self.sock.sendto(frame, self.gateway)


class PacketClient(_Client):
    """A SEQPACKET connection."""

    def __init__(self, gateway: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(TIMEOUT)
        try:
            self.sock.connect(gateway)
        except BaseException:
            self.sock.close()
            raise


def frame(number: int, size: int = 60) -> bytes:
    """Return a broadcast frame with ``number`` in it."""
    return b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x88\xb5" + struct.pack(">I", number) + bytes(size - 18)


def number_of(data: bytes) -> int:
    """Return the number of a frame of ``frame``."""
    return int(struct.unpack_from(">I", data, 14)[0])


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process do nothing for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def resting_fds(daemon: RunningDaemon) -> int:
    """Return how many descriptors a daemon has open once it has dealt with the connections that were closed last."""
    seen: list[int] = []

    def the_same_for_long() -> bool:
        seen.append(daemon.fds())
        return len(seen) >= 20 and len(set(seen[-20:])) == 1

    eventually(the_same_for_long)
    return seen[-1]


def data_sockets(directory: str) -> set[str]:
    """Return what lies in the directory of a VDE switch besides its control socket."""
    return set(os.listdir(directory)) - {"ctl"}


def wait_until_empty(directory: str) -> None:
    """Wait until nothing but its control socket lies in the directory of a VDE switch."""
    eventually(lambda: not data_sockets(directory), message=f"left behind: {data_sockets(directory)}")
