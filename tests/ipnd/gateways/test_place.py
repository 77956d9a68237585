"""Socket files that gateways make: never over what is somebody else's, and with the rights of who asked."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ipnd.access import Peer
from ipnd.gateways.place import BACKLOG, bind_at, check_path, is_alive, remove_file
from tests.ipnctl.command import Ipnctl
from tests.peers import NOBODY, as_user, requires_root
from tests.running import RunningDaemon

SELF = Peer(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
OTHER = Peer(pid=os.getpid(), uid=NOBODY, gid=NOBODY)
KINDS = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    """Give what closes sockets at the end."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_is_bound_with_the_very_mode_whatever_the_umask(
    short_directory: Path, kind: socket.SocketKind
) -> None:
    path = str(short_directory / "s")
    old = os.umask(0o077)
    try:
        sock, place = bind_at(path, kind, SELF, 0o666)
    finally:
        os.umask(old)
    with sock:
        assert os.stat(path).st_mode & 0o7777 == 0o666
        assert sock.getsockname() == path
        assert place.key == (os.stat(path).st_dev, os.stat(path).st_ino)
    place.remove()
    assert not os.path.exists(path)


@requires_root
def test_a_socket_belongs_to_who_asked_and_to_the_group_of_the_network(short_directory: Path) -> None:
    short_directory.chmod(0o777)
    path = str(short_directory / "s")
    sock, place = bind_at(path, socket.SOCK_STREAM, OTHER, 0o660, NOBODY)
    sock.close()
    info = os.stat(path)
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (NOBODY, NOBODY, 0o660)
    assert os.geteuid() == 0
    place.remove()
    assert not os.path.exists(path)


@requires_root
def test_nothing_is_made_where_who_asked_may_not(short_directory: Path) -> None:
    with pytest.raises(PermissionError, match=r"cannot make the socket .*: permission denied"):
        bind_at(str(short_directory / "s"), socket.SOCK_STREAM, OTHER, 0o660)
    assert os.listdir(short_directory) == []
    assert os.geteuid() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_stale_socket_is_replaced_and_a_living_one_is_not(short_directory: Path, kind: socket.SocketKind) -> None:
    path = str(short_directory / "s")
    with socket.socket(socket.AF_UNIX, kind) as old:
        old.bind(path)
        if kind != socket.SOCK_DGRAM:
            old.listen(BACKLOG)
        assert is_alive(path)
        with pytest.raises(OSError, match="somebody serves") as refused:
            bind_at(path, socket.SOCK_DGRAM, SELF, 0o600)
        assert refused.value.errno == errno.EADDRINUSE
    assert not is_alive(path)
    sock, place = bind_at(path, socket.SOCK_DGRAM, SELF, 0o600)
    sock.close()
    place.remove()


@requires_root
def test_a_stale_socket_of_another_user_stays(short_directory: Path) -> None:
    short_directory.chmod(0o777)
    path = str(short_directory / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(path)
    os.chmod(path, 0o666)
    with pytest.raises(FileExistsError, match="stale socket of user 0"):
        bind_at(path, socket.SOCK_DGRAM, OTHER, 0o600)
    assert os.stat(path).st_uid == 0


def test_what_is_no_socket_is_in_the_way_even_a_link_to_one(short_directory: Path) -> None:
    path, target = short_directory / "s", short_directory / "target"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="it is something else, not a socket"):
        bind_at(str(path), socket.SOCK_DGRAM, SELF, 0o600)
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(str(target))
    path.symlink_to(target)
    with pytest.raises(FileExistsError, match="it is a symbolic link"):
        bind_at(str(path), socket.SOCK_DGRAM, SELF, 0o600)
    assert path.is_symlink()
    assert target.exists()


def test_a_missing_directory_is_said(short_directory: Path) -> None:
    with pytest.raises(FileNotFoundError, match="its directory does not exist"):
        bind_at(str(short_directory / "no" / "s"), socket.SOCK_DGRAM, SELF, 0o600)


def test_only_the_file_that_was_made_is_removed(short_directory: Path, sockets: ExitStack) -> None:
    path = str(short_directory / "s")
    sock, place = bind_at(path, socket.SOCK_DGRAM, SELF, 0o600)
    sockets.enter_context(sock)
    os.rename(path, f"{path}.mine")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        place.remove()
        assert is_alive(path)
    remove_file(f"{path}.mine", place.key, SELF)
    assert not os.path.exists(f"{path}.mine")
    place.remove()
    assert os.path.exists(path)


def test_a_path_is_absolute_and_fits_a_socket_address() -> None:
    assert check_path("/tmp//a/../b") == "/tmp/b"
    assert check_path("/" + "x" * 106) == "/" + "x" * 106
    for path in ("b", ""):
        with pytest.raises(OSError, match="must be absolute") as refused:
            check_path(path)
        assert refused.value.errno == errno.EINVAL
    for path in ("/" + "x" * 107, "/" + "ä" * 54):
        with pytest.raises(OSError, match="too long") as refused:
            check_path(path)
        assert refused.value.errno == errno.ENAMETOOLONG


@requires_root
def test_a_users_daemon_makes_no_files_with_its_own_rights_for_somebody_else(short_directory: Path) -> None:
    """Whoever may manage a network could otherwise put sockets anywhere its daemon's user can."""
    short_directory.chmod(0o777)
    daemon = RunningDaemon(short_directory, prefix=as_user(NOBODY))
    command = Ipnctl(daemon)
    daemon.start()
    try:
        path, place = daemon.path("net"), daemon.path("x")
        command.run("net", "create", path, "--mode", "0777", prefix=as_user(NOBODY)).ok()
        for kind in ("vde", "dgram", "seqpacket"):
            refused = command.run("net", "set", path, f"--{kind}", place, prefix=as_user(1234))
            refused.failed(f"ipnd runs as user {NOBODY}", "user 1234")
            assert not os.path.exists(place)
            command.run("net", "set", path, f"--{kind}", place, prefix=as_user(NOBODY)).ok()
            assert os.stat(place).st_uid == NOBODY
            command.run("net", "set", path, "--close", place, prefix=as_user(NOBODY)).ok()
    finally:
        daemon.close()
