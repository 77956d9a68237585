"""``bind`` creates: the caller's umask, directory and stale files; and however many bind at once, one network."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipn
from ipn.create import Creation, create_network
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.raw import raw_member
from tests.running import RunningDaemon


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def stale_socket(path: str) -> os.stat_result:
    """Leave a socket file that nobody serves, and return its status."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)
    return os.stat(path)


BIND = """
import sys, ipn
try:
    with ipn.bind(sys.argv[1]):
        print("bound", flush=True)
        sys.stdin.read()
except OSError as error:
    print(type(error).__name__, error.strerror, flush=True)
"""


@contextlib.contextmanager
def bound_by(ipnd: RunningDaemon, path: str, *prefix: str) -> Iterator[str]:
    """Let another process bind ``path`` and give what it says; it closes the socket in the end."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", BIND, path],
        env=ipnd.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline()


# -- the socket file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask, mode, expected",
    [
        (0o000, 0o777, 0o777),
        (0o022, 0o777, 0o755),
        (0o077, 0o777, 0o700),
        (0o027, 0o770, 0o750),
        (0o000, 0o640, 0o640),
        (0o777, 0o777, 0o000),
        (0o022, 0o000, 0o000),
    ],
)
def test_the_socket_file_gets_the_mode_set_less_the_umask(
    ipnd: RunningDaemon, mask: int, mode: int, expected: int
) -> None:
    with umask(mask), ipn.bind(ipnd.path("net"), mode=mode) as net:
        info = os.stat(ipnd.path("net"))
        assert stat.S_ISSOCK(info.st_mode)
        assert stat.S_IMODE(info.st_mode) == expected
        assert net.show()["mode"] == f"{expected:04o}"


def test_without_a_mode_set_it_is_777_less_the_umask(ipnd: RunningDaemon) -> None:
    with umask(0o026), ipn.socket() as net:
        net.bind(ipnd.path("net"))
        assert stat.S_IMODE(os.stat(ipnd.path("net")).st_mode) == 0o751


@requires("setpriv")
@requires_root
def test_the_socket_file_belongs_to_the_caller_whoever_runs_the_daemon(ipnd: RunningDaemon) -> None:
    os.chown(ipnd.directory, NOBODY, NOBODY)
    with bound_by(ipnd, ipnd.path("net"), *as_user(NOBODY)) as answer:
        assert answer == "bound\n"
        info = os.stat(ipnd.path("net"))
        assert (info.st_uid, info.st_gid) == (NOBODY, NOBODY)


@requires("setpriv")
@requires_root
def test_the_rules_of_the_directory_apply_to_the_caller(ipnd: RunningDaemon) -> None:
    with bound_by(ipnd, ipnd.path("net"), *as_user(NOBODY)) as answer:
        assert answer.startswith("PermissionError")
    assert "net" not in os.listdir(ipnd.directory)


def test_without_its_directory_no_network_is_created(ipnd: RunningDaemon) -> None:
    with pytest.raises(FileNotFoundError):
        ipn.bind(ipnd.path("gone/net"))


def test_a_network_the_daemon_refuses_leaves_no_file(ipnd: RunningDaemon) -> None:
    with pytest.raises(OSError, match="no delivery policy 77") as refusal:
        create_network(ipnd.path("net"), 77, Creation())
    assert refusal.value.errno == errno.EPROTONOSUPPORT
    assert "net" not in os.listdir(ipnd.directory)


def test_without_a_daemon_no_file_is_left(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPND_SOCKET", str(short_directory / "control"))
    monkeypatch.setenv("IPN_AUTOSTART", "0")
    with pytest.raises(ConnectionRefusedError):
        ipn.bind(short_directory / "net")
    assert os.listdir(short_directory) == []


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_an_address_that_is_no_path_is_einval(ipnd: RunningDaemon, path: str) -> None:
    with pytest.raises(OSError, match="path of a file") as refusal:
        ipn.bind(path)
    assert refusal.value.errno == errno.EINVAL


# -- what is already there ---------------------------------------------------------------------------------


def test_binding_a_network_that_exists_joins_it_for_management_and_changes_nothing(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, mtu=9000, ports=5) as first:
        inode = os.stat(path).st_ino
        with ipn.bind(path, mtu=100, ports=2, mode=0o700) as second:
            assert second.getsockopt(0, ipn.IPN_SO_MTU) == 9000
            assert second.getsockopt(0, ipn.IPN_SO_NUMNODES) == 5
            assert os.stat(path).st_ino == inode
        assert first.show()["members"] == 0
        first.connect()


def test_a_stale_socket_file_of_the_callers_is_made_anew(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    stale_socket(path)
    os.chmod(path, 0o600)
    with umask(0), ipn.bind(path, timeout=5) as net, ipn.connect(path) as other:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o777
        net.connect()
        other.send(b"alive")
        assert net.recv() == b"alive"


def test_the_file_of_a_daemon_that_was_killed_is_made_anew(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path):
        ipnd.kill()
    assert os.path.exists(path)
    ipnd.restart()
    with ipn.bind(path, timeout=5) as net, ipn.connect(path) as other:
        net.connect()
        other.send(b"alive")
        assert net.recv() == b"alive"


@requires("setpriv")
@requires_root
def test_a_stale_socket_file_without_w_for_its_owner_is_made_anew_too(ipnd: RunningDaemon) -> None:
    os.chown(ipnd.directory, NOBODY, NOBODY)
    path = ipnd.path("net")
    stale_socket(path)
    os.chmod(path, 0o555)
    os.chown(path, NOBODY, NOBODY)
    with bound_by(ipnd, path, *as_user(NOBODY)) as answer:
        assert answer == "bound\n"


@requires_root
def test_somebody_elses_stale_socket_file_is_refused_and_stays(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    stale_socket(path)
    os.chown(path, NOBODY, NOBODY)
    inode = os.stat(path).st_ino
    with pytest.raises(ConnectionRefusedError, match=f"belongs to user {NOBODY}"):
        ipn.bind(path)
    assert os.stat(path).st_ino == inode


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_socket_is_refused_and_stays(ipnd: RunningDaemon, kind: str) -> None:
    path = Path(ipnd.path("net"))
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    with pytest.raises(ConnectionRefusedError, match="is not a socket"):
        ipn.bind(path)
    assert path.is_dir() or path.read_text() == "precious"


def test_a_socket_that_something_else_serves_is_refused_and_stays(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def close_all_but_the_last() -> None:
            while True:
                with listener.accept()[0] as sock:
                    if sock.recv(4) == b"LAST":
                        return

        server = threading.Thread(target=close_all_but_the_last)
        server.start()
        inode = os.stat(path).st_ino
        try:
            with pytest.raises(ConnectionRefusedError):
                ipn.bind(path)
            assert os.stat(path).st_ino == inode
        finally:
            with raw_member(path) as last:
                last.sock.sendall(b"LAST")
            server.join()


def answer_to_bind(ipnd: RunningDaemon, path: str) -> str:
    """Return what a process says that binds ``path``; fail when its bind does not return."""
    command = [sys.executable, "-c", BIND, path]
    try:
        return subprocess.run(
            command, env=ipnd.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=3, check=True
        ).stdout
    except subprocess.TimeoutExpired:
        pytest.fail("bind did not return")


def test_a_dangling_symbolic_link_is_refused(ipnd: RunningDaemon) -> None:
    os.symlink("nowhere", ipnd.path("link"))
    assert answer_to_bind(ipnd, ipnd.path("link")).startswith("ConnectionRefusedError")


def test_a_stale_socket_file_behind_a_symbolic_link_is_made_anew_where_it_was(ipnd: RunningDaemon) -> None:
    stale_socket(ipnd.path("net"))
    os.symlink("net", ipnd.path("link"))
    assert answer_to_bind(ipnd, ipnd.path("link")) == "bound\n"
    assert os.readlink(ipnd.path("link")) == "net"


# -- at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [False, True], ids=["no file there", "a stale file there"])
def test_however_many_bind_at_once_they_are_on_one_network(ipnd: RunningDaemon, stale: bool) -> None:
    binders = 4
    for turn in range(8):
        path = ipnd.path(f"net{turn}")
        if stale:
            stale_socket(path)
        outcomes: list[ipn.Socket | BaseException] = []
        together = threading.Barrier(binders)

        def bind(path: str, together: threading.Barrier, outcomes: list[ipn.Socket | BaseException]) -> None:
            together.wait()
            try:
                outcomes.append(ipn.bind(path, timeout=5))
            except BaseException as error:  # noqa: BLE001 - reported by the test's thread
                outcomes.append(error)

        threads = [threading.Thread(target=bind, args=(path, together, outcomes)) for _ in range(binders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sockets = [outcome for outcome in outcomes if isinstance(outcome, ipn.Socket)]
        try:
            assert len(sockets) == binders, outcomes
            for sock in sockets:
                sock.connect()
            sockets[0].send(b"all on one network?")
            assert [sock.recv() for sock in sockets[1:]] == [b"all on one network?"] * (binders - 1)
        finally:
            for sock in sockets:
                sock.close()


def test_a_network_can_be_bound_anew_while_its_last_socket_is_closing(ipnd: RunningDaemon) -> None:
    # The daemon learns of a close a moment after it: who binds within that moment must not meet the old network.
    for _ in range(100):
        with ipn.bind(ipnd.path("net")) as net:
            net.connect()


def test_two_processes_that_bind_at_once_are_on_one_network(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with bound_by(ipnd, path) as first, bound_by(ipnd, path) as second:
        assert [first, second] == ["bound\n", "bound\n"]
        with ipn.bind(path) as net:
            assert net.show()["path"] == path
