"""A data socket that the client brings along: it stays the very socket that it was."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator

import pytest

import ipn
from ipn import admin
from ipn.abi import IPN_ANY, NumNodes
from ipn.channel import ControlChannel
from ipn.rendezvous import open_network
from tests.running import RunningDaemon
from tests.waiting import eventually


@pytest.fixture
def path(ipnd: RunningDaemon) -> str:
    path = ipnd.path("net")
    admin.create_network(path)
    return path


@pytest.fixture
def own() -> Iterator[socket.socket]:
    """Give a socket that is not connected."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(5)
        yield sock


Join = Callable[..., ControlChannel]


@pytest.fixture
def join() -> Iterator[Join]:
    """Give what connects a socket to a network, and returns the control connection of the member."""
    with contextlib.ExitStack() as stack:

        def connect(path: str, *given: int, **settings: object) -> ControlChannel:
            channel = stack.enter_context(contextlib.closing(open_network(path)))
            _, fds = channel.request("connect", fds=given, policy=IPN_ANY, descr="", data="program", **settings)
            assert fds == []
            return channel

        yield connect


def test_copies_flags_and_polls_of_the_socket_are_those_of_before(path: str, own: socket.socket, join: Join) -> None:
    own.setblocking(False)
    poll = select.epoll()
    poll.register(own, select.EPOLLIN)
    with socket.socket(fileno=os.dup(own.fileno())) as copy, ipn.connect(path, timeout=5) as other:
        join(path, own.fileno())
        other.send(b"to both")
        assert poll.poll(5) == [(own.fileno(), select.EPOLLIN)]
        assert copy.recv(100) == b"to both"
        with pytest.raises(BlockingIOError):
            own.recv(100)
        copy.send(b"from both")
        assert other.recv() == b"from both"
    poll.close()


def test_its_last_copy_closed_ends_the_member_and_the_control_connection(
    ipnd: RunningDaemon, path: str, own: socket.socket, join: Join
) -> None:
    before = ipnd.fds()
    channel = join(path, own.fileno())
    copy = socket.socket(fileno=os.dup(own.fileno()))
    own.close()
    assert admin.show_network(path)["members"] == 1
    copy.close()
    eventually(lambda: admin.show_network(path)["members"] == 0)
    with pytest.raises(EOFError):
        channel.wait_notice(5)
    channel.close()
    eventually(lambda: ipnd.fds() <= before)


def test_the_end_of_the_network_is_the_end_of_what_comes(path: str, own: socket.socket, join: Join) -> None:
    join(path, own.fileno())
    admin.delete_network(path)
    assert own.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        own.send(b"nobody")


def test_notices_come_among_messages_with_a_descriptor_beside_them(path: str, own: socket.socket, join: Join) -> None:
    join(path, own.fileno(), handle_oob=True, want_oob=True)
    assert received(own) == (NumNodes(IPN_ANY, 0, 1, 1).pack(), True)
    with ipn.connect(path, receive=False) as other:
        assert received(own) == (NumNodes(IPN_ANY, 0, 1, 2).pack(), True)
        other.send(b"hello")
        assert received(own) == (b"hello", False)
    assert own.recv(100) == NumNodes(IPN_ANY, 0, 1, 1).pack(), "who only receives sees nothing of the descriptor"


def test_notices_wait_in_their_place_behind_messages(path: str, own: socket.socket, join: Join) -> None:
    join(path, own.fileno(), handle_oob=True, want_oob=True)
    with ipn.connect(path, receive=False) as sender:
        sent = 0
        while not admin.show_network(path)["ports"][0]["queued"]:
            sender.send(b"%-1500d" % sent)
            sent += 1
        with ipn.connect(path, receive=False):
            eventually(lambda: admin.show_network(path)["writers"] == 3)
            seen = [received(own) for _ in range(sent + 3)]
    numbers = [int(data) for data, notice in seen if not notice]
    assert numbers == list(range(sent))
    assert seen[-1] == (NumNodes(IPN_ANY, 0, 1, 3).pack(), True)


def received(sock: socket.socket) -> tuple[bytes, bool]:
    """Receive a message; return it and whether a descriptor was with it, which is closed."""
    data, beside, _, _ = sock.recvmsg(100, socket.CMSG_SPACE(4))
    for _, _, fds in beside:
        for fd in array.array("i", fds):
            os.close(fd)
    return data, bool(beside)


def test_who_may_not_send_is_told_by_the_kernel(path: str, own: socket.socket, join: Join) -> None:
    join(path, own.fileno(), shut_wr=True)
    with pytest.raises(BrokenPipeError):
        own.send(b"not from me")


@pytest.mark.parametrize("kind", ["stream", "datagram", "internet", "connected", "file"])
def test_what_is_no_fresh_socket_is_refused_and_none_of_it_stays(
    ipnd: RunningDaemon, path: str, kind: str, join: Join
) -> None:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wrong = {
        "stream": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach(),
        "datagram": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
        "internet": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
        "connected": lambda: os.dup(pair[0].fileno()),
        "file": lambda: os.open("/dev/null", os.O_RDONLY),
    }[kind]()
    before = ipnd.fds()
    with pair[0], pair[1], pytest.raises(OSError, match="connect: the descriptor must be") as caught:
        join(path, wrong)
    assert caught.value.errno == errno.EINVAL
    os.close(wrong)
    eventually(lambda: ipnd.fds() <= before + 1)  # the control connection is there


def test_without_a_descriptor_and_with_two_it_is_refused(path: str, own: socket.socket, join: Join) -> None:
    for fds in ((), (own.fileno(), own.fileno())):
        with pytest.raises(OSError, match="1 descriptors must come"):
            join(path, *fds)
    join(path, own.fileno())
