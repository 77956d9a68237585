"""The announcement's examples in C under ``ipnctl run``: with each other, with Python members and raw ones."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import Ipnctl, Started
from tests.ipnctl.programs.compiling import Compiler
from tests.ipnctl.programs.joining import wait_for_members
from tests.peers import skip_or_fail
from tests.raw import RawMember
from tests.waiting import eventually

TIMEOUT = 10.0


def says(program: Started, *lines: str) -> None:
    """Wait until these are the lines that a program has written, in any order."""
    wanted = sorted(line.encode() for line in lines)
    program.wait_for(lambda out: sorted(out.splitlines()) == wanted, f"{lines}")


def start(programs: Ipnctl, program: str, role: str, path: str, *options: str) -> Started:
    return programs.start("run", *options, "--", program, role, path)


def pair(programs: Ipnctl, program: str, path: str, *options: str) -> tuple[Started, Started]:
    """Start two peers and return when both are on the network."""
    first, second = (start(programs, program, "peer", path, *options) for _ in range(2))
    wait_for_members(path, readers=2)
    return first, second


def talk(first: Started, second: Started) -> None:
    """Have two peers say something to each other, and leave."""
    first.feed(b"hello\n")
    says(second, "hello")
    second.feed(b"hello yourself\nand goodbye\n")
    says(first, "hello yourself", "and goodbye")
    leave((first, second))


def leave(members: Iterable[Started]) -> None:
    for member in members:
        member.end().ok()


def test_two_peers_hear_each_other(programs: Ipnctl, compiled: Compiler) -> None:
    path = programs.path("peers")
    talk(*pair(programs, compiled("announce"), path))
    eventually(lambda: not os.path.exists(path), message="the network outlived its members")


def test_a_statically_linked_program_does_it_too(programs: Ipnctl, compiled: Compiler) -> None:
    if not any(Path("/usr").glob("lib*/**/libc.a")):
        skip_or_fail("not installed: libc.a (libc6-dev)")
    talk(*pair(programs, compiled("announce", "-static"), programs.path("static")))


@pytest.mark.parametrize("family", [33, 13])
def test_the_families_of_the_later_module_are_known(programs: Ipnctl, compiled: Compiler, family: int) -> None:
    talk(*pair(programs, compiled("announce", f"-DAF_IPN={family}"), programs.path(f"family{family}")))


def test_any_other_family_is_one_when_it_is_given(programs: Ipnctl, compiled: Compiler) -> None:
    program = compiled("announce", "-DAF_IPN=99")
    refused = programs.run("run", "--", program, "peer", programs.path("other"))
    assert (refused.status, refused.err) == (1, "socket: Address family not supported by protocol\n")
    talk(*pair(programs, program, programs.path("other"), "--family", "34,99"))


def test_programs_of_different_families_share_a_network(programs: Ipnctl, compiled: Compiler) -> None:
    path = programs.path("mixed")
    first = start(programs, compiled("announce"), "peer", path)
    wait_for_members(path, readers=1)
    second = start(programs, compiled("announce", "-DAF_IPN=33"), "peer", path)
    wait_for_members(path, readers=2)
    talk(first, second)


def test_a_program_a_python_member_and_a_raw_member_hear_each_other(programs: Ipnctl, compiled: Compiler) -> None:
    path = programs.path("everybody")
    program = start(programs, compiled("announce"), "peer", path)
    wait_for_members(path, readers=1)
    with ipn.connect(path, timeout=TIMEOUT) as member, RawMember(path) as raw:
        wait_for_members(path, readers=3)
        program.feed(b"from C\n")
        assert member.recv() == b"from C"
        assert raw.recv_frame() == b"from C"
        member.send(b"from Python")
        assert raw.recv_frame() == b"from Python"
        says(program, "from Python")
        raw.send_frame(b"raw")
        assert member.recv() == b"raw"
        says(program, "from Python", "raw")
    leave((program,))


def test_one_sender_and_receivers_that_come_and_go(programs: Ipnctl, compiled: Compiler) -> None:
    program, path = compiled("announce"), programs.path("radio")
    sender = start(programs, program, "sender", path)
    wait_for_members(path, writers=1)
    early = start(programs, program, "receiver", path)
    with ipn.connect(path, send=False, timeout=TIMEOUT) as member:
        wait_for_members(path, readers=2)
        sender.feed(b"one\n")
        assert member.recv() == b"one"
        says(early, "one")
    late = start(programs, program, "receiver", path)
    wait_for_members(path, readers=2)
    counted = admin.show_network(path)
    assert (counted["readers"], counted["writers"]) == (2, 1)
    sender.feed(b"two\n")
    says(early, "one", "two")
    says(late, "two")
    sender.end().ok()
    admin.delete_network(path)
    leave((early, late))


def test_a_sender_that_does_not_receive_hears_nothing(programs: Ipnctl, compiled: Compiler) -> None:
    path = programs.path("deaf")
    sender = start(programs, compiled("announce"), "sender", path)
    wait_for_members(path, writers=1)
    with ipn.connect(path, timeout=TIMEOUT) as member:
        wait_for_members(path, writers=2)
        member.send(b"nobody listens")
        sender.feed(b"heard\n")
        assert member.recv() == b"heard"
        assert [port["tx_frames"] for port in admin.show_network(path)["ports"] if port["port"] != member.port] == [0]
    assert sender.end().ok().out == b""
