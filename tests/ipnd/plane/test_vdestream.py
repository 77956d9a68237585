"""A link in VDE's framing, with the test as its other end: a program in ssh's place hands its standard input over."""

from __future__ import annotations

import random
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ipn import admin
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

GREETING: Final = b"ipn-cable 1\n"
HAND_OVER: Final = f"""#!{sys.executable} -S
import os, socket
sock = socket.socket(socket.AF_UNIX)
sock.connect(os.path.join(os.path.dirname(__file__), "there"))
socket.send_fds(sock, [b"x"], [0])
sock.recv(1)
"""


class Far:
    """The other end of the cable: ``sock`` is standard input and output of what should be ssh. Says ``first``."""

    def __init__(self, listener: socket.socket, first: bytes = GREETING) -> None:
        self._process, _ = listener.accept()
        _, fds, _, _ = socket.recv_fds(self._process, 1, 1)
        self.sock = socket.socket(fileno=fds[0])
        self.sock.settimeout(5)
        self.sock.sendall(first)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            assert more, "the end came too soon"
            data += more
        return data

    def frame(self) -> bytes:
        return self.exactly(struct.unpack(">H", self.exactly(2))[0])

    def close(self) -> None:
        self.sock.close()
        self._process.close()


@pytest.fixture
def listener(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Before ``ipnd``, so that it runs the program that calls here."""
    program = short_directory / "ssh"
    program.write_text(HAND_OVER)
    program.chmod(0o755)
    monkeypatch.setenv("IPN_SSH", str(program))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(20)
        listener.bind(str(short_directory / "there"))
        listener.listen()
        yield listener


def joined(listener: socket.socket, ipnd: RunningDaemon, **options: Any) -> tuple[str, Far, RawMember]:
    """Make a network with a cable and a raw member; return its path and both, once they are members."""
    path = ipnd.path("net")
    admin.create_network(path, **options)
    admin.add_fixture(path, "ssh", "ssh://far?plug=x")
    far, member = Far(listener), RawMember(path)
    eventually(lambda: len(admin.show_network(path)["ports"]) == 2)
    return path, far, member


def port_of(path: str) -> dict[str, Any]:
    return next(port for port in admin.show_network(path)["ports"] if port["kind"] == "vdestream")


def short(*frames: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(frame)) + frame for frame in frames)


def test_what_comes_in_pieces_comes_whole_and_what_is_too_long_is_skipped(
    listener: socket.socket, ipnd: RunningDaemon
) -> None:
    path, far, member = joined(listener, ipnd)
    with member:
        for byte in short(b"one", b"", b"two"):
            far.sock.sendall(bytes([byte]))
        far.sock.sendall(short(b"x" * 1515, b"y" * 65535, b"three", b"torn")[:-1])
        assert [member.recv_frame() for _ in range(3)] == [b"one", b"two", b"three"]
        port = port_of(path)
        assert (port["rx_frames"], port["oversize"]) == (3, 2)
        far.close()
        eventually(lambda: len(admin.show_network(path)["ports"]) == 1)


def test_what_comes_with_the_greeting_is_not_lost(listener: socket.socket, ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    admin.create_network(path)
    with RawMember(path) as member:
        eventually(lambda: len(admin.show_network(path)["ports"]) == 1)
        admin.add_fixture(path, "ssh", "ssh://far?plug=x")
        far = Far(listener, b"Welcome!\n" + GREETING + short(b"one", b"two"))
        assert [member.recv_frame(), member.recv_frame()] == [b"one", b"two"]
        far.close()


def test_many_frames_of_one_byte_fit(listener: socket.socket, ipnd: RunningDaemon) -> None:
    _, far, member = joined(listener, ipnd, mtu=70_000, lossless=True)
    with member:
        data = short(b"z" * 65535, *[b"1"] * 200_000, b"z" * 65535)
        writer = threading.Thread(target=far.sock.sendall, args=(data,))
        writer.start()
        sizes = [len(member.recv_frame() or b"") for _ in range(200_002)]
        assert (sizes[0], set(sizes[1:-1]), sizes[-1]) == (65535, {1}, 65535)
        writer.join()
        far.close()


def test_what_was_queued_is_in_the_same_framing(listener: socket.socket, ipnd: RunningDaemon) -> None:
    path, far, member = joined(listener, ipnd)
    with member:
        count = 0
        while not port_of(path)["dropped"]:
            for _ in range(100):
                member.send_frame(struct.pack(">I", count) * 370)
                count += 1
        eventually(lambda: port_of(path)["tx_frames"] + port_of(path)["dropped"] + port_of(path)["queued"] == count)
        port = port_of(path)
        assert port["queued"] == 8
        kept = port["tx_frames"] + port["queued"]
        assert [far.frame() for _ in range(kept)] == [struct.pack(">I", n) * 370 for n in range(kept)]
        assert port_of(path)["tx_bytes"] == kept * 1480
        far.close()


def test_long_frames_are_whole_however_slowly_they_are_taken(listener: socket.socket, ipnd: RunningDaemon) -> None:
    _, far, member = joined(listener, ipnd, mtu=65535, lossless=True)
    sizes = random.Random(3)
    frames = [struct.pack(">I", n) * sizes.randrange(1, 16384) for n in range(200)]
    with member:
        writer = threading.Thread(target=lambda: [member.send_frame(frame) for frame in frames])
        writer.start()
        assert [far.frame() for _ in frames] == frames
        writer.join()
        far.close()
