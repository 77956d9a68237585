"""Interfaces without root: in a user namespace everything works, outside of one the helper opens what is granted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.helping import RunningHelper
from tests.ipnctl.command import IPNCTL
from tests.ipnctl.host import open_tun
from tests.lab import SBIN, Host, Lab
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.running import RunningDaemon, clean_environment

ROOT: Final = Path(__file__).parents[3]

EVERYTHING: Final = """
import os, subprocess, sys
from ipnctl.cli import main as ipnctl_main
from ipnctl.namespace import enter_new_network
from ipnd.cli import main as ipnd_main

directory = sys.argv[1]
enter_new_network()  # as unshare -rn

def started(main, *arguments, **files):
    pid = os.fork()
    if pid == 0:
        for number, name in ((1, "stdout"), (2, "stderr")):
            if name in files:
                os.dup2(files[name], number)
        try:
            main(arguments)
        except SystemExit as end:
            os._exit(end.code or 0)
        finally:
            os._exit(99)
    return pid

def ipnctl(*arguments):
    status = os.waitpid(started(ipnctl_main, *arguments), 0)[1]
    assert status == 0, (arguments, status)

news, log = os.pipe()
daemon = started(ipnd_main, "--control", f"{directory}/control", stderr=log)
said = open(news, "rb")
try:
    heard = said.readline()
    assert heard == b"ready\\n", heard
    path = f"{directory}/net"
    ipnctl("net", "create", path, "--policy", "vdeswitch")
    ipnctl("net", "attach-tap", path, "--up", "--address", "10.0.0.1/24")
    for command in ("add wire0 type veth peer name wire1", "set wire0 up", "set wire1 up"):
        subprocess.run(["ip", "link", *command.split()], check=True)
    ipnctl("net", "attach-grab", path, "wire0")
    ipnctl("netns", "run", path, "--address", "10.0.0.2/24", "--", "ping", "-n", "-c2", "-i0.2", "-W5", "10.0.0.1")
    ipnctl("net", "show", path)
finally:  # it has our standard output
    os.kill(daemon, 15)
os.close(log)
assert os.waitpid(daemon, 0)[1] == 0
assert b"Traceback" not in said.read()
"""
"""All of it in one program, as user 65534, who is root in a user namespace; each command in a child."""


@requires_root
@requires("ip", "ping")
def test_inside_a_user_namespace_everything_works(short_directory: Path) -> None:
    os.chown(short_directory, NOBODY, NOBODY)
    environment = {
        **clean_environment(str(short_directory / "control")),
        "PYTHONPATH": str(ROOT),
        "PATH": SBIN,
        "HOME": str(short_directory),
    }
    command = [*open_tun(short_directory), *as_user(NOBODY), sys.executable, "-c", EVERYTHING, str(short_directory)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert " 0% packet loss" in done.stdout
    assert "ipn0 (up)" in done.stdout
    assert "wire0 (up)" in done.stdout


# -- through the helper ------------------------------------------------------------------------------------------------

RULES: Final = f"""
[[tap]]
users = [{NOBODY}]
names = ["ipn*"]
up = true
addresses = ["10.0.0.0/24"]

[[grab]]
users = [{NOBODY}]
interfaces = ["eth1"]
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def house(lab: Lab, short_directory: Path) -> Iterator[tuple[Host, RunningDaemon]]:
    """Give a machine with a helper of root's, and on it the daemon of a user who may do nothing himself."""
    house = lab.bare("house")
    for name in ("helper", "user"):
        (short_directory / name).mkdir()
    os.chown(short_directory / "user", NOBODY, NOBODY)
    helper = RunningHelper(short_directory / "helper", prefix=house.prefix)
    helper.set_rules(RULES)
    helper.start()
    tun = open_tun(short_directory)
    daemon = RunningDaemon(short_directory / "user", prefix=(*house.prefix, *tun, *as_user(NOBODY)))
    daemon.env |= {"IPN_HELPER": helper.address, "PYTHONPATH": str(ROOT)}
    daemon.arguments = ("--state", str(short_directory / "user" / "state"))
    daemon.start()
    try:
        yield house, daemon
    finally:
        daemon.close()
        helper.close()


def ipnctl(house: Host, daemon: RunningDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*house.prefix, *as_user(NOBODY), *IPNCTL, *arguments]
    return subprocess.run(command, env=daemon.env, capture_output=True, text=True, timeout=30)


@requires_root
def test_a_user_puts_the_host_and_its_wire_on_a_network_through_the_helper(
    house: tuple[Host, RunningDaemon], lab: Lab
) -> None:
    host, daemon = house
    path = daemon.path("net")
    lan = lab.bare("lan")
    lab.wire(host, "eth1", lan, "eth0")
    lan.ip("address", "add", "10.0.0.3/24", "dev", "eth0")
    assert ipnctl(host, daemon, "net", "create", path, "--policy", "vdeswitch").returncode == 0
    done = ipnctl(host, daemon, "net", "attach-tap", path, "--up", "--address", "10.0.0.1/24")
    assert (done.returncode, done.stdout) == (0, "ipn0\n"), done
    assert ipnctl(host, daemon, "net", "attach-grab", path, "eth1").returncode == 0
    guest = lab.host("guest", path, "10.0.0.2/24")
    assert guest.pings("10.0.0.1", count=2)
    assert guest.pings("10.0.0.3", count=2)
    refused = ipnctl(host, daemon, "net", "attach-tap", path, "--name", "other0")
    assert refused.returncode == 1
    assert "its name is not among ipn*" in refused.stderr


@requires_root
def test_a_users_persistent_interfaces_come_back_after_his_daemon_was_killed(
    house: tuple[Host, RunningDaemon], lab: Lab
) -> None:
    host, daemon = house
    path = daemon.path("net")
    lab.wire(host, "eth1", lab.bare("lan"), "eth0")
    assert ipnctl(host, daemon, "net", "create", path).returncode == 0
    done = ipnctl(host, daemon, "net", "attach-tap", path, "--persist", "--up", "--address", "10.0.0.1/24")
    assert done.returncode == 0, done
    assert ipnctl(host, daemon, "net", "attach-grab", path, "eth1").returncode == 0
    daemon.kill()
    daemon.start()
    assert ipnctl(host, daemon, "net", "show", path).stdout.count("(up)") == 2, daemon.log
    guest = lab.host("guest", path, "10.0.0.2/24")
    assert guest.pings("10.0.0.1", count=2)
