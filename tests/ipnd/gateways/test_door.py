"""The door: ``IPN1`` opens a control session, anything else (and silence) makes a raw member, on a real daemon."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import ipn
from ipn.control import MAGIC, MAX_REPLY, ControlDecoder, encode_message
from ipnd.gateways import door
from ipnd.gateways.door import Door
from ipnd.identity import Peer
from ipnd.plane.plane import Plane
from tests.raw import RawMember, raw_member
from tests.running import RunningDaemon
from tests.waiting import eventually

HELLO = encode_message({"id": 1, "op": "hello", "version": 1})
LONGER_THAN_SILENCE = 0.15
"""Seconds; a connection silent for 0.1 is a raw member."""


@pytest.fixture
def network(ipnd: RunningDaemon) -> Iterator[ipn.Socket]:
    """Give a connected socket on the network ``net`` of the daemon."""
    with ipn.bind(ipnd.path("net"), timeout=5) as net:
        net.connect()
        yield net


@pytest.fixture
def path(ipnd: RunningDaemon, network: ipn.Socket) -> str:
    return ipnd.path("net")


def raw_ports(network: ipn.Socket) -> list[dict[str, Any]]:
    """Return the ports that raw members have."""
    return [port for port in network.show()["ports"] if port["kind"] == "raw"]


def reply_on(sock: socket.socket) -> dict[str, Any]:
    """Return the first message that comes on ``sock``."""
    decoder = ControlDecoder(MAX_REPLY)
    while True:
        data = sock.recv(4096)
        assert data, "the connection was closed"
        if messages := decoder.feed(data):
            return messages[0]


def assert_silent(caller: RawMember, seconds: float) -> None:
    """Nothing comes for so long, not even the end."""
    caller.settimeout(seconds)
    with pytest.raises(TimeoutError):
        caller.sock.recv(1)
    caller.settimeout(5)


def assert_closed(caller: RawMember) -> None:
    """The other end closes the connection (with or without data of ours still unread)."""
    with contextlib.suppress(ConnectionResetError):
        assert caller.sock.recv(1) == b""


def seen_by_daemon(ipnd: RunningDaemon) -> None:
    """Return when the daemon has looked at all that was sent before: events are dealt with in their order."""
    with raw_member(ipnd.control) as later:
        later.sock.sendall(MAGIC + HELLO)
        assert "ok" in reply_on(later.sock)


# -- who has come ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net", "control"])
def test_ipn1_in_one_piece_opens_a_control_session(ipnd: RunningDaemon, network: ipn.Socket, name: str) -> None:
    with raw_member(ipnd.path(name)) as caller:
        caller.sock.sendall(MAGIC + HELLO)
        assert reply_on(caller.sock)["ok"]["version"] == 1
    assert raw_ports(network) == []


@pytest.mark.parametrize("name", ["net", "control"])
def test_ipn1_byte_by_byte_opens_a_control_session(ipnd: RunningDaemon, network: ipn.Socket, name: str) -> None:
    with raw_member(ipnd.path(name)) as caller:
        for position in range(len(MAGIC)):
            caller.sock.sendall(MAGIC[position : position + 1])
            seen_by_daemon(ipnd)
        caller.sock.sendall(HELLO)
        assert reply_on(caller.sock)["ok"]["version"] == 1
    assert raw_ports(network) == []


def test_who_has_begun_ipn1_may_take_longer_than_the_silence_of_a_raw_member(network: ipn.Socket, path: str) -> None:
    with raw_member(path) as caller:
        caller.sock.sendall(MAGIC[:2])
        assert_silent(caller, LONGER_THAN_SILENCE)
        caller.sock.sendall(MAGIC[2:] + HELLO)
        assert reply_on(caller.sock)["ok"]["version"] == 1
    assert raw_ports(network) == []


def test_who_says_nothing_for_100_ms_is_a_raw_member_and_hears_traffic(network: ipn.Socket, path: str) -> None:
    begin = time.monotonic()
    with raw_member(path) as listener:
        (port,) = eventually(lambda: raw_ports(network))
        waited = time.monotonic() - begin
        network.send(b"to the silent one")
        assert listener.recv_frame() == b"to the silent one"
    assert port["rights"] == "rw"
    assert 0.1 <= waited < 2


def test_a_frame_makes_a_raw_member_and_is_delivered(network: ipn.Socket, path: str) -> None:
    with raw_member(path) as member:
        member.send_frame(b"first words")
        assert network.recv() == b"first words"
        network.send(b"answer")
        assert member.recv_frame() == b"answer"


def test_a_first_frame_that_comes_byte_by_byte_is_delivered_whole(
    ipnd: RunningDaemon, network: ipn.Socket, path: str
) -> None:
    with raw_member(path) as member:
        for byte in b"\0\0\0\4word":
            member.sock.sendall(bytes([byte]))
            seen_by_daemon(ipnd)
        assert network.recv() == b"word"


def test_a_raw_member_may_have_gone_when_its_first_frame_is_read(network: ipn.Socket, path: str) -> None:
    with raw_member(path) as member:
        member.send_frame(b"last words")
    assert network.recv() == b"last words"
    eventually(lambda: not raw_ports(network))


def test_a_listener_that_has_closed_its_sending_half_still_hears(network: ipn.Socket, path: str) -> None:
    with raw_member(path) as listener:
        listener.sock.shutdown(socket.SHUT_WR)
        eventually(lambda: [port["rights"] for port in raw_ports(network)] == ["r"])
        network.send(b"to the half-closed one")
        assert listener.recv_frame() == b"to the half-closed one"


def test_what_begins_like_ipn1_and_goes_on_otherwise_is_a_raw_member_with_an_impossible_length(
    ipnd: RunningDaemon, path: str
) -> None:
    with raw_member(path) as caller:
        caller.sock.sendall(b"IP")
        seen_by_daemon(ipnd)
        caller.sock.sendall(b"v6 is no greeting")
        assert_closed(caller)
    ipnd.wait_for_log("announced a frame of")


@pytest.mark.parametrize("noise", [b"\0", b"GET / HTTP/1.1\r\n\r\n", b"IPX1", bytes(1000)])
def test_noise_on_the_control_socket_is_closed(ipnd: RunningDaemon, noise: bytes) -> None:
    with raw_member(ipnd.control) as caller:
        caller.sock.sendall(noise)
        assert_closed(caller)


def test_silence_on_the_control_socket_is_not_taken_for_a_raw_member(ipnd: RunningDaemon) -> None:
    with raw_member(ipnd.control) as caller:
        assert_silent(caller, LONGER_THAN_SILENCE)
        caller.sock.sendall(MAGIC + HELLO)
        assert reply_on(caller.sock)["ok"]["version"] == 1


def test_half_a_connection_on_the_control_socket_is_closed(ipnd: RunningDaemon) -> None:
    with raw_member(ipnd.control) as caller:
        caller.sock.shutdown(socket.SHUT_WR)
        assert_closed(caller)


@pytest.mark.parametrize("name", ["net", "control"])
def test_half_a_greeting_and_half_a_connection_are_closed(ipnd: RunningDaemon, network: ipn.Socket, name: str) -> None:
    with raw_member(ipnd.path(name)) as caller:
        caller.sock.sendall(MAGIC[:3])
        caller.sock.shutdown(socket.SHUT_WR)
        assert_closed(caller)
    assert raw_ports(network) == []


# -- what it costs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [b"", b"I", b"IPN1", b"\0\0\0\1", b"noise, and more of it"])
@pytest.mark.parametrize("name", ["net", "control"])
def test_callers_that_come_and_go_leave_nothing_behind(
    ipnd: RunningDaemon, network: ipn.Socket, name: str, words: bytes
) -> None:
    assert raw_ports(network) == []
    before = ipnd.fds()
    for _ in range(50):
        with raw_member(ipnd.path(name)) as caller:
            caller.sock.sendall(words)
    seen_by_daemon(ipnd)
    eventually(lambda: ipnd.fds() <= before and not raw_ports(network))


def test_callers_not_yet_known_are_closed_with_their_network(ipnd: RunningDaemon) -> None:
    with ipn.bind(ipnd.path("net")):
        caller = raw_member(ipnd.path("net"))
        caller.sock.sendall(MAGIC[:1])
        seen_by_daemon(ipnd)
    with caller:
        assert_closed(caller)


def test_when_descriptors_run_out_the_door_waits_until_there_are_some(
    ipnd: RunningDaemon, network: ipn.Socket, path: str
) -> None:
    pid = ipnd.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (ipnd.fds() + 2, limits[1]))
    callers = [raw_member(path) for _ in range(6)]
    try:
        ipnd.wait_for_log("not accepting for a moment")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        eventually(lambda: len(raw_ports(network)) == 6)
        network.send(b"everybody in?")
        assert {caller.recv_frame() for caller in callers} == {b"everybody in?"}
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for caller in callers:
            caller.close()


# -- patience, in this process, with less of it ------------------------------------------------------------


@pytest.mark.parametrize("greeting", [b"", b"I", b"IPN"])
async def test_who_never_ends_a_greeting_on_the_control_socket_is_turned_away(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    monkeypatch.setattr(door, "GREETING_NS", 20_000_000)
    let_in: list[Peer] = []
    plane = Plane()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(short_directory / "control"))
        listener.listen()
        async with trio.open_nursery() as nursery:
            opened = Door(plane, listener, "control", lambda sock, peer: let_in.append(peer), None)
            nursery.start_soon(plane.run)
            with raw_member(str(short_directory / "control")) as caller, trio.fail_after(5):
                caller.sock.sendall(greeting)
                await trio.lowlevel.wait_readable(caller)
                assert_closed(caller)
            opened.close()
            nursery.cancel_scope.cancel()
    plane.close()
    assert let_in == []
    assert opened.waiting == set()


async def test_waiting_for_the_rest_of_a_greeting_takes_no_processor_time(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = door.Caller._look

    def counted(caller: door.Caller, mask: int) -> None:
        looks.append(mask)
        look(caller, mask)

    monkeypatch.setattr(door.Caller, "_look", counted)
    monkeypatch.setattr(door, "GREETING_NS", 200_000_000)
    plane = Plane()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(short_directory / "control"))
        listener.listen()
        async with trio.open_nursery() as nursery:
            opened = Door(plane, listener, "control", lambda sock, peer: sock.close(), None)
            nursery.start_soon(plane.run)
            with raw_member(str(short_directory / "control")) as caller, trio.fail_after(5):
                caller.sock.sendall(b"IP")
                await trio.lowlevel.wait_readable(caller)
            opened.close()
            nursery.cancel_scope.cancel()
    plane.close()
    # One look each SILENCE_NS / 10 in twice GREETING_NS, not one each turn of the loop.
    assert 1 <= len(looks) <= 2 * 20 + 2
    assert all(mask & select.EPOLLIN for mask in looks)
