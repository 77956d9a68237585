"""VDE's own programs on networks of ours, as clients of a network's VDE directory and through ``ipnctl plug``."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.conftest import RunningDaemon
from tests.ipnctl.command import IPNCTL
from tests.lab import command
from tests.peers import NOBODY, as_user, requires
from tests.raw import RawMember
from tests.waiting import eventually

from .lab import SECONDS, Network
from .vdestream import SIZES, Plug, exchange, frame

DELAY_MS = 40
"""What wirefilter's recipe says."""

Networks = Callable[[str], Network]
Seen = Callable[[str, str], None]


@contextlib.contextmanager
def vde_switch(directory: Path) -> Iterator[Path]:
    """Run a real vde_switch and give its directory."""
    path = directory / "switch"
    with subprocess.Popen(["vde_switch", "--sock", path], stdin=subprocess.PIPE) as process:
        try:
            eventually((path / "ctl").exists)
            yield path
        finally:
            process.kill()


def switch_has(switch: Path, count: int) -> bool:
    """Tell whether ``count`` clients are on a vde_switch: each has a socket beside ``ctl``."""
    return len(list(switch.glob("[0-9]*.[0-9]*"))) == count


@requires("vde_plug")
def test_two_vde_plugs_exchange_frames(networks: Networks, seen: Seen) -> None:
    network = networks("net")
    one, other = Plug(network.start("vde-plug")), Plug(network.start("vde-plug"))
    network.wait_for_ports("vde", 2)
    exchange(one, other)
    assert one.process.stdin is not None
    one.process.stdin.close()
    network.wait_for_ports("vde", 1)
    seen("vde-plug", f"two exchange frames of {SIZES[0]} to {SIZES[-1]} bytes both ways")


@requires("vde_plug", "vde_switch", "dpipe")
@pytest.mark.parametrize("recipe", ["vde-switch", "plug"])
def test_a_vde_switch_and_a_network_are_joined(networks: Networks, seen: Seen, recipe: str) -> None:
    network = networks("net")
    with vde_switch(network.directory) as switch:
        far = Plug(network.start("vde-plug", DIR=switch))
        eventually(lambda: switch_has(switch, 1), SECONDS)
        network.start(recipe, SWITCH=switch)
        eventually(lambda: switch_has(switch, 2), SECONDS)
        with RawMember(network.path) as near:
            network.wait_for_ports("raw", 1)
            network.wait_for_ports(*(("vde", 1) if recipe == "vde-switch" else ("stream", 1)))
            exchange(near, far)
    seen(recipe, "frames pass between its clients and a network's members")


@requires("unixterm")
def test_the_console_of_a_network_answers_unixterm(networks: Networks, seen: Seen) -> None:
    network = networks("net")
    with RawMember(network.path):
        network.wait_for_ports("raw", 1)
        terminal = network.start("console")
        assert terminal.stdin is not None
        assert terminal.stdout is not None
        said = ""
        for line in ("port/print 0", "vlan/create 7"):  # one by one: unixterm shows nothing of what comes with the end
            terminal.stdin.write(line.encode() + b"\n")
            said += answer(terminal.stdout)
        assert "Port 0000" in said
        assert said.count("1000 Success") == 2
        terminal.stdin.write(b"logout\n")
        assert terminal.wait(SECONDS) is not None
    seen("console", "commands are answered as vde_switch answers them")


def answer(stdout: IO[bytes]) -> str:
    """Return what is written until a line has a status."""
    said = ""
    while not re.search(r"^(?:vde.*)?1[0-9]{3} .*\n", said, re.MULTILINE):
        line = stdout.readline()
        assert line, f"it ended after {said!r}"
        said += line.decode()
    return said


@requires("wirefilter")
def test_wirefilter_joins_two_networks_and_delays_frames(networks: Networks, seen: Seen) -> None:
    one, other = networks("one"), networks("other")
    one.start("wirefilter", OTHER=other.directory / "dir")
    for network in (one, other):
        network.wait_for_ports("vde", 1)
    with RawMember(one.path) as here, RawMember(other.path) as there:
        for network in (one, other):
            network.wait_for_ports("raw", 1)
        exchange(here, there)
        start = time.monotonic()
        here.send_frame(frame(60, 1))
        there.recv_frame()
        assert time.monotonic() - start >= 0.9 * DELAY_MS / 1000  # its clock counts whole milliseconds
    seen("wirefilter", f"frames pass both ways, {DELAY_MS} ms late as it was told")


@requires("vdens", "ip", "ping")
def test_two_namespaces_of_vdens_ping_each_other(networks: Networks, seen: Seen) -> None:
    network = networks("net")
    up = "ip link set lo up && ip address add 10.0.0.{}/24 dev vde0 && ip link set vde0 up && "
    first = network.start("vdens", SHELL="/bin/sh")
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdin.write(up.format(1).encode() + b"echo up\n")
    assert first.stdout.readline() == b"up\n"
    said = network.run("vdens", up.format(2) + "ping -n -c 3 -i 0.1 -W 5 10.0.0.1\n", SHELL="/bin/sh")
    assert "3 received" in said
    seen("vdens", "two namespaces ping each other")


@pytest.fixture
def users_daemon(ipnd: RunningDaemon) -> Iterator[Network]:
    """Give a network of an ipnd that is no root, and may not write to whatever it likes."""
    prefix = as_user(NOBODY) if os.geteuid() == 0 else ()
    ipnd.end()
    directory = ipnd.directory / "user"
    directory.mkdir()
    if prefix:
        os.chown(directory, NOBODY, NOBODY)
    daemon = RunningDaemon(directory, prefix=prefix)
    daemon.start()
    network = Network(daemon, directory, prefix)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("IPND_SOCKET", daemon.control)
        try:
            # Not by the recipe: a shell may not be let to the Python that this one was let to start.
            command(*prefix, *IPNCTL, "net", "create", network.path, "--vde", str(directory / "dir"))
            yield network
        finally:
            network.close()
            daemon.close()


@requires("vde_plug", "setpriv")
def test_a_client_whose_socket_has_no_mode_is_let_in_and_named_in_the_log(users_daemon: Network, seen: Seen) -> None:
    network = users_daemon
    one, other = Plug(network.start("mode-000")), Plug(network.start("vde-plug"))
    network.wait_for_ports("vde", 2)
    exchange(one, other)
    line = network.daemon.wait_for_log("has the mode 0000", SECONDS)
    assert "SIMH and 86Box" in line
    seen("mode-000", "it is told in the log and let in: its socket is given u+rw")
