"""The service manager's protocols, with a stand-in for systemd: socket activation and readiness."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipn.control import MAGIC, MAX_REPLY, ControlDecoder, encode_message
from ipn.rendezvous import open_daemon
from ipnd import systemd
from tests.running import RunningDaemon, clean_environment

STAND_IN = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in sys.argv[2].split(",")]
for target, fd in enumerate(fds, 3):
    os.dup2(fd, target)
os.environ["LISTEN_PID"] = sys.argv[1] or str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(fds))
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Passes the given descriptors from 3 on and becomes the service, as sd_listen_fds(3) describes."""


def as_service(*fds: int, pid: str = "") -> tuple[str, ...]:
    """Return the prefix that runs a command with ``fds`` passed to process ``pid`` (empty: to itself)."""
    return (sys.executable, "-c", STAND_IN, pid, ",".join(map(str, fds)))


def run_service(directory: Path, *fds: int) -> subprocess.CompletedProcess[str]:
    """Start an ipnd with ``fds`` passed that must refuse them, and return how it ended."""
    control = str(directory / "control")
    command = [*as_service(*fds), sys.executable, "-m", "ipnd", "--control", control]
    return subprocess.run(
        command,
        pass_fds=fds,
        env=clean_environment(control),
        capture_output=True,
        text=True,
        timeout=5,
        check=False,
    )


@pytest.fixture
def activation(short_directory: Path) -> Iterator[socket.socket]:
    """Give the control socket that the service manager listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(short_directory / "control"))
        listener.listen()
        yield listener


@pytest.fixture
def activated(
    short_directory: Path, activation: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningDaemon]:
    """Give a daemon, not yet started, that is passed ``activation``."""
    fd = activation.fileno()
    daemon = RunningDaemon(short_directory, prefix=as_service(fd), pass_fds=(fd,))
    monkeypatch.setenv("IPND_SOCKET", daemon.control)
    monkeypatch.setenv("IPN_AUTOSTART", "0")
    yield daemon
    daemon.close()


def test_who_connects_before_the_daemon_runs_is_served_once_it_does(activated: RunningDaemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as early:
        early.settimeout(5)
        early.connect(activated.control)
        early.sendall(MAGIC + encode_message({"id": 1, "op": "hello", "version": 1}))
        activated.start()
        (reply,) = ControlDecoder(MAX_REPLY).feed(early.recv(4096))
    assert reply["id"] == 1
    assert reply["ok"]["pid"] == activated.process.pid


def test_the_socket_passed_is_served_and_not_replaced(activated: RunningDaemon) -> None:
    inode = os.stat(activated.control).st_ino
    activated.start()
    assert os.stat(activated.control).st_ino == inode
    channel = open_daemon()
    assert channel.info["pid"] == activated.process.pid
    channel.close()


def test_the_socket_file_stays_for_the_service_manager_to_activate_again(activated: RunningDaemon) -> None:
    activated.start()
    activated.end()
    assert os.path.exists(activated.control)
    activated.start()
    channel = open_daemon()
    assert channel.info["pid"] == activated.process.pid
    channel.close()


def test_descriptors_meant_for_another_process_are_not_taken(short_directory: Path, activation: socket.socket) -> None:
    # What a service's child inherits is not for it: LISTEN_PID says whose they are.
    inode = os.stat(short_directory / "control").st_ino
    fd = activation.fileno()
    daemon = RunningDaemon(short_directory, prefix=as_service(fd, pid="1"), pass_fds=(fd,))
    daemon.start()
    try:
        assert os.stat(daemon.control).st_ino != inode
    finally:
        daemon.close()


def test_two_sockets_are_one_too_many(short_directory: Path, activation: socket.socket) -> None:
    ended = run_service(short_directory, activation.fileno(), activation.fileno())
    assert ended.returncode == 1
    assert ended.stderr == "ipnd: the service manager passed 2 sockets; one is wanted\n"


def assert_refused(ended: subprocess.CompletedProcess[str]) -> None:
    """The daemon refused to start, with one line that says why."""
    assert ended.returncode == 1
    assert ended.stderr.startswith("ipnd: ")
    assert ended.stderr.count("\n") == 1


def test_a_file_is_refused(short_directory: Path) -> None:
    with open(os.devnull, "rb") as file:
        assert_refused(run_service(short_directory, file.fileno()))


@pytest.mark.parametrize("family, kind", [(socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_INET, socket.SOCK_STREAM)])
def test_a_socket_of_another_kind_is_refused(short_directory: Path, family: int, kind: int) -> None:
    with socket.socket(family, kind) as sock:
        assert_refused(run_service(short_directory, sock.fileno()))


def test_a_socket_that_does_not_listen_is_refused(short_directory: Path) -> None:
    # What a socket unit with Accept=yes would pass: one client's connection.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            ended = run_service(short_directory, theirs.fileno())
        except subprocess.TimeoutExpired:
            pytest.fail("ipnd serves a socket that does not listen")
    assert_refused(ended)


# -- readiness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_service_manager_is_told_of_the_start_and_of_the_end(short_directory: Path, abstract: bool) -> None:
    name = f"@ipn-test-{os.getpid()}" if abstract else str(short_directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        daemon = RunningDaemon(short_directory)
        daemon.env["NOTIFY_SOCKET"] = name
        try:
            daemon.start()
            assert manager.recv(4096).decode().splitlines() == ["READY=1", f"STATUS=serving {daemon.control}"]
            daemon.end()
            assert manager.recv(4096) == b"STOPPING=1"
        finally:
            daemon.close()


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "@nobody-listens-here", "@" + "x" * 200])
def test_a_notify_socket_that_cannot_be_reached_hinders_nobody(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify("READY=1")


def test_without_a_notify_socket_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
