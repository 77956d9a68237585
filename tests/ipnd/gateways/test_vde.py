"""A network as a VDE switch: the real ``vde_plug`` and ``dpipe``, and clients by hand, against a real daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from ipn import admin
from tests.ipnctl.command import Ipnctl
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

from .clients import (
    DatagramClient,
    PacketClient,
    VdeClient,
    data_sockets,
    frame,
    number_of,
    resting_fds,
    stopped,
    vde_answer,
    vde_ask,
    vde_ask_as,
    vde_connection,
    vde_request,
    wait_until_empty,
)


@pytest.fixture
def path(ipnd: RunningDaemon) -> str:
    """Make a network that is also a VDE switch in ``vde``, and return its path."""
    admin.create_network(ipnd.path("net"), mode=0o777, gateways=[("vde", ipnd.path("vde"))])
    return ipnd.path("net")


@pytest.fixture
def directory(ipnd: RunningDaemon, path: str) -> str:
    """Return the directory of the VDE switch."""
    return ipnd.path("vde")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Give what ends things at the end of the test."""
    with ExitStack() as stack:
        yield stack


def ports(path: str) -> list[dict[str, Any]]:
    return list(admin.show_network(path)["ports"])


def refused(path: str) -> int:
    """Return how many the gateway has turned away; the network counts them, too."""
    shown = admin.show_network(path)
    count = int(shown["fixtures"][0]["counts"].get("refused", 0))
    assert shown["refused"] == count
    return count


def wait_for_members(path: str, count: int) -> None:
    eventually(lambda: len(ports(path)) == count, message=f"the members are {ports(path)}")


def assert_works(path: str, directory: str) -> None:
    """A client hears another."""
    with VdeClient(directory) as one, VdeClient(directory) as two:
        one.send_frame(frame(4711))
        assert two.recv_frame() == frame(4711)
    wait_for_members(path, 0)
    wait_until_empty(directory)


@contextmanager
def vde_plug(path: str, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``vde_plug``, which speaks vdestream (2-byte lengths) on its pipes, until it has become a member."""
    before = {port["pid"] for port in ports(path)}
    process = subprocess.Popen(
        [*prefix, "vde_plug", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
    )
    try:
        eventually(lambda: {port["pid"] for port in ports(path)} - before)
        yield process
    finally:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(struct.pack(">H", len(data)) + data)
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    (size,) = struct.unpack(">H", process.stdout.read(2))
    return process.stdout.read(size)


# -- the real programs ---------------------------------------------------------------------------------------------


@requires("vde_plug")
def test_two_vde_plugs_exchange_frames_and_leave_nothing_behind(path: str, directory: str) -> None:
    with vde_plug(path, f"vde://{directory}", "-D", "the first") as one, vde_plug(path, directory) as two:
        wait_for_members(path, 2)
        for size in (60, 61, 1514):
            say(one, frame(size, size))
            assert hear(two) == frame(size, size)
            say(two, frame(size + 1, size))
            assert hear(one) == frame(size + 1, size)
        for port in ports(path):
            assert (port["kind"], port["command"], port["rights"]) == ("vde", "vde_plug", "rw")
            assert (port["rx_frames"], port["tx_frames"], port["rx_bytes"]) == (3, 3, 60 + 61 + 1514)
            assert port["description"].startswith(("the first", "vdeplug"))
    wait_for_members(path, 0)
    wait_until_empty(directory)


@requires("vde_plug")
def test_a_vde_plug_gets_the_port_it_asks_for_and_no_other(path: str, directory: str) -> None:
    with vde_plug(path, f"vde://{directory}[7]"):
        assert [port["port"] for port in ports(path)] == [7]
        taken = subprocess.run(["vde_plug", f"vde://{directory}[7]"], stdin=subprocess.DEVNULL, timeout=20, check=False)
        assert taken.returncode != 0
        assert refused(path) == 1


@requires("vde_plug", "dpipe")
def test_dpipe_joins_two_networks_by_their_vde_switches(ipnd: RunningDaemon, path: str, directory: str) -> None:
    other = ipnd.path("other")
    admin.create_network(other, gateways=[("vde", ipnd.path("vde2"))])
    pipe = subprocess.Popen(["dpipe", "vde_plug", directory, "=", "vde_plug", ipnd.path("vde2")])
    try:
        wait_for_members(path, 1)
        wait_for_members(other, 1)
        with RawMember(path) as one, RawMember(other) as two:
            wait_for_members(other, 2)
            wait_for_members(path, 2)
            one.send_frame(frame(1))
            assert two.recv_frame() == frame(1)
            two.send_frame(frame(2))
            assert one.recv_frame() == frame(2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pipe.pid, signal.SIGKILL)  # dpipe makes a process group of its own
        pipe.kill()
        pipe.wait()


@requires("vde_plug")
def test_a_vde_plug_that_is_killed_leaves_and_nothing_stays_behind(path: str, directory: str) -> None:
    with vde_plug(path, directory):
        assert data_sockets(directory)
    wait_for_members(path, 0)
    wait_until_empty(directory)


@requires("vde_plug")
@requires_root
def test_other_users_have_the_rights_that_the_networks_file_gives(ipnd: RunningDaemon) -> None:
    for mode, rights in ((0o774, "r"), (0o772, "w"), (0o776, "rw")):
        path, directory = ipnd.path(f"net-{rights}"), ipnd.path(f"vde-{rights}")
        admin.create_network(path, mode=mode, gateways=[("vde", directory)])
        check_rights_of_others(path, directory, rights)


def check_rights_of_others(path: str, directory: str, rights: str) -> None:
    with vde_plug(path, directory, prefix=as_user(NOBODY)) as plug, VdeClient(directory) as listener:
        assert [port["rights"] for port in ports(path) if port["uid"] == NOBODY] == [rights]
        say(plug, frame(1))
        with VdeClient(directory) as sender:
            if "r" in rights:
                sender.send_frame(frame(2))
                assert hear(plug) == frame(2)
            if "w" in rights:
                assert listener.recv_frame() == frame(1)
            sender.send_frame(frame(3))
            received = listener.recv_frame()
            assert received == frame(2 if "r" in rights else 3)
        shown = next(port for port in ports(path) if port["uid"] == NOBODY)
        assert (shown["rx_frames"], shown["tx_frames"] > 0) == ("w" in rights, "r" in rights)


# -- clients by hand -----------------------------------------------------------------------------------------------


IMPATIENT: Final = """
import sys
sys.argv[1:4] = []
from ipnd.gateways import vde
vde.REQUEST_NS = 50_000_000
from ipnd.cli import main
main()
"""
"""An ipnd that gives VDE's clients 50 ms for their request."""

HABITS: Final[tuple[dict[str, Any], ...]] = (
    {"version": 1},
    {"version": 3},
    {"version": 1, "abstract": True},
    {"abstract": True},
    {"connected": False},
)


def test_old_and_new_clients_exchange_frames(path: str, directory: str) -> None:
    for habits in HABITS:
        with VdeClient(directory, **habits, description=b"a guest") as one, VdeClient(directory) as two:
            for number in range(20):
                one.send_frame(frame(number))
                assert two.recv_frame() == frame(number), habits
                two.send_frame(frame(number + 100, 1514))
                assert one.recv_frame() == frame(number + 100, 1514), habits
            assert "a guest" in [port["description"] for port in ports(path)]
            assert one.is_silent()
        wait_for_members(path, 0)
        wait_until_empty(directory)


def test_a_client_whose_path_is_relative_is_found_where_it_runs(
    path: str, directory: str, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_directory)
    with VdeClient(directory, path="mine") as one, VdeClient(directory) as two:
        two.send_frame(frame(1))
        assert one.recv_frame() == frame(1)


@pytest.mark.parametrize("version", [1, 3])
def test_ports_are_given_as_they_are_asked_for(path: str, directory: str, version: int) -> None:
    mine = f"{directory}/.00001-00000"
    with VdeClient(directory, version=version, kind=9 << 8), VdeClient(directory, version=version, kind=1):
        assert [port["port"] for port in ports(path)] == [0, 9]
        for number, kind in enumerate((9 << 8, 1, 32 << 8)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.bind(mine)
                assert vde_ask(directory, vde_request(mine.encode(), kind=kind, version=version)) == b""
            eventually(lambda: not os.path.exists(mine))
            assert refused(path) == number + 1
        with VdeClient(directory, version=version, kind=31 << 8):
            assert [port["port"] for port in ports(path)] == [0, 9, 31]
    wait_until_empty(directory)


def test_our_data_socket_is_called_by_port_and_takes_frames_from_its_client_only(path: str, directory: str) -> None:
    with VdeClient(directory, kind=3 << 8) as one, VdeClient(directory) as two:
        assert os.path.basename(one.switch).startswith(b"003.")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            for address in (one.switch, os.fsencode(one.path)):
                with pytest.raises(PermissionError):
                    stranger.sendto(b"forged", address)
        one.send_frame(frame(1))
        assert two.recv_frame() == frame(1)


# -- the directory -------------------------------------------------------------------------------------------------


@requires_root
def test_the_directory_lets_in_whom_the_network_lets_in(ipnd: RunningDaemon) -> None:
    for mode, of_directory, of_sockets in (
        (0o700, 0o700, 0o600), (0o750, 0o1770, 0o660), (0o770, 0o1770, 0o660), (0o777, 0o1777, 0o666)
    ):
        path, directory = ipnd.path(f"net{mode:o}"), Path(ipnd.path(f"vde{mode:o}"))
        admin.create_network(path, mode=mode, gid=NOBODY, gateways=[("vde", directory)])
        assert [stat.S_IMODE(directory.stat().st_mode), directory.stat().st_gid] == [of_directory, NOBODY]
        for made in (directory / "ctl", Path(f"{directory}.mgmt")):
            assert [stat.S_IMODE(made.stat().st_mode), made.stat().st_gid] == [of_sockets, NOBODY]


@requires_root
def test_the_directory_belongs_to_who_asked_for_it(ipnd: RunningDaemon, short_directory: Path) -> None:
    short_directory.chmod(0o777)
    path, directory = ipnd.path("net"), ipnd.path("vde")
    Ipnctl(ipnd).run("net", "create", path, "--vde", directory, prefix=as_user(NOBODY)).ok()
    assert os.stat(directory).st_uid == NOBODY
    with VdeClient(directory) as one:
        assert os.stat(one.switch).st_uid == NOBODY
        with VdeClient(directory) as two:
            one.send_frame(frame(1))
            assert two.recv_frame() == frame(1)
    wait_until_empty(directory)


def test_closing_the_gateway_puts_its_clients_out_and_removes_all_it_made(
    ipnd: RunningDaemon, path: str, directory: str
) -> None:
    with VdeClient(directory) as one, vde_connection(directory) as waiting, RawMember(path) as raw:
        wait_for_members(path, 2)
        Ipnctl(ipnd).run("net", "set", path, "--close", directory).ok()
        assert one.ctl.recv(1) == b""
        assert waiting.recv(1) == b""
        assert [port["kind"] for port in ports(path)] == ["raw"]
        raw.send_frame(b"alive")
    assert not os.path.exists(directory)
    assert not os.path.exists(f"{directory}.mgmt")


def test_a_directory_that_was_there_stays_with_what_is_not_ours(ipnd: RunningDaemon, short_directory: Path) -> None:
    directory = short_directory / "vde"
    directory.mkdir(0o751)
    (directory / "notes").write_text("mine")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as living, socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM
    ) as dead:
        living.bind(f"{directory}/.00001-00001")
        dead.bind(f"{directory}/.00001-00002")
        dead.close()
        admin.create_network(ipnd.path("net"), gateways=[("vde", directory)])
        assert set(os.listdir(directory)) == {"ctl", "notes", ".00001-00001"}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o751
        admin.delete_network(ipnd.path("net"))
    assert set(os.listdir(directory)) == {"notes", ".00001-00001"}


def test_a_directory_that_somebody_serves_is_not_taken(ipnd: RunningDaemon, path: str, directory: str) -> None:
    for other in (ipnd.path("net2"), ipnd.path("net3")):
        Ipnctl(ipnd).run("net", "create", other, "--vde", directory).failed(f"somebody serves {directory} already")
        assert not os.path.exists(other)
    assert_works(path, directory)


def test_what_is_no_directory_is_in_the_way(ipnd: RunningDaemon, short_directory: Path) -> None:
    (short_directory / "file").write_text("")
    (short_directory / "real").mkdir()
    (short_directory / "link").symlink_to(short_directory / "real")
    for name, what in (("file", "it is no directory"), ("link", "it is a symbolic link")):
        Ipnctl(ipnd).run("net", "create", ipnd.path("net"), "--vde", ipnd.path(name)).failed(what)
    long = ipnd.path("x" * 80)
    Ipnctl(ipnd).run("net", "create", ipnd.path("net"), "--vde", long).failed("too long")
    assert os.listdir(short_directory / "real") == []


def test_the_file_of_a_killed_client_goes_even_where_the_directory_is_reached_by_a_link(
    ipnd: RunningDaemon, short_directory: Path
) -> None:
    (short_directory / "run").mkdir()
    (short_directory / "var").symlink_to(short_directory / "run")
    path, real = ipnd.path("net"), ipnd.path("run/vde")
    admin.create_network(path, gateways=[("vde", ipnd.path("var/vde"))])
    client = VdeClient(ipnd.path("var/vde"), path=f"{real}/.00007-00000")
    client.die()
    wait_for_members(path, 0)
    wait_until_empty(real)


@requires("vde_plug")
def test_a_killed_daemon_starts_again_without_what_it_left(ipnd: RunningDaemon, path: str, directory: str) -> None:
    killed = VdeClient(directory)
    with vde_plug(path, directory):
        ipnd.kill()
        killed.die()
    assert len(data_sockets(directory)) >= 2
    ipnd.start()
    assert data_sockets(directory) == set()
    assert_works(path, directory)
    ipnd.end()
    assert not os.path.exists(directory)
    ipnd.start()
    assert_works(path, directory)


# -- bad input -----------------------------------------------------------------------------------------------------


def test_nonsense_is_refused_counted_and_logged_once(ipnd: RunningDaemon, path: str, directory: str) -> None:
    good = vde_request(b"/nowhere")
    nameless, unknown = vde_request(b"", version=1), vde_request(b"/nowhere", version=2)
    for request in (b"x", b"GET / HTTP/1.0\r\n\r\n", good[:60], nameless, unknown):
        assert vde_ask(directory, request) == b""
    assert refused(path) == 5
    lines = [line for line in ipnd.log if "is turned away" in line]
    assert len(lines) == 1
    assert "a request of 1 bytes is too short" in lines[0]
    assert ports(path) == []
    assert_works(path, directory)


def bound(stack: ExitStack, path: str, kind: socket.SocketKind) -> None:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    sock.bind(path)
    if kind != socket.SOCK_DGRAM:
        sock.listen()


def make_stale(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)


def test_what_is_no_data_socket_is_refused_and_the_log_says_why(ipnd: RunningDaemon, stack: ExitStack) -> None:
    Path(ipnd.path("file")).write_text("")
    Path(ipnd.path("folder")).mkdir()
    os.mkfifo(ipnd.path("fifo"))
    make_stale(ipnd.path("stale"))
    bound(stack, ipnd.path("real"), socket.SOCK_DGRAM)
    os.symlink(ipnd.path("real"), ipnd.path("link"))
    bound(stack, ipnd.path("stream"), socket.SOCK_STREAM)
    bound(stack, ipnd.path("seqpacket"), socket.SOCK_SEQPACKET)
    admin.create_network(ipnd.path("net"), gateways=[("vde", ipnd.path("vde"))])
    stack.enter_context(VdeClient(ipnd.path("vde"), path=ipnd.path("connected")))
    for name, words in (
        ("nothing", "cannot be reached: No such file"),
        ("file/below", "cannot be reached: Not a directory"),
        ("file", "is no socket"),
        ("folder", "is no socket"),
        ("fifo", "is no socket"),
        ("/dev/null", "is no socket"),
        ("link", "is a symbolic link"),
        ("stream", "takes no datagrams"),
        ("seqpacket", "takes no datagrams"),
        ("stale", "is there no more"),
        ("connected", "is connected to another one"),
    ):
        asked = os.path.join(ipnd.directory, name)
        path, directory = (ipnd.path(name.replace("/", "") + kind) for kind in ("-net", "-vde"))
        admin.create_network(path, gateways=[("vde", directory)])  # each its own: a network logs one line a second
        assert vde_ask(directory, vde_request(os.fsencode(asked))) == b""
        line = ipnd.wait_for_log(f"turned away from {path}")
        assert asked in line
        assert words in line
        assert (refused(path), ports(path), data_sockets(directory)) == (1, [], set())


def test_the_daemons_own_sockets_are_no_data_sockets(ipnd: RunningDaemon, path: str, directory: str) -> None:
    admin.add_gateway(path, "dgram", ipnd.path("dgram"))
    with VdeClient(directory) as one, VdeClient(directory) as two:
        for own in (ipnd.control, path, f"{directory}/ctl", f"{directory}.mgmt", os.fsdecode(one.switch)):
            assert vde_ask(directory, vde_request(os.fsencode(own))) == b"", own
        assert refused(path) == 5
        # The address of bare datagrams is free for everybody, but a member there would be the daemon itself.
        with vde_connection(directory) as ctl:
            ctl.sendall(vde_request(os.fsencode(ipnd.path("dgram"))))
            assert vde_answer(ctl)
            for number in range(10):
                one.send_frame(frame(number))
                assert two.recv_frame() == frame(number)
            eventually(lambda: admin.show_network(path)["fixtures"][1]["counts"].get("refused") == 1)
            assert two.is_silent()
            assert [port["kind"] for port in ports(path)] == ["vde"] * 3


@requires_root
def test_a_data_socket_of_another_user_is_refused(
    ipnd: RunningDaemon, path: str, directory: str, stack: ExitStack
) -> None:
    place = ipnd.path("roots")
    bound(stack, place, socket.SOCK_DGRAM)
    os.chmod(place, 0o777)
    assert not vde_ask_as(as_user(NOBODY), directory, vde_request(os.fsencode(place)))
    ipnd.wait_for_log(f"its data socket {place} belongs to user 0")
    os.chown(place, NOBODY, NOBODY)
    assert vde_ask_as(as_user(NOBODY), directory, vde_request(os.fsencode(place)))


def test_a_path_forges_no_lines_of_the_log(ipnd: RunningDaemon, path: str, directory: str) -> None:
    assert vde_ask(directory, vde_request(b"/tmp/x\nready \x1b[2J")) == b""
    assert "/tmp/x?ready ?[2J" in ipnd.wait_for_log("cannot be reached")


@requires_root
def test_who_has_no_right_any_more_is_turned_away(
    ipnd: RunningDaemon, path: str, directory: str, stack: ExitStack
) -> None:
    os.chmod(path, 0o771)
    place = ipnd.path("place")
    bound(stack, place, socket.SOCK_DGRAM)
    os.chown(place, NOBODY, NOBODY)
    assert not vde_ask_as(as_user(NOBODY), directory, vde_request(os.fsencode(place)))
    ipnd.wait_for_log(f"of user {NOBODY} neither r nor w")
    assert refused(path) == 1


def test_who_asks_for_nothing_is_turned_away(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = RunningDaemon(short_directory, prefix=(sys.executable, "-c", IMPATIENT))
    monkeypatch.setenv("IPND_SOCKET", daemon.control)
    daemon.start()
    try:
        admin.create_network(daemon.path("net"), gateways=[("vde", daemon.path("vde"))])
        with VdeClient(daemon.path("vde")) as member, vde_connection(daemon.path("vde")) as silent:
            assert silent.recv(1) == b""
            assert "it has asked for nothing" in daemon.wait_for_log("is turned away")
            assert refused(daemon.path("net")) == 1
            member.ctl.sendall(b"x" * 1000)  # whatever a member says there means nothing
            with RawMember(daemon.path("net")) as raw:
                wait_for_members(daemon.path("net"), 2)
                member.send_frame(frame(1))
                assert raw.recv_frame() == frame(1)
    finally:
        daemon.close()


def test_a_client_that_dies_before_it_is_answered_is_gone(path: str, directory: str) -> None:
    for _ in range(20):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        client.bind(f"{directory}/.00001-00001")
        with vde_connection(directory) as ctl:
            ctl.sendall(vde_request(f"{directory}/.00001-00001".encode()))
        client.close()
        wait_for_members(path, 0)
        with contextlib.suppress(FileNotFoundError):  # who is gone before it is looked at leaves its file
            os.unlink(f"{directory}/.00001-00001")
    wait_until_empty(directory)
    assert_works(path, directory)


def test_a_client_that_dies_between_request_and_data_leaves_nothing_behind(path: str, directory: str) -> None:
    client = VdeClient(directory, connected=False)
    client.sock.close()
    with VdeClient(directory) as other:
        other.send_frame(frame(1))  # nobody is there to take it
        eventually(lambda: "r" not in ports(path)[0]["rights"])
        client.ctl.close()
        wait_for_members(path, 1)
        assert data_sockets(directory) == {os.path.basename(other.path), os.path.basename(os.fsdecode(other.switch))}
    wait_for_members(path, 0)
    wait_until_empty(directory)


def test_frames_sent_before_the_end_still_arrive(ipnd: RunningDaemon, path: str, directory: str) -> None:
    with RawMember(path) as listener:
        wait_for_members(path, 1)
        client = VdeClient(directory)
        with stopped(ipnd.process.pid):
            for number in range(50):
                client.send_frame(frame(number))
            client.die()
        for number in range(50):
            assert listener.recv_frame() == frame(number)
    wait_for_members(path, 0)
    wait_until_empty(directory)


def test_who_goes_on_sending_when_its_client_is_gone_is_stopped_by_the_kernel(ipnd: RunningDaemon) -> None:
    """What came before is still to be delivered; without an end to that the daemon could be kept at it for ever."""
    path, directory = ipnd.path("net"), ipnd.path("vde")
    admin.create_network(path, lossless=True, gateways=[("vde", directory)])
    with RawMember(path) as slow:
        wait_for_members(path, 1)
        client = VdeClient(directory)
        client.sock.setblocking(False)
        sent = 0
        while not ports(path)[0]["queued"]:
            with contextlib.suppress(BlockingIOError):
                for _ in range(100):
                    client.send_frame(frame(sent, 1500))
                    sent += 1
        client.ctl.close()
        eventually(lambda: error_of(client, frame(0)) == errno.EPIPE)
        client.die()
        for number in range(sent):
            assert number_of(slow.recv_frame() or b"") == number
        wait_for_members(path, 1)


def error_of(client: VdeClient, data: bytes) -> int | None:
    """Send a frame and return the number of the error."""
    try:
        client.send_frame(data)
    except OSError as error:
        return error.errno
    return None


def test_empty_and_oversize_datagrams_are_counted_and_the_rest_arrives(path: str, directory: str) -> None:
    with VdeClient(directory) as one, VdeClient(directory) as two:
        for size in (0, 1515, 9000, 100_000):
            one.send_frame(bytes(size))
        one.send_frame(frame(1, 1514))
        assert two.recv_frame() == frame(1, 1514)
        assert two.is_silent()
        assert {port["port"]: port["oversize"] for port in ports(path)} == {0: 4, 1: 0}


def test_a_client_that_never_reads_costs_the_others_nothing(path: str, directory: str) -> None:
    with VdeClient(directory), VdeClient(directory, connected=False), VdeClient(directory) as one, VdeClient(
        directory
    ) as two:
        for number in range(3000):
            one.send_frame(frame(number, 1514))
            assert number_of(two.recv_frame()) == number
        stuck, old_and_stuck, _, healthy = ports(path)
        assert stuck["dropped"] > 1000
        assert old_and_stuck["dropped"] > 2900
        assert (healthy["dropped"], healthy["tx_frames"]) == (0, 3000)


# -- the log says what the client must do --------------------------------------------------------------------------


@requires_root
def test_a_data_socket_of_mode_000_is_opened_where_it_is_the_daemons_users_and_diagnosed_elsewhere(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 86Box and SIMH have it: they give libvdeplug the mode 0."""
    short_directory.chmod(0o777)
    daemon = RunningDaemon(short_directory, prefix=as_user(NOBODY))
    monkeypatch.setenv("IPND_SOCKET", daemon.control)
    daemon.start()
    try:
        path, directory, place = daemon.path("net"), daemon.path("vde"), daemon.path("place")
        command = Ipnctl(daemon)
        command.run("net", "create", path, "--mode", "0777", "--vde", directory, prefix=as_user(NOBODY)).ok()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(place)
            os.chmod(place, 0)
            assert vde_ask(directory, vde_request(os.fsencode(place))) == b""
            line = daemon.wait_for_log("has the mode 0000")
            assert f"its data socket {place} of user 0 " in line
            assert f"ipnd (user {NOBODY}) may not write to it" in line
            assert stat.S_IMODE(os.stat(place).st_mode) == 0
            os.chown(place, NOBODY, NOBODY)
            assert vde_ask_as(as_user(NOBODY), directory, vde_request(os.fsencode(place)))
            line = daemon.wait_for_log("it has been given u+rw")
            assert "SIMH and 86Box" in line
            assert stat.S_IMODE(os.stat(place).st_mode) == 0o600
    finally:
        daemon.close()


@requires_root
def test_a_root_daemon_writes_to_a_data_socket_of_any_mode(path: str, directory: str) -> None:
    with VdeClient(directory) as one, VdeClient(directory) as two:
        os.chmod(one.path, 0)
        with VdeClient(directory, path=f"{directory}/.mode000") as third:
            os.chmod(third.path, 0)
            two.send_frame(frame(1))
            assert one.recv_frame() == third.recv_frame() == frame(1)


# -- together ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lossless", [True, False])
def test_a_flow_through_mixed_transports_keeps_its_order(ipnd: RunningDaemon, lossless: bool) -> None:
    pairs = (("vde", "raw"), ("raw", "seqpacket"), ("dgram", "vde"), ("seqpacket", "dgram"), ("vde", "vde"))
    for source, sink in pairs:
        path = ipnd.path(f"{source}-{sink}")
        gateways = [(kind, f"{path}-{kind}") for kind in ("vde", "dgram", "seqpacket")]
        admin.create_network(path, pool=64, lossless=lossless, gateways=gateways)
        with member_of(path, sink) as receiver:
            wait_for_members(path, 1)
            with member_of(path, source) as sender:
                wait_for_members(path, 2)
                received = flow(sender, receiver, 1000)
        assert received == sorted(set(received)), (source, sink)
        assert not lossless or received == list(range(1000)), (source, sink)


def member_of(path: str, kind: str) -> Any:
    """Return a member of a kind; the gateways lie beside the network."""
    if kind == "vde":
        return VdeClient(f"{path}-vde")
    if kind == "raw":
        return RawMember(path)
    if kind == "seqpacket":
        return PacketClient(f"{path}-seqpacket")
    client = DatagramClient(f"{path}-dgram", f"{path}-client{len(ports(path))}")
    client.send_frame(b"VFKT")
    return client


def flow(sender: Any, receiver: Any, count: int) -> list[int]:
    """Send numbered frames as fast as they are taken, and return the numbers of those that arrive."""

    def send() -> None:
        for number in range(count):
            sender.send_frame(frame(number, 60 + number % 700))

    thread = threading.Thread(target=send)
    thread.start()
    received: list[int] = []
    while not received or received[-1] != count:
        if select.select([receiver], [], [], 0.02)[0]:
            received.append(number_of(receiver.recv_frame()))
        elif not thread.is_alive():
            sender.send_frame(frame(count))  # the end, said again until it is not lost
    thread.join()
    return received[:-1]


def test_descriptors_are_given_back(ipnd: RunningDaemon) -> None:
    path, directory = ipnd.path("net"), ipnd.path("vde")
    gateways = [(kind, ipnd.path(kind)) for kind in ("vde", "dgram", "seqpacket")]
    admin.create_network(path, ports=128, gateways=gateways)
    with VdeClient(directory) as warm_up, RawMember(path):
        warm_up.send_frame(frame(0))
    wait_for_members(path, 0)
    before = resting_fds(ipnd)
    with ExitStack() as clients:
        for number in range(50):
            clients.enter_context(VdeClient(directory, connected=bool(number % 2)))
            clients.enter_context(PacketClient(ipnd.path("seqpacket")))
        wait_for_members(path, 100)
        assert ipnd.fds() >= before + 150
    wait_for_members(path, 0)
    eventually(lambda: ipnd.fds() <= before, message=f"{ipnd.fds()} descriptors, {before} before")
    for _ in range(50):
        assert vde_ask(directory, b"nonsense") == b""
        assert vde_ask(directory, vde_request(b"/nowhere")) == b""
    eventually(lambda: ipnd.fds() <= before, message=f"{ipnd.fds()} descriptors, {before} before")
