"""Connecting to a client's datagram socket: only to one that is its own, without following anything anywhere."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipnd.access import Peer
from ipnd.gateways.reach import connect_datagrams, pin, pinned, shown
from tests.peers import NOBODY, requires_root

SELF = Peer(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid(), command="client")
OTHER = Peer(pid=os.getpid(), uid=NOBODY, gid=NOBODY, command="client")


@pytest.fixture
def ours() -> Iterator[socket.socket]:
    """Give a datagram socket that is not connected."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        yield sock


@pytest.fixture
def theirs(short_directory: Path) -> Iterator[socket.socket]:
    """Give a client's socket, bound to ``theirs`` in a directory of its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(short_directory / "theirs"))
        sock.settimeout(5)
        yield sock


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def refusal(ours: socket.socket, path: bytes, peer: Peer = SELF) -> tuple[int | None, str]:
    """Connect, which must fail and leave no descriptor behind; return the error's number and words."""
    before = open_fds()
    with pytest.raises(OSError) as error:  # noqa: PT011 - the caller looks
        connect_datagrams(ours, path, peer)
    assert open_fds() == before
    return error.value.errno, str(error.value.strerror)


def test_frames_reach_a_socket_by_its_path_and_by_its_abstract_name(
    ours: socket.socket, theirs: socket.socket
) -> None:
    before = open_fds()
    connect_datagrams(ours, os.fsencode(theirs.getsockname()), SELF)
    ours.send(b"by path")
    assert theirs.recv(100) == b"by path"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(b"\0ipn-reach-%d" % os.getpid())
        connect_datagrams(ours, abstract.getsockname(), SELF)
        ours.send(b"by name")
        assert abstract.recv(100) == b"by name"
    assert open_fds() == before
    assert refusal(ours, b"\0ipn-reach-%d" % os.getpid())[0] == errno.ECONNREFUSED


def test_a_relative_path_is_where_the_process_is(ours: socket.socket, theirs: socket.socket) -> None:
    directory, name = os.path.split(theirs.getsockname())
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, cwd=directory)
    try:
        connect_datagrams(ours, os.fsencode(name), Peer(process.pid, os.geteuid(), os.getegid()))
        ours.send(b"found")
        assert theirs.recv(100) == b"found"
    finally:
        process.communicate(b"\n")
    assert refusal(ours, os.fsencode(name), Peer(process.pid, os.geteuid(), os.getegid()))[0] == errno.ENOENT


def test_a_pinned_socket_is_the_same_whatever_becomes_of_its_path(
    ours: socket.socket, theirs: socket.socket, short_directory: Path
) -> None:
    path = theirs.getsockname()
    fd = pin(os.fsencode(path), SELF)
    try:
        os.unlink(path)
        os.symlink("/nowhere", path)
        ours.connect(pinned(fd))
        ours.send(b"still there")
        assert theirs.recv(100) == b"still there"
    finally:
        os.close(fd)


def test_a_link_is_not_followed_and_only_a_datagram_socket_will_do(
    ours: socket.socket, theirs: socket.socket, short_directory: Path
) -> None:
    link, file = short_directory / "link", short_directory / "file"
    link.symlink_to(theirs.getsockname())
    file.write_text("")
    number, text = refusal(ours, os.fsencode(link))
    assert number == errno.ENOTSOCK
    assert "is a symbolic link" in text
    assert refusal(ours, os.fsencode(file))[0] == errno.ENOTSOCK
    assert refusal(ours, b"/dev/null")[0] == errno.ENOTSOCK
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(short_directory / "stream"))
        stream.listen()
        assert refusal(ours, os.fsencode(stream.getsockname()))[0] == errno.EPROTOTYPE
        stream.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has called there
            stream.accept()
    theirs.close()
    number, text = refusal(ours, os.fsencode(short_directory / "theirs"))
    assert number == errno.ECONNREFUSED
    assert "nobody has it open" in text


def test_a_socket_that_is_connected_elsewhere_is_told_apart(ours: socket.socket, theirs: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as friend:
        friend.bind(f"{theirs.getsockname()}-friend")
        theirs.connect(friend.getsockname())
        number, text = refusal(ours, os.fsencode(theirs.getsockname()))
    assert number == errno.EPERM
    assert "connected to another one" in text


@requires_root
def test_only_a_users_own_socket_will_do_except_for_root(ours: socket.socket, theirs: socket.socket) -> None:
    path = os.fsencode(theirs.getsockname())
    os.chmod(path, 0o777)
    number, text = refusal(ours, path, OTHER)
    assert number == errno.EPERM
    assert "belongs to user 0" in text
    os.chown(path, NOBODY, NOBODY)
    connect_datagrams(ours, path, OTHER)
    connect_datagrams(ours, path, SELF)


@requires_root
def test_a_directory_that_keeps_the_user_out_is_not_searched_for_it(
    ours: socket.socket, theirs: socket.socket, short_directory: Path
) -> None:
    path = os.fsencode(theirs.getsockname())
    os.chown(path, NOBODY, NOBODY)
    short_directory.chmod(0o700)
    number, text = refusal(ours, path, OTHER)
    assert number == errno.EACCES
    assert "cannot be reached: Permission denied" in text
    assert os.geteuid() == 0


@requires_root
def test_a_socket_of_our_own_user_that_forbids_writing_is_opened_and_the_log_says_so(
    ours: socket.socket, theirs: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    path = theirs.getsockname()
    os.chown(path, NOBODY, NOBODY)
    os.chmod(path, 0o040)
    os.seteuid(NOBODY)
    try:
        with caplog.at_level(logging.WARNING):
            connect_datagrams(ours, os.fsencode(path), OTHER)
        assert os.stat(path).st_mode & 0o777 == 0o640
        assert "has the mode 0040" in caplog.text
        caplog.clear()
        connect_datagrams(ours, os.fsencode(path), OTHER)
        assert caplog.text == ""
    finally:
        os.seteuid(0)


@requires_root
def test_a_socket_of_another_user_that_forbids_writing_stays_as_it_is(
    ours: socket.socket, theirs: socket.socket
) -> None:
    path = theirs.getsockname()
    os.chmod(path, 0o600)
    os.seteuid(NOBODY)
    try:
        number, text = refusal(ours, os.fsencode(path))
    finally:
        os.seteuid(0)
    assert number == errno.EACCES
    assert "of user 0 has the mode 0600" in text
    assert os.stat(path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "name, text",
    [
        (b"/tmp/a", "/tmp/a"),
        (b"\0abstract" + bytes(99), "@abstract"),
        (b"/tmp/a\nforged\x1b[0m", "/tmp/a?forged?[0m"),
        (b"/tmp/\xff", "/tmp/\ufffd"),
        ("/tmp/ä".encode(), "/tmp/ä"),
    ],
)
def test_an_address_is_shown_as_one_line_of_text(name: bytes, text: str) -> None:
    assert shown(name) == text


@requires_root
def test_an_abstract_name_of_somebody_elses_is_refused_before_anything_is_sent(ours: socket.socket) -> None:
    name = b"\0ipn-reach-%d" % os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
        theirs.bind(name)
        assert refusal(ours, name, OTHER) == (
            errno.EACCES, f"its data socket @ipn-reach-{os.getpid()} belongs to user {os.geteuid()}",
        )  # fmt: skip
        os.fchown(theirs.fileno(), NOBODY, NOBODY)
        connect_datagrams(ours, name, OTHER)
        ours.send(b"its own")
        assert theirs.recv(100) == b"its own"
