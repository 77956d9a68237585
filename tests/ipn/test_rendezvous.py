"""Finding the daemon behind a path, by either of its addresses, and making sure that it is the right one."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipn
from ipn.rendezvous import abstract_address, control_path, open_daemon, open_network, short_address
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.raw import raw_member
from tests.running import RunningDaemon
from tests.waiting import eventually

# -- addresses ---------------------------------------------------------------------------------------------


def test_a_network_also_listens_on_the_abstract_address_of_its_file(ipnd: RunningDaemon) -> None:
    with ipn.bind(ipnd.path("net"), timeout=5) as net:
        net.connect()
        info = os.stat(ipnd.path("net"))
        address = f"\0ipn/{info.st_dev:x}/{info.st_ino}"
        assert abstract_address(info) == address.encode()
        with raw_member(address) as member:
            member.send_frame(b"by the other way")
            assert net.recv() == b"by the other way"


def test_the_abstract_address_ends_with_its_network(ipnd: RunningDaemon) -> None:
    with ipn.bind(ipnd.path("net")):
        address = abstract_address(os.stat(ipnd.path("net"))).decode()
        raw_member(address).close()

    def refused() -> bool:
        try:
            raw_member(address).close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(refused)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"IPND_SOCKET": "/a/control", "XDG_RUNTIME_DIR": "/run/user/7"}, "/a/control"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/ipnd/control"),
        ({"IPND_SOCKET": "", "XDG_RUNTIME_DIR": ""}, None),
        ({}, None),
    ],
)
def test_the_control_socket_is_where_the_environment_says_else_by_convention(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str | None
) -> None:
    for name in ("IPND_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for uid, conventional in ((0, "/run/ipnd/control"), (1234, "/tmp/ipnd-1234/control")):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert control_path() == (expected or conventional)


@pytest.mark.parametrize("length", [107, 108, 200, 2000])
def test_paths_of_any_length_can_be_bound_and_connected(ipnd: RunningDaemon, length: int) -> None:
    directory = ipnd.directory
    while len(str(directory)) < length - 60:
        directory /= "d" * 50
    directory /= "d" * (length - len(str(directory)) - len("/x/net") + 1)
    directory.mkdir(parents=True)
    path = str(directory / "net")
    assert len(path) == length
    with ipn.bind(path, timeout=5) as net, ipn.connect(path, timeout=5) as other:
        net.connect()
        assert net.getsockname() == path
        assert net.show()["path"] == path
        other.send(b"from afar")
        assert net.recv() == b"from afar"
    eventually(lambda: os.listdir(directory) == [])


def test_a_file_name_too_long_for_a_socket_is_refused_as_such(ipnd: RunningDaemon) -> None:
    # sun_path has room for 107 bytes: /proc/self/fd/N/ shortens the directory, not the name in it.
    with pytest.raises(OSError, match="too long") as refusal:
        ipn.bind(ipnd.path("n" * 150))
    assert refusal.value.errno == errno.ENAMETOOLONG


def test_a_short_path_is_its_own_address() -> None:
    with short_address("/" + "x" * 106) as address:
        assert address == "/" + "x" * 106


def test_the_bytes_of_a_path_count_and_not_its_letters(short_directory: Path) -> None:
    directory = short_directory / ("é" * 50)
    directory.mkdir()
    path = str(directory / "net")
    assert len(path) < 107 < len(os.fsencode(path))
    with (
        short_address(path) as address,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
    ):
        sock.bind(address)
    assert os.listdir(directory) == ["net"]


def test_a_relative_path_and_a_symbolic_link_lead_to_the_same_network(
    ipnd: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ipnd.directory)
    os.symlink("net", "link")
    with ipn.bind("net", timeout=5) as net:
        net.connect()
        for path in ("net", "./net", "link", ipnd.path("link")):
            with ipn.connect(path) as other:
                other.send(path.encode())
            assert net.recv() == path.encode()
        assert net.show()["path"] == ipnd.path("net")


# -- nobody is there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nothing", "no directory"])
def test_where_nothing_is_there_is_no_network(ipnd: RunningDaemon, kind: str) -> None:
    path = ipnd.path("net" if kind == "nothing" else "gone/net")
    with pytest.raises(FileNotFoundError, match="no network at"):
        ipn.connect(path)


def test_a_stale_socket_file_has_no_network_behind_it(ipnd: RunningDaemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(ipnd.path("net"))
    with pytest.raises(ConnectionRefusedError, match="no network is behind"):
        ipn.connect(ipnd.path("net"))


@pytest.mark.parametrize("kind", ["file", "directory", "device"])
def test_what_is_no_socket_refuses_connections(ipnd: RunningDaemon, kind: str) -> None:
    path = Path(ipnd.path("net"))
    if kind == "file":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(ConnectionRefusedError, match="is not a socket"):
        ipn.connect(path)


@contextlib.contextmanager
def stream_server(path: str, answer: bytes) -> Iterator[None]:
    """Serve one connection in the way of another protocol: send ``answer`` and close."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(answer)
            sock.recv(1)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        server = threading.Thread(target=serve)
        server.start()
        try:
            yield
        finally:
            server.join(5)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\0\0\0\2[]", b"\0\0\0\4{id}"])
def test_who_speaks_another_protocol_is_no_network(short_directory: Path, answer: bytes) -> None:
    path = str(short_directory / "net")
    with stream_server(path, answer), pytest.raises(ConnectionRefusedError, match=path):
        ipn.connect(path)


def test_a_socket_of_another_kind_is_no_network(short_directory: Path) -> None:
    path = str(short_directory / "net")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        with pytest.raises(ConnectionRefusedError):
            ipn.connect(path)


def test_without_a_daemon_the_error_says_how_to_start_one(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPND_SOCKET", str(short_directory / "control"))
    monkeypatch.setenv("IPN_AUTOSTART", "0")
    with pytest.raises(ConnectionRefusedError, match="start one with: ipnd"):
        open_daemon(autostart=True)
    assert os.listdir(short_directory) == []


def test_attempts_that_fail_leave_no_descriptors(ipnd: RunningDaemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(ipnd.path("stale"))
    Path(ipnd.path("file")).touch()
    before = os.listdir("/proc/self/fd")
    for name in ("stale", "file", "nothing") * 5:
        with pytest.raises(OSError, match=name):
            ipn.connect(ipnd.path(name))
    assert os.listdir("/proc/self/fd") == before


# -- other users -------------------------------------------------------------------------------------------

CLIENT = """
import sys, ipn
try:
    with ipn.connect(sys.argv[1], timeout=5) as net:
        print("joined", net.rights, flush=True)
        if "r" in net.rights:
            print(net.recv().decode(), flush=True)
        if "w" in net.rights:
            net.send(b"from another user")
except OSError as error:
    print(type(error).__name__, error.strerror)
"""

SQUATTER = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
    listener.bind(sys.argv[1].replace("@", "\\0"))
    listener.listen()
    print("listening", flush=True)
    while True:
        sock, _ = listener.accept()
        print("visited", flush=True)
        sock.close()
"""


def client_of_user(ipnd: RunningDaemon, path: str, uid: int = NOBODY) -> subprocess.Popen[str]:
    """Start a program of another user that joins ``path``, and says on stdout how it went."""
    return subprocess.Popen(
        [*as_user(uid), sys.executable, "-c", CLIENT, path], env=ipnd.env, stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> str:
    """Return all that a client says until its end."""
    with process:
        return process.communicate(timeout=10)[0]


@contextlib.contextmanager
def squatter(address: str) -> Iterator[None]:
    """Let another user's process listen at ``address`` (``@``: abstract)."""
    command = [*as_user(NOBODY), sys.executable, "-c", SQUATTER, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield
        finally:
            process.kill()


@requires("setpriv")
@requires_root
def test_who_may_only_receive_gets_in_by_the_abstract_address(ipnd: RunningDaemon) -> None:
    with ipn.bind(ipnd.path("net"), mode=0o774, timeout=5) as net:
        net.connect()
        os.chmod(ipnd.path("net"), 0o774)
        with client_of_user(ipnd, ipnd.path("net")) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "joined r\n"
            net.send(b"for readers")
            assert client.stdout.readline() == "for readers\n"


@requires("setpriv")
@requires_root
def test_who_may_do_nothing_is_refused_with_eacces(ipnd: RunningDaemon) -> None:
    with ipn.bind(ipnd.path("net")):
        os.chmod(ipnd.path("net"), 0o770)
        assert said(client_of_user(ipnd, ipnd.path("net"))).startswith("PermissionError")


@requires("setpriv")
@requires_root
def test_an_impostor_at_the_path_is_refused(short_directory: Path) -> None:
    # A socket file of root's that another user serves: the file was given away, or renamed into place.
    os.chown(short_directory, NOBODY, NOBODY)
    path = str(short_directory / "net")
    with squatter(path):
        os.chown(path, 0, 0)
        with pytest.raises(ConnectionRefusedError, match=f"answered by user {NOBODY}"):
            open_network(path)


@requires("setpriv")
@requires_root
def test_the_owner_of_the_file_is_no_impostor(short_directory: Path) -> None:
    os.chown(short_directory, NOBODY, NOBODY)
    path = str(short_directory / "net")
    with squatter(path), pytest.raises(ConnectionRefusedError, match="not an IPN network"):
        open_network(path)


@requires("setpriv")
@requires_root
def test_an_impostor_at_the_abstract_address_is_refused(ipnd: RunningDaemon) -> None:
    # The daemon is dead and its file still there; whoever lacks w is led to the name that anybody can take.
    with ipn.bind(ipnd.path("net")):
        os.chmod(ipnd.path("net"), 0o774)
        ipnd.kill()
        info = os.stat(ipnd.path("net"))
        with squatter(f"@ipn/{info.st_dev:x}/{info.st_ino}"):
            answer = said(client_of_user(ipnd, ipnd.path("net"), uid=1234))
    assert answer.startswith("ConnectionRefusedError")
    assert f"answered by user {NOBODY}, who is neither root nor its owner (user 0)" in answer


@requires("setpriv")
@requires_root
def test_an_impostor_at_the_control_socket_is_refused(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(short_directory, NOBODY, NOBODY)
    control = str(short_directory / "control")
    monkeypatch.setenv("IPND_SOCKET", control)
    with squatter(control):
        os.chown(control, 0, 0)
        with pytest.raises(PermissionError, match=f"runs as user {NOBODY}, who is not trusted"):
            open_daemon()


@requires("setpriv")
@requires_root
def test_an_abstract_address_already_taken_costs_only_members_without_w(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        os.chmod(path, 0o774)
        with squatter("@" + abstract_address(os.stat(path)).decode()[1:]):
            name_fd = os.open(path, os.O_PATH)
            channel = open_daemon()
            channel.request("create", fds=(listener.fileno(), name_fd), path=path, policy=1)
            os.close(name_fd)
            with ipn.connect(path, timeout=5) as one, ipn.connect(path) as another:
                another.send(b"as ever")
                assert one.recv() == b"as ever"
            assert "answered by user" in said(client_of_user(ipnd, path, uid=1234))
            channel.close()
    ipnd.wait_for_log("abstract address is taken")
