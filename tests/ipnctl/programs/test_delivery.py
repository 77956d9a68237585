"""What C programs under ``ipnctl run`` send arrives: all of it, or what there was room for, at any number of them."""

from __future__ import annotations

import errno
import struct

import ipn
from ipn import admin
from tests.ipnctl.command import Ipnctl, Started
from tests.ipnctl.programs.compiling import Compiler
from tests.ipnctl.programs.joining import wait_for_members
from tests.ipnctl.programs.node import Node
from tests.waiting import eventually

COUNT = 3000
SIZE = 1000
SECONDS = 20.0


def last(program: Started) -> list[str]:
    """Return the words of the last line that a program has said."""
    lines = program.out.read_text().splitlines(keepends=True)
    return lines[-1].split() if lines and lines[-1].endswith("\n") else []


def start_flow(programs: Ipnctl, compiled: Compiler, path: str) -> tuple[Started, Started]:
    """Start a sender and a receiver, which both wait for a line."""
    sender = programs.start("run", "--", compiled("flow"), "send", path, str(COUNT), str(SIZE))
    receiver = programs.start("run", "--", compiled("flow"), "receive", path)
    wait_for_members(path, readers=1, writers=1)
    return sender, receiver


def dropped(path: str) -> int:
    return sum(int(port["dropped"]) for port in admin.show_network(path)["ports"])


def test_on_a_lossless_network_a_sender_waits_and_nothing_is_lost(programs: Ipnctl, compiled: Compiler) -> None:
    path = programs.path("lossless")
    with ipn.bind(path, lossless=True):
        sender, receiver = start_flow(programs, compiled, path)
        sender.feed(b"go\n")
        sender.wait_for(lambda out: out.startswith(b"full "))
        assert 0 < int(last(sender)[1]) < COUNT
        receiver.feed(b"read\n")
        assert sender.end().ok().text.splitlines()[-1] == f"sent {COUNT}"
        receiver.wait_for(lambda out: out.endswith(b"got %d gaps 0 backwards 0\n" % COUNT), "all of it")
        assert dropped(path) == 0
        admin.delete_network(path)
        receiver.end().ok()


def test_on_a_lossy_network_who_does_not_read_loses_and_the_sender_goes_on(
    programs: Ipnctl, compiled: Compiler
) -> None:
    path = programs.path("lossy")
    with ipn.bind(path):
        sender, receiver = start_flow(programs, compiled, path)
        sender.feed(b"go\n")
        assert sender.end().ok().text.splitlines()[-1] == f"sent {COUNT}"
        eventually(lambda: dropped(path) > 0, SECONDS)
        receiver.feed(b"read\n")

        def all_accounted_for() -> bool:
            words = last(receiver)
            return words[:1] == ["got"] and int(words[1]) + dropped(path) == COUNT

        eventually(all_accounted_for, SECONDS)
        _, got, _, gaps, _, backwards = last(receiver)
        assert 0 < int(got) < COUNT
        assert (gaps, backwards) == ("0", "0"), "the newest are lost, so what arrives has no gap"
        admin.delete_network(path)
        receiver.end().ok()


def test_twenty_processes_of_one_program_are_twenty_nodes(programs: Ipnctl, compiled: Compiler) -> None:
    path = programs.path("many")
    children, each = 20, 25
    parent = programs.start("run", "--", compiled("many"), path, str(children), str(each))
    parent.wait_for(lambda out: out == b"joined\n")
    shown = admin.show_network(path)
    assert len({port["port"] for port in shown["ports"]}) == children
    with ipn.connect(path, send=False, timeout=SECONDS) as witness:
        parent.feed(b"go\n")
        heard = [struct.unpack("@ii", witness.recv()) for _ in range(children * each)]
    assert sorted(heard) == [(sender, number) for sender in range(children) for number in range(each)]
    assert parent.end().ok().text == f"joined\nright {children}\n"


def test_messages_of_a_large_mtu_pass_and_longer_ones_do_not(programs: Ipnctl, compiled: Compiler) -> None:
    path = programs.path("jumbo")
    with ipn.bind(path, mtu=9000), ipn.connect(path, timeout=SECONDS) as member:
        node = Node(programs.start("run", "--", compiled("oob"), path))
        node.join(handle=0, want=0)
        assert node.do("send " + 9000 * "x") == "send 9000 0"
        assert member.recv() == 9000 * b"x"
        assert node.do("send " + 9001 * "x") == f"send -1 {errno.EOVERFLOW}"
        member.send(9000 * b"y")
        assert node.recvmsg(4000, 4000, 4000).data == 9000 * b"y"
        node.program.end().ok()


def test_what_is_too_long_for_a_network_of_a_small_mtu_is_refused_where_it_is_looked_at(
    programs: Ipnctl, compiled: Compiler
) -> None:
    path = programs.path("small")
    with ipn.bind(path, mtu=100), ipn.connect(path, timeout=SECONDS) as member:
        for looked_at, answer in ((100, f"send -1 {errno.EOVERFLOW}"), (1514, "send 101 0")):
            node = Node(programs.start("run", "--mtu", str(looked_at), "--", compiled("oob"), path))
            node.join(handle=0, want=0)
            assert node.do("send " + 101 * "x") == answer
            assert node.do("send " + 100 * "y") == "send 100 0"
            assert member.recv() == 100 * b"y"
            node.program.end().ok()
