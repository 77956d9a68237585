"""Out-of-band messages of C programs under ``ipnctl run``: the numbers of readers and writers, by recv and recvmsg."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Final

import pytest

import ipn
from ipn import abi, admin
from tests.ipnctl.command import Ipnctl, wait_for_readers
from tests.ipnctl.programs.compiling import Compiler
from tests.ipnctl.programs.joining import wait_for_members
from tests.ipnctl.programs.node import Node, Received
from tests.ipnctl.programs.scripts import Scripts
from tests.waiting import eventually

DONTWAIT: Final = int(socket.MSG_DONTWAIT)
TRUNC: Final = int(socket.MSG_TRUNC)


@pytest.fixture
def node(programs: Ipnctl, compiled: Compiler, request: pytest.FixtureRequest) -> Iterator[Node]:
    """Give the program on a lossless network of its own, not yet a member. It must end well."""
    path = programs.path(request.node.name[-60:].strip("]"))
    with ipn.bind(path, lossless=True):
        started = programs.start("run", "--", compiled("oob"), path)
        yield Node(started, path)
        started.end().ok()


def notice(readers: int, writers: int) -> bytes:
    return ipn.NumNodes(ipn.IPN_ANY, abi.IPN_OOB_NUMNODE_TAG, readers, writers).pack()


def oob(readers: int, writers: int) -> Received:
    """Return what recvmsg gives for a notice."""
    return Received(16, 0, ipn.MSG_OOB, 0, 0, notice(readers, writers))


def test_a_notice_is_the_published_structure(node: Node) -> None:
    node.join()
    assert node.do("notice") == "notice 0 0 1 1"
    with ipn.connect(node.path, send=False):
        assert node.do("notice") == "notice 0 0 2 1"
    assert node.do("notice") == "notice 0 0 1 1"


def test_recvmsg_tells_notices_from_messages_by_msg_oob(node: Node) -> None:
    node.join()
    assert node.recvmsg() == oob(1, 1)
    with ipn.connect(node.path) as member:
        assert node.recvmsg() == oob(2, 2)
        member.send(notice(7, 7))
        assert node.recvmsg() == Received(16, 0, 0, 0, 0, notice(7, 7))
        member.shutdown(ipn.SHUT_WR)
        assert node.recvmsg() == oob(2, 1)
    assert node.recvmsg() == oob(1, 1)


def test_a_message_is_spread_over_several_vectors(node: Node) -> None:
    node.join()
    assert node.recvmsg(3, 0, 5, 100) == oob(1, 1)
    with ipn.connect(node.path) as member:
        assert node.recvmsg(15, 1) == oob(2, 2)
        member.send(b"0123456789")
        assert node.recvmsg(4, 1, 4, 1, 7).data == b"0123456789"


def test_the_excess_of_a_too_small_room_is_told(node: Node) -> None:
    node.join()
    assert node.recvmsg(4, 4) == Received(8, 0, TRUNC | ipn.MSG_OOB, 0, 0, notice(1, 1)[:8])
    with ipn.connect(node.path) as member:
        assert node.recvmsg() == oob(2, 2)
        member.send(b"0123456789")
        assert node.recvmsg(3, 3) == Received(6, 0, TRUNC, 0, 0, b"012345")
        member.send(b"0123456789")
        assert node.recvmsg(3, flags=TRUNC) == Received(10, 0, TRUNC, 0, 0, b"012#######")
        member.send(b"next")
        assert node.recvmsg().data == b"next"


def test_msg_dontwait_and_o_nonblock_do_not_wait(node: Node) -> None:
    node.join()
    assert node.recvmsg() == oob(1, 1)
    assert node.recvmsg(flags=DONTWAIT).error == errno.EAGAIN
    assert node.do("nonblock") == "nonblock 0 0"
    assert node.recvmsg().error == errno.EAGAIN
    with ipn.connect(node.path) as member:
        wait_for_readers(node.path, 2)
        assert node.recvmsg(flags=DONTWAIT) == oob(2, 2)
        member.close()


def test_so_rcvtimeo_is_how_long_recvmsg_waits(node: Node) -> None:
    node.join()
    assert node.recvmsg() == oob(1, 1)
    assert node.do("timeout 50") == "timeout 0 0"
    assert node.recvmsg().error == errno.EAGAIN
    assert node.do("timeout 20000") == "timeout 0 0"
    node.ask("recvmsg 0 100")
    with ipn.connect(node.path):
        assert node.received() == oob(2, 2)


def test_what_comes_wakes_a_recvmsg_that_waits(node: Node) -> None:
    node.join()
    assert node.recvmsg() == oob(1, 1)
    with ipn.connect(node.path) as member:
        assert node.recvmsg() == oob(2, 2)
        node.ask("recvmsg 0 100")
        member.send(b"wake up")
        assert node.received() == Received(7, 0, 0, 0, 0, b"wake up")
        node.ask("recvmsg 0 100")
        member.shutdown(ipn.SHUT_WR)
        assert node.received() == oob(2, 1)


def test_the_end_of_the_network_wakes_a_recvmsg_that_waits(node: Node) -> None:
    node.join()
    assert node.recvmsg() == oob(1, 1)
    node.ask("recvmsg 0 100")
    admin.delete_network(node.path)
    assert node.received() == Received(0, 0, 0, 0, 0, b"")


def test_a_send_only_node_receives_notices(node: Node) -> None:
    node.join(how=socket.SHUT_RD)
    assert node.recvmsg() == oob(0, 1)
    with ipn.connect(node.path) as member:
        assert node.recvmsg() == oob(1, 2)
        assert node.do("send now that you listen") == "send 19 0"
        assert member.recv() == b"now that you listen"
        member.send(b"unheard")
    assert node.recvmsg() == oob(0, 1)


def test_shut_rd_discards_messages_but_no_notice(node: Node) -> None:
    node.join()
    assert node.recvmsg() == oob(1, 1)
    with ipn.connect(node.path) as member:
        assert node.recvmsg() == oob(2, 2)
        member.send(b"unheard")
        member.send(b"unheard, too")
        eventually(lambda: sum(port["tx_frames"] for port in admin.show_network(node.path)["ports"]) == 2)
        assert node.do("shutdown 0") == "shutdown 0 0"
        assert node.recvmsg() == oob(1, 2)
    assert node.recvmsg() == oob(0, 1)


def test_who_did_not_ask_is_told_nothing(node: Node) -> None:
    node.join(handle=1, want=0)
    with ipn.connect(node.path) as member:
        member.send(b"the first")
        assert node.recvmsg() == Received(9, 0, 0, 0, 0, b"the first")


def test_who_cannot_handle_notices_cannot_ask_for_them(node: Node) -> None:
    assert node.do("node 0 1") == f"node -1 {errno.EINVAL}"


def test_recvmsg_of_who_has_not_asked_is_the_kernels(node: Node) -> None:
    node.join(handle=0, want=0)
    with ipn.connect(node.path) as member:
        member.send(b"0123456789")
        found = node.recvmsg(4, 2)
        assert (found.result, found.flags & ipn.MSG_OOB, found.data) == (6, 0, b"012345")


def test_messages_and_notices_come_in_the_order_of_their_arrival(node: Node) -> None:
    node.join()
    assert node.recvmsg() == oob(1, 1)
    with ipn.connect(node.path) as member:
        member.send(b"before")
        member.shutdown(ipn.SHUT_WR)
        eventually(lambda: admin.show_network(node.path)["writers"] == 1)
    wait_for_members(node.path, readers=1)
    found = [node.recvmsg() for _ in range(4)]
    assert found[0] == oob(2, 2)
    assert sorted(each.data for each in found) == sorted([notice(2, 2), b"before", notice(2, 1), notice(1, 1)])
    assert [each.flags for each in found if each.data == b"before"] == [0]


def test_plain_recv_gives_notices_and_messages_alike(node: Node) -> None:
    node.join()
    assert node.do("recv") == f"recv 16 0 {notice(1, 1).hex()}"
    with ipn.connect(node.path) as member:
        assert node.do("recv") == f"recv 16 0 {notice(2, 2).hex()}"
        member.send(b"hello")
        assert node.do("recv") == f"recv 5 0 {b'hello'.hex()}"


NODE = """
fd, yes = new(), ctypes.byref(ctypes.c_int(1))
ask = lambda: [call("setsockopt", fd, 0, option, yes, 4) for option in (3, 4)]
"""


def test_a_notice_wakes_who_polls_for_input(script: Scripts) -> None:
    code = """
assert (ask(), connect(fd, sys.argv[1])) == ([0, 0], 0)
poll = select.poll()
poll.register(fd, select.POLLIN | select.POLLPRI)
print([events for _, events in poll.poll(20_000)] == [select.POLLIN])
"""
    path = script.path("polling")
    with ipn.bind(path):
        assert script(NODE + code, path) is True


def test_who_does_not_receive_must_ask_for_notices_before_it_joins(script: Scripts) -> None:
    path = script.path("too-late")
    with ipn.bind(path):
        code = NODE + "print([call('shutdown', fd, 0), connect(fd, sys.argv[1]), ask(), os.read(fd, 100)])"
        assert script(code, path) == [0, 0, [0, 0], b""]
