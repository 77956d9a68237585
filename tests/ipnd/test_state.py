"""Persistent networks on disk: written whole or not at all, and made again as their owner left them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ipn
from ipnd.state import SavedNetwork, load, recreate, save
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.raw import raw_member
from tests.running import RunningDaemon

SAVED = SavedNetwork("/tmp/net", policy=1, mtu=9000, maxports=5, pool=7, flags=1, mode=0o750, uid=0, gid=0)

numbers = st.integers(0, 2**31)
saved_networks = st.builds(
    SavedNetwork,
    path=st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.binary(max_size=20).map(os.fsdecode),
    **dict.fromkeys(["policy", "mtu", "maxports", "pool", "flags", "mode", "uid", "gid"], numbers),
)


# -- the file ----------------------------------------------------------------------------------------------


@given(st.lists(saved_networks, max_size=4))
def test_what_is_saved_is_loaded_again_whatever_bytes_the_paths_have(
    tmp_path_factory: pytest.TempPathFactory, networks: list[SavedNetwork]
) -> None:
    path = tmp_path_factory.getbasetemp() / "state.json"
    save(path, networks)
    assert load(path) == networks


def test_where_nothing_was_saved_there_are_no_networks(tmp_path: Path) -> None:
    assert load(tmp_path / "none.json") == []


def test_the_file_and_its_new_directory_are_the_daemons_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    save(path, [SAVED])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_save_that_fails_leaves_the_old_list_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    save(path, [SAVED])
    # JSON has no word for a set: writing fails when half of the list is already out.
    unspeakable = attrs.evolve(SAVED, path={1})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        save(path, [SAVED, unspeakable])
    assert load(path) == [SAVED]
    assert os.listdir(tmp_path) == ["state.json"]


def test_who_reads_while_it_is_written_finds_the_old_list_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    lists = [[attrs.evolve(SAVED, mtu=n)] * n for n in (1, 200)]
    save(path, lists[0])
    written = threading.Event()

    def write() -> None:
        for turn in range(20):
            save(path, lists[turn % 2])
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not written.is_set():
        seen.append(len(load(path)))
    writer.join()
    assert set(seen) <= {1, 200}
    assert seen
    assert os.listdir(tmp_path) == ["state.json"]


ENTRY = '{"path": "/n", "policy": 1, "mtu": 1, "maxports": 1, "pool": 1, "flags": 0, "mode": 0, "uid": 0, "gid": 0}'
DAMAGED = {
    "empty": b"",
    "cut off": b'{"version": 1, "networks": [{"path": "/tmp/n',
    "noise": bytes(range(256)),
    "zeros, as some file systems leave after a crash": bytes(4096),
    "null": b"null",
    "a list": b"[]",
    "no version": b'{"networks": []}',
    "another version": b'{"version": 2, "networks": []}',
    "no networks": b'{"version": 1}',
    "networks that are no list": b'{"version": 1, "networks": 7}',
    "a network that is no object": b'{"version": 1, "networks": [7]}',
    "a network without fields": b'{"version": 1, "networks": [{}]}',
    "a field too many": f'{{"version": 1, "networks": [{ENTRY[:-1]}, "x": 1}}]}}'.encode(),
    "a number that is text": f'{{"version": 1, "networks": [{ENTRY}]}}'.replace('"mtu": 1', '"mtu": "1"').encode(),
    "a number that is true": f'{{"version": 1, "networks": [{ENTRY}]}}'.replace('"mtu": 1', '"mtu": true').encode(),
    "a path that is a number": f'{{"version": 1, "networks": [{ENTRY}]}}'.replace('"/n"', "7").encode(),
    "deep nesting": b"[" * 100_000,
}


def test_the_entry_that_the_damaged_files_are_made_of_is_itself_sound(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(f'{{"version": 1, "networks": [{ENTRY}]}}')
    assert len(load(path)) == 1


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_put_aside_unchanged_with_a_log_line(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    assert load(path) == []
    assert (tmp_path / "state.json.unreadable").read_bytes() == content
    assert not path.exists()
    (record,) = caplog.records
    assert "state.json.unreadable" in record.getMessage()


# -- making a network's socket file again ------------------------------------------------------------------


def stale_socket(path: Path, mode: int) -> None:
    """Leave the socket file of a daemon that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
    path.chmod(mode)


@contextlib.contextmanager
def recreated(saved: SavedNetwork) -> Iterator[tuple[socket.socket, int]]:
    listener, name_fd = recreate(saved)
    try:
        yield listener, name_fd
    finally:
        listener.close()
        os.close(name_fd)


def saved_at(path: Path, mode: int = 0o750) -> SavedNetwork:
    return attrs.evolve(SAVED, path=str(path), mode=mode, uid=os.geteuid(), gid=os.getegid())


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o604, 0o070, 0o555])
def test_a_stale_socket_file_is_made_again_with_the_mode_it_has_now(short_directory: Path, mode: int) -> None:
    path = short_directory / "net"
    stale_socket(path, mode)
    with recreated(saved_at(path, mode=0o700)) as (_, name_fd):
        info = path.stat()
        assert stat.S_IMODE(info.st_mode) == mode
        assert os.fstat(name_fd).st_ino == info.st_ino


def test_a_socket_file_that_is_gone_is_made_again_with_the_mode_saved_whatever_the_umask(
    short_directory: Path,
) -> None:
    path = short_directory / "net"
    old = os.umask(0o077)
    try:
        with recreated(saved_at(path, mode=0o776)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o776
    finally:
        os.umask(old)


@requires("setfacl")
def test_the_acl_of_a_stale_socket_file_is_kept(short_directory: Path) -> None:
    path = short_directory / "net"
    stale_socket(path, 0o700)
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:77:r", str(path)], check=True)
    acl, mode = os.getxattr(path, "system.posix_acl_access"), path.stat().st_mode
    with recreated(saved_at(path)):
        assert os.getxattr(path, "system.posix_acl_access") == acl
        assert path.stat().st_mode == mode


@requires_root
def test_owner_and_group_of_a_stale_socket_file_are_kept(short_directory: Path) -> None:
    os.chown(short_directory, 1234, 1234)
    path = short_directory / "net"
    stale_socket(path, 0o750)
    os.chown(path, 1234, 77)
    with recreated(attrs.evolve(saved_at(path), uid=1234, gid=1234)):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 77)
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_programs_can_connect_as_soon_as_it_is_made(short_directory: Path) -> None:
    path = short_directory / "net"
    with recreated(saved_at(path)) as (listener, _), raw_member(str(path)):
        listener.settimeout(5)
        listener.accept()[0].close()
    assert os.listdir(short_directory) == ["net"]


def test_what_is_no_socket_is_left_alone(short_directory: Path) -> None:
    path = short_directory / "net"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        recreate(saved_at(path))
    assert path.read_text() == "precious"


def test_a_socket_that_somebody_serves_is_left_alone(short_directory: Path) -> None:
    path = short_directory / "net"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        inode = path.stat().st_ino
        with pytest.raises(FileExistsError):
            recreate(saved_at(path))
        assert path.stat().st_ino == inode


def test_without_its_directory_a_network_cannot_be_made_again(short_directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        recreate(saved_at(short_directory / "gone" / "net"))


RECREATE_READ_ONLY = """
import os, socket, sys
from ipnd.state import SavedNetwork, recreate
path = sys.argv[1]
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
    sock.bind(path)
os.chmod(path, 0o555)
recreate(SavedNetwork(path, 1, 1514, 32, 8, 0, 0o555, os.geteuid(), os.getegid()))
"""


@requires("setpriv")
@requires_root
def test_a_network_on_which_its_owner_may_only_receive_is_made_again_too(short_directory: Path) -> None:
    # Without w the owner cannot connect(2) to find out whether somebody serves it.
    os.chown(short_directory, NOBODY, NOBODY)
    command = [*as_user(NOBODY), sys.executable, "-c", RECREATE_READ_ONLY, str(short_directory / "net")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


# -- the daemon --------------------------------------------------------------------------------------------


def test_a_persistent_network_outlives_the_daemons_death_with_options_and_mode(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    ipn.bind(path, mtu=9000, ports=5, pool=7, lossless=True, persistent=True).close()
    os.chmod(path, 0o640)
    ipnd.kill()
    ipnd.restart()
    with ipn.connect(path) as net:
        shown = net.show()
    expected = {"mtu": 9000, "maxports": 5, "pool": 7, "lossless": True, "mode": "0640", "persistent": True}
    assert {key: shown[key] for key in expected} == expected


def test_other_networks_do_not_come_back(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path):
        ipnd.kill()
    ipnd.restart()
    with pytest.raises(ConnectionRefusedError):
        ipn.connect(path)


def test_a_damaged_state_file_does_not_keep_the_daemon_from_starting(ipnd: RunningDaemon) -> None:
    ipn.bind(ipnd.path("net"), persistent=True).close()
    ipnd.kill()
    state = Path(ipnd.control + ".state.json")
    state.write_bytes(state.read_bytes()[:-20])
    ipnd.restart()
    ipnd.wait_for_log("cannot be read")
    with ipn.bind(ipnd.path("another"), persistent=True):
        pass
    assert [saved.path for saved in load(state)] == [ipnd.path("another")]


def test_a_network_that_cannot_be_made_again_is_not_forgotten(ipnd: RunningDaemon) -> None:
    path = Path(ipnd.path("net"))
    ipn.bind(path, persistent=True).close()
    ipnd.kill()
    path.unlink()
    path.mkdir()
    ipnd.restart()
    ipnd.wait_for_log("cannot be made again")
    path.rmdir()
    ipnd.restart()
    with ipn.connect(path) as net:
        assert net.show()["persistent"] is True
