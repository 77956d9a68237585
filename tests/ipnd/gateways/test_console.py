"""The console over its socket, with VDE's own tools, and side by side with a real vde_switch."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pty
import re
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import pytest
import trio

import ipn
from ipn import admin
from ipnd.access import Peer
from ipnd.gateways import console
from ipnd.gateways.console import MAX_ANSWER, MAX_LINE, ConsoleConnection, encode_answer
from ipnd.gateways.console_commands import Answer
from ipnd.network import Network, Options
from ipnd.plane.plane import Plane
from ipnd.policies.vdeswitch import VdeSwitch
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

PROMPT: Final = b"\nvde$ "

MACHINE: Final = r"""TIMEOUT 10000
1 IN '$ ' 100
2 SEND '$*\n'
3 THROW
4 IN '\n' 100
5 IF '0000 DATA END WITH \'.\'' 8
6 IF '10' 13
7 GOTO 100
8 THROW
9 IN '\n' 100
10 IF '.\n' 3
11 COPY
12 GOTO 8
13 SKIP 2
14 RVATOI
15 EXITRV
100 EXIT -1
"""
"""How unixcmd(1) talks to a console: what vde2 has in /etc/vde2/vdecmd loses the status in some versions."""


class Talk:
    """A client of a console. ``greeting``: what it said first."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(path)
        self._heard = b""
        self.greeting = self.hear()

    def hear(self) -> bytes:
        """Return what comes until the next prompt, without it, or until the end."""
        while PROMPT not in self._heard:
            data = self.sock.recv(65536)
            if not data:
                break
            self._heard += data
        said, _, self._heard = self._heard.partition(PROMPT)
        return said

    def send(self, data: str) -> None:
        self.sock.sendall(data.encode())

    def ask(self, line: str) -> tuple[list[str], str]:
        """Return the lines and the last line, the status, of an answer."""
        self.send(f"{line}\n")
        *lines, status = self.hear().decode().splitlines() or [""]
        if lines:
            assert (lines[0], lines[-1]) == ("0000 DATA END WITH '.'", ".")
        return lines[1:-1], status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


@contextlib.contextmanager
def network(ipnd: RunningDaemon, **options: Any) -> Iterator[tuple[str, str]]:
    """Give the path of a network and that of its console."""
    path, directory = ipnd.path("net"), ipnd.path("vde")
    with contextlib.closing(ipn.bind(path, **{"policy": "vdeswitch", **options})):
        admin.add_gateway(path, "vde", directory)
        yield path, f"{directory}.mgmt"


# -- what it says --------------------------------------------------------------------------------------------------


def test_it_greets_as_a_vde_switch_does_and_prompts(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (_, mgmt), Talk(mgmt) as talk:
        assert re.fullmatch(rb"VDE switch V\.[^\n$]+\n[^\n$]+\n", talk.greeting)
        assert talk.ask("nonsense") == ([], "1038 Function not implemented")
        assert talk.ask("# a remark") == talk.ask("") == ([], "")


def test_ports_are_those_of_the_network_with_their_counters(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (path, mgmt), Talk(mgmt) as talk:
        with ipn.connect(path, port=5, descr="a guest") as a, ipn.connect(path, port=6) as b:
            a.send(b"\xff" * 6 + b"\x02" + bytes(5) + b"\x08\x00" + bytes(46))
            b.recv()
            command = admin.show_network(path)["ports"][1]["command"]
            lines, status = talk.ask("port/print")
            assert status == "1000 Success"
            assert [line for line in lines if "Port" in line or "endpoint" in line] == [
                "Port 0005 untagged_vlan=0000 ACTIVE - Unnamed Allocatable",
                f"  -- endpoint ID {os.getpid():04} module stream      : a guest",
                "Port 0006 untagged_vlan=0000 ACTIVE - Unnamed Allocatable",
                f"  -- endpoint ID {os.getpid():04} module stream      : {command}",
            ]
            assert " IN:  pkts          1          bytes                   60" in lines[:6]
            assert " OUT: pkts          1          bytes                   60" in lines[6:]
            assert "Addr: 02:00:00:00:00:00 VLAN 0000 to port: 005" in talk.ask("hash/print")[0][0]


def test_what_is_set_up_on_the_console_is_what_ipnctl_shows(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (path, mgmt), Talk(mgmt) as talk:
        for line in ("port/setvlan 3 10", "vlan/addport 20 3", "hash/setexpire 77"):
            assert talk.ask(line) == ([], "1000 Success")
        row = admin.policy_verb(path, "port.show", port=3)[0]
        assert (row["pvid"], row["tagged"]) == (10, [20])
        assert admin.policy_verb(path, "switch.show")["ageing"] == 77


def test_a_description_cannot_forge_an_answer(ipnd: RunningDaemon) -> None:
    forged = "x\n.\n1000 Success\n\nvde$ \x1b[2J"
    with network(ipnd) as (path, mgmt), ipn.connect(path, descr=forged), Talk(mgmt) as talk:
        lines, _ = talk.ask("port/print 0")
        assert lines[4].endswith(": x?.?1000 Success??vde$ ?[2J")
        assert talk.ask("fstp/showinfo") == (["FSTP=false"], "1000 Success")


def test_an_answer_that_is_too_long_is_refused_instead_of_cut() -> None:
    data = encode_answer(Answer(["x" * 1000] * (MAX_ANSWER // 1000)))
    assert data.startswith(b"0000 DATA END WITH '.'\nthe answer has ")
    assert data.endswith(f".\n1{errno.EMSGSIZE:03} {os.strerror(errno.EMSGSIZE)}\n".encode())
    assert len(encode_answer(Answer(["x" * 1000] * (MAX_ANSWER // 1002)))) > MAX_ANSWER * 0.99


# -- how lines come ------------------------------------------------------------------------------------------------


def test_lines_may_come_in_pieces_and_several_at_once(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (_, mgmt), Talk(mgmt) as talk:
        for character in "fstp/showinfo\r\n":
            talk.send(character)
        whole = talk.hear()
        assert b"FSTP=false" in whole
        talk.send("fstp/showinfo\n" * 50 + "logout\n")
        heard = [talk.hear() for _ in range(51)]
        assert heard == [whole] * 50 + [b"9999 END OF SESSION"]


def test_a_command_without_the_end_of_its_line_is_answered_as_well(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (path, mgmt), Talk(mgmt) as talk:
        talk.send("port/setnumports 48")
        assert talk.hear() == b"1000 Success\n"
        assert admin.show_network(path)["maxports"] == 48


def test_who_has_said_everything_still_gets_the_answers(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (_, mgmt), Talk(mgmt) as talk:
        talk.send("fstp/showinfo\nport/showinfo")
        talk.sock.shutdown(socket.SHUT_WR)
        assert b"FSTP=false" in talk.hear()
        assert b"Numports=32" in talk.hear()
        assert talk.sock.recv(1) == b""


def test_a_line_without_end_closes_the_console(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (_, mgmt), Talk(mgmt) as talk:
        with pytest.raises(OSError):  # noqa: PT011 - closed: ECONNRESET or EPIPE, as it happens
            for _ in range(1000):
                talk.send("x" * MAX_LINE)
        ipnd.wait_for_log(f"a line of more than {MAX_LINE} bytes")


def test_clients_that_go_at_any_time_leave_nothing_behind(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (_, mgmt):
        before = ipnd.fds()
        for words in ("", "hel", "help\n", "help\n" * 100, "logout\n"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(mgmt)
                sock.sendall(words.encode())
        eventually(lambda: ipnd.fds() <= before)
        with Talk(mgmt) as talk:
            assert talk.ask("fstp/showinfo")[1] == "1000 Success"


# -- what it may change --------------------------------------------------------------------------------------------


@requires_root
@requires("unixcmd")
def test_who_may_not_manage_may_look_and_is_told_why_nothing_changes(ipnd: RunningDaemon, machine: str) -> None:
    with network(ipnd, mode=0o754) as (path, mgmt):
        os.chmod(path, 0o756)
        assert unixcmd(machine, mgmt, "port/showinfo", *as_user(NOBODY))[0] == 0
        for line in ("port/setvlan 3 10", "port/setnumports 8", "shutdown"):
            status, text = unixcmd(machine, mgmt, line, *as_user(NOBODY))
            assert status == errno.EPERM
            assert "needs its x permission" in text
        assert admin.show_network(path)["maxports"] == 32
        os.chmod(path, 0o757)
        assert unixcmd(machine, mgmt, "port/setnumports 8", *as_user(NOBODY))[0] == 0


@pytest.mark.parametrize("line, shown", [("port/sethub 1", "HUB=true"), ("port/setnumports 9", "Numports=9")])
def test_what_was_set_up_is_kept_when_the_daemon_is_killed(ipnd: RunningDaemon, line: str, shown: str) -> None:
    path, directory = ipnd.path("net"), ipnd.path("vde")
    admin.create_network(path, policy="vdeswitch")
    admin.add_gateway(path, "vde", directory)
    with Talk(f"{directory}.mgmt") as talk:
        assert talk.ask(line) == ([], "1000 Success")
    ipnd.kill()
    ipnd.start()
    with Talk(f"{directory}.mgmt") as talk:
        assert shown in talk.ask("port/showinfo")[0]


def test_shutdown_ends_the_network(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (path, mgmt), Talk(mgmt) as talk, Talk(mgmt) as other:
        talk.send("shutdown\n")
        assert talk.hear() == b"9999 END OF SESSION"
        assert other.hear() == b""
        eventually(lambda: not os.path.exists(path) and not os.path.exists(mgmt))


def test_the_last_member_is_put_out_and_its_network_ends_after_the_answer(ipnd: RunningDaemon) -> None:
    path, directory = ipnd.path("net"), ipnd.path("vde")
    net = ipn.bind(path)
    admin.add_gateway(path, "vde", directory)
    with RawMember(path) as member, Talk(f"{directory}.mgmt") as talk:
        eventually(lambda: net.show()["members"] == 1)
        before = ipnd.fds()
        net.close()
        eventually(lambda: ipnd.fds() < before)
        assert talk.ask("port/epclose 0 1")[1] == "1006 No such device or address"
        assert talk.ask("port/epclose 0") == ([], "1000 Success")
        assert talk.hear() == b""
        assert member.recv_frame() is None
        eventually(lambda: not os.path.exists(path))


# -- VDE's own programs --------------------------------------------------------------------------------------------


@pytest.fixture
def machine(short_directory: Path) -> str:
    """Give the path of a file that tells unixcmd how to talk."""
    path = short_directory / "machine"
    path.write_text(MACHINE)
    return str(path)


def unixcmd(machine: str, mgmt: str, line: str, *prefix: str) -> tuple[int, str]:
    """Return the exit status of unixcmd(1), which is that of the command, and what it printed."""
    done = subprocess.run(
        [*prefix, "unixcmd", "-s", mgmt, "-f", machine, *line.split()], capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stdout.replace("\0", "")


@requires("unixcmd")
def test_unixcmd_gets_lines_and_status(ipnd: RunningDaemon, machine: str) -> None:
    with network(ipnd) as (_, mgmt):
        assert unixcmd(machine, mgmt, "fstp/showinfo") == (0, "FSTP=false\n")
        assert unixcmd(machine, mgmt, "port/setvlan 3 10") == (0, "")
        assert unixcmd(machine, mgmt, "vlan/print 10") == (0, "VLAN 0010\n")
        assert unixcmd(machine, mgmt, "nonsense") == (errno.ENOSYS, "")
        status, text = unixcmd(machine, mgmt, "port/setvlan 99 10")
        assert (status, text.count("\n")) == (errno.EINVAL, 1)


@pytest.mark.parametrize("program", ["vdeterm", "unixterm"])
@requires("vdeterm", "unixterm")
def test_a_terminal_of_vde_shows_answers_and_leaves(ipnd: RunningDaemon, program: str) -> None:
    with network(ipnd) as (_, mgmt), Terminal(program, mgmt) as terminal:
        terminal.wait_for("VDE switch V.")
        if program == "vdeterm":
            terminal.type("port/showi\t")
            terminal.wait_for("port/showinfo")
            terminal.type("\n")
        else:
            terminal.type("port/showinfo\n")
        terminal.wait_for("Numports=32")
        terminal.wait_for("Success")
        terminal.type("port/print 99\n")
        terminal.wait_for("Invalid argument")
        terminal.type("logout\n")
        terminal.wait_for_end()


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.shown = ""
        self._fd, end = pty.openpty()
        self._process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True)
        os.close(end)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until it shows ``text``, after what was waited for before."""
        eventually(lambda: self._look() or text in self.shown, 10, f"{text!r} is not shown: {self.shown!r}")
        self.shown = self.shown.partition(text)[2]

    def wait_for_end(self) -> None:
        eventually(lambda: self._look() or self._process.poll() is not None, 10, f"it did not leave: {self.shown!r}")

    def _look(self) -> None:
        while select.select([self._fd], [], [], 0)[0]:
            try:
                self.shown += os.read(self._fd, 4096).decode(errors="replace")
            except OSError:  # its end of the terminal is closed
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._fd)


@requires("vde_plug")
def test_a_client_of_vde_is_on_a_port_with_its_description(ipnd: RunningDaemon) -> None:
    with network(ipnd) as (_, mgmt), Talk(mgmt) as talk:
        url = f"vde://{mgmt.removesuffix('.mgmt')}"
        plug = subprocess.Popen(["vde_plug", "-D", "my plug", url], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert plug.stdin is not None
        with plug.stdin:
            eventually(lambda: talk.ask("port/print")[0])
            endpoint = talk.ask("port/print")[0][4]
            assert re.fullmatch(rf"  -- endpoint ID {plug.pid:04} module vde         : my plug\b.*", endpoint)
            assert talk.ask(f"port/epclose 0 {plug.pid}")[1] == "1000 Success"
            plug.wait(10)


SAME: Final = (
    "showinfo", "ds/showinfo", "port/showinfo", "port/print", "port/print 99", "port/print 3", "port/allprint", "help",
    "help fstp/setedge", "nonsense", "port/sethub 0", "port/setnumports 0", "port/setnumports 20", "port/remove 99",
    "vlan/print", "vlan/print 77", "vlan/create 4095", "vlan/create 10", "vlan/remove 10", "port/create 3",
    "port/setvlan 3 99999", "hash/showinfo", "hash/print", "hash/find 02:00:00:00:00:01", "hash/find x",
    "hash/setexpire 50", "fstp/showinfo", "fstp/setfstp 0", "fstp/print", "", "# remark", "logout",
)  # fmt: skip
"""Commands that a vde_switch and a network of ours, both without members, answer with the same status."""


@requires("vde_switch")
def test_the_answers_have_the_form_and_status_of_a_real_vde_switch(ipnd: RunningDaemon, short_directory: Path) -> None:
    theirs = short_directory / "theirs.mgmt"
    switch = subprocess.Popen(
        ["vde_switch", "-s", str(short_directory / "theirs"), "-M", str(theirs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(theirs.exists)
        with network(ipnd) as (_, mgmt), Talk(mgmt) as our_talk, Talk(str(theirs)) as their_talk:
            for line in SAME:
                ours, real = our_talk.ask(line), their_talk.ask(line)
                assert (line, ours[1]) == (line, real[1])
                assert bool(ours[0]) >= bool(real[0]), line  # a refusal of ours has a sentence
                if line == "help":
                    left_out = {row.split()[0] for row in real[0]} - {row.split()[0] for row in ours[0]}
                    assert all(name.startswith(("debug", "plugin")) for name in left_out)
    finally:
        switch.kill()
        switch.communicate()


# -- patience, in this process, with less of it --------------------------------------------------------------------


@pytest.fixture
def plane() -> Iterator[Plane]:
    loop = Plane()
    yield loop
    loop.close()


@pytest.fixture
def lonely(plane: Plane, short_directory: Path) -> Iterator[Network]:
    """Give a network in this process, which nobody can reach."""
    path = str(short_directory / "net")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    name = os.open(path, os.O_PATH)
    options = Options(mtu=1514, maxports=32, pool=8, flags=0)
    net = Network(
        plane, path, listener, name, VdeSwitch, options,
        persistent=True, on_end=lambda network: None, on_change=lambda: None,
    )  # fmt: skip
    yield net
    net.end("the test is over")


@pytest.mark.parametrize("takes", [False, True], ids=["takes nothing", "takes it slowly"])
async def test_only_who_takes_nothing_of_its_answers_loses_the_console(
    plane: Plane, lonely: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, takes: bool
) -> None:
    monkeypatch.setattr(console, "PATIENCE_NS", 100_000_000)
    ours, theirs = socket.socketpair()
    closed: list[ConsoleConnection] = []
    connection = ConsoleConnection(plane, ours, Peer(1, os.geteuid(), os.getegid()), lonely, closed.append)
    with theirs, trio.fail_after(10):
        theirs.setblocking(False)
        long_enough = trio.current_time() + 0.5 if takes else math.inf
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plane.run)
            while not closed and trio.current_time() < long_enough:
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    theirs.send(b"help\n" * 100)
                if takes:
                    with contextlib.suppress(BlockingIOError):
                        theirs.recv(4096)
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        assert closed == ([] if takes else [connection])
    assert ("it does not take its answer" in caplog.text) is not takes
    connection.close()
    assert closed == [connection]
    assert ours.fileno() == -1
