"""Uplinks by programs that ipnd runs: the real slirp4netns and passt, and guests that use them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ipn import admin
from tests.ipnctl.command import IPNCTL
from tests.ipnd.uplinks.outside import (
    ADDRESS,
    ANSWER,
    GATEWAY,
    Outside,
    arp_answered,
    is_alive,
    lease_of,
    only_program,
    programs_of,
    tcp,
    udp,
    uplinks,
    wait_until_up,
)
from tests.lab import Lab, command
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.running import RunningDaemon
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a directory of slirp4netns's behind."""
    before = set(Path(tempfile.gettempdir()).glob("ipn-slirp-*"))
    yield
    assert set(Path(tempfile.gettempdir()).glob("ipn-slirp-*")) <= before


def slirp(path: str, **options: Any) -> dict[str, Any]:
    """Add an uplink and wait until it is up; return its port."""
    admin.add_fixture(path, "slirp", "", **options)
    return wait_until_up(path)


@requires("slirp4netns", "udhcpc")
def test_guests_get_addresses_from_slirp4netns_and_reach_the_host_and_its_dns(
    outside: Outside, ipnd: RunningDaemon, net: str, lab: Lab
) -> None:
    assert slirp(net, program="slirp4netns")["command"] == "slirp4netns"
    one, other = lab.host("one", net), lab.host("other", net)
    leases = [lease_of(guest, ipnd.directory) for guest in (one, other)]
    assert {lease.router for lease in leases} == {"10.0.2.2"}
    assert {lease.dns for lease in leases} == {"10.0.2.3"}
    assert len({lease.address for lease in leases}) == 2
    assert one.pings("10.0.2.2")
    assert one.pings(leases[1].address)
    assert tcp(one, "10.0.2.2", outside.port) == ANSWER
    assert tcp(one, outside.resolver, outside.port) == b""
    assert udp(other, "10.0.2.3") == "answer to question"


@requires("slirp4netns", "udhcpc")
def test_guests_can_be_kept_from_the_hosts_loopback(
    outside: Outside, ipnd: RunningDaemon, net: str, lab: Lab
) -> None:
    slirp(net, program="slirp4netns", host=False)
    guest = lab.host("guest", net)
    assert lease_of(guest, ipnd.directory).router == "10.0.2.2"
    assert guest.pings("10.0.2.2")
    assert tcp(guest, "10.0.2.2", outside.port) == b""


@pytest.mark.parametrize("host", [True, False])
@requires("passt", "udhcpc")
def test_a_guest_gets_its_address_from_passt_and_reaches_the_host_and_its_dns(
    outside: Outside, ipnd: RunningDaemon, net: str, lab: Lab, host: bool
) -> None:
    assert slirp(net, program="passt", host=host)["command"].startswith("passt")
    guest = lab.host("guest", net)
    lease = lease_of(guest, ipnd.directory)
    assert (lease.address, lease.router) == (ADDRESS, GATEWAY)
    assert tcp(guest, GATEWAY, outside.port) == (ANSWER if host else b"")
    if not outside.resolver.startswith("127."):
        assert lease.dns == outside.resolver
        assert udp(guest, lease.dns) == "answer to question"


@requires("slirp4netns")
def test_a_program_that_is_killed_is_back_and_the_log_says_it_once(ipnd: RunningDaemon, net: str) -> None:
    slirp(net, program="slirp4netns")
    assert arp_answered(net, "10.0.2.2")
    for _ in range(2):
        pid = only_program(ipnd)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: programs_of(ipnd).keys() - {pid} and uplinks(net)[0]["state"] == "up", 10)  # type: ignore[misc]
        assert arp_answered(net, "10.0.2.2")
    members = [port for port in admin.show_network(net)["ports"] if port["kind"] == "slirp"]
    assert len(members) == 1
    assert len([line for line in ipnd.log if "slirp4netns was ended by SIGKILL; it is tried again" in line]) == 2


@requires("passt")
def test_passt_that_is_killed_is_back(outside: Outside, ipnd: RunningDaemon, net: str) -> None:
    slirp(net, program="passt")
    assert arp_answered(net, GATEWAY)
    pid = only_program(ipnd)
    os.kill(pid, signal.SIGKILL)
    ipnd.wait_for_log("was ended by SIGKILL; it is tried again")
    assert arp_answered(net, GATEWAY)
    assert only_program(ipnd) != pid


@pytest.mark.parametrize("program", ["slirp4netns", "passt"])
@requires("slirp4netns", "passt")
def test_no_program_survives_an_ipnd_that_is_killed(
    outside: Outside, ipnd: RunningDaemon, net: str, program: str
) -> None:
    slirp(net, program=program)
    pid = only_program(ipnd)
    ipnd.kill()
    eventually(lambda: not is_alive(pid), 10)
    ipnd.start()


@pytest.mark.parametrize("program", ["slirp4netns", "passt"])
@requires("slirp4netns", "passt")
def test_the_program_ends_with_its_uplink_its_network_and_its_daemon(
    outside: Outside, ipnd: RunningDaemon, net: str, program: str
) -> None:
    slirp(net, program=program)
    pid = only_program(ipnd)
    admin.remove_fixture(net, "slirp", "slirp")
    assert admin.show_network(net)["ports"] == []
    assert uplinks(net) == []
    eventually(lambda: not is_alive(pid))

    slirp(net, program=program)
    pid = only_program(ipnd)
    ipnd.restart()  # a persistent network has its uplink again
    assert not is_alive(pid)
    wait_until_up(net)
    pid = only_program(ipnd)
    admin.delete_network(net)
    eventually(lambda: not is_alive(pid))


@requires_root
@requires("slirp4netns", "passt")
def test_the_program_runs_as_the_user_who_asked(outside: Outside, ipnd: RunningDaemon, net: str) -> None:
    for program in ("slirp4netns", "passt"):
        command(*as_user(NOBODY, 4711), *IPNCTL, "uplink", "add", net, "--slirp", "--program", program)
        wait_until_up(net)
        status = Path(f"/proc/{only_program(ipnd)}/status").read_text()
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status
        assert f"Gid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status
        assert arp_answered(net, "10.0.2.2" if program == "slirp4netns" else GATEWAY)
        admin.remove_fixture(net, "slirp", "slirp")
        eventually(lambda: programs_of(ipnd) == {})


@requires_root
@requires("slirp4netns")
def test_a_users_ipnd_runs_programs_for_that_user_only(ipnd: RunningDaemon) -> None:
    other = RunningDaemon(Path(tempfile.mkdtemp(dir=ipnd.directory)), prefix=as_user(4242))
    other.directory.chmod(0o777)
    other.start()
    try:
        env, path = other.env, other.path("net")
        run(env, *as_user(4242), *IPNCTL, "net", "create", path, "--mode", "0777")
        refused = run(env, *as_user(NOBODY), *IPNCTL, "uplink", "add", path, "--slirp", ok=False)
        assert "runs as user 4242 and can neither run programs nor connect as user 65534" in refused
        run(env, *as_user(4242), *IPNCTL, "uplink", "add", path, "--slirp", "--program", "slirp4netns")
        status = Path(f"/proc/{only_program(other)}/status").read_text()
        assert "Uid:\t4242\t4242\t4242\t4242\n" in status
        assert arp_answered(path, "10.0.2.2")
    finally:
        other.close()


def run(env: dict[str, str], *words: str, ok: bool = True) -> str:
    """Run a command with an environment; return what it said on stderr."""
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode == 0) == ok, done.stderr
    return done.stderr


# -- options and programs --------------------------------------------------------------------------------------------


@requires("slirp4netns")
def test_slirp4netns_has_the_addresses_that_were_asked_for(ipnd: RunningDaemon, net: str) -> None:
    slirp(net, cidr="10.77.0.0/16")
    assert arp_answered(net, "10.77.0.2")


@requires("slirp4netns")
def test_the_programs_mtu_is_one_that_the_network_takes(ipnd: RunningDaemon) -> None:
    cases = [(1514, None, 1500), (9014, None, 1500), (9014, 9000, 9000), (800, None, 786)]
    for number, (mtu, given, used) in enumerate(cases):
        path = ipnd.path(f"net{number}")
        admin.create_network(path, mtu=mtu)
        slirp(path, program="slirp4netns", mtu=given)
        assert f"--mtu={used}" in programs_of(ipnd)[only_program(ipnd)]
        admin.delete_network(path)
        eventually(lambda: programs_of(ipnd) == {})


SENSELESS: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    ({"program": "sh"}, "'program' must be one of slirp4netns, passt"),
    ({"mtu": 1501}, "an MTU of 1501 needs frames of 1515 bytes"),
    ({"mtu": 0}, "'mtu' must be a number from 68 to 65520"),
    ({"mtu": True}, "'mtu' must be a number"),
    ({"mtu": "1500"}, "'mtu' must be a number"),
    ({"cidr": "10.0.2.0/26"}, "'cidr' must be an IPv4 network of at most 25 bits"),
    ({"cidr": "10.0.2.1/24"}, "'cidr' must be an IPv4 network"),
    ({"cidr": "10.0.2.0"}, "'cidr' must be an IPv4 network"),
    ({"cidr": "--help/24"}, "'cidr' must be an IPv4 network"),
    ({"cidr": 167772160}, "'cidr' must be an IPv4 network"),
    ({"cidr": "10.0.2.0/24", "program": "passt"}, "'cidr' is for slirp4netns only"),
    ({"host": "no"}, "'host' must be true or false"),
    ({"gateway": "10.0.2.2"}, "has no option 'gateway'"),
)


@requires("slirp4netns", "passt")
def test_options_that_make_no_sense_are_refused(net: str) -> None:
    for options, words in SENSELESS:
        with pytest.raises(OSError, match=words) as refused:
            admin.add_fixture(net, "slirp", "", **options)
        assert refused.value.errno == errno.EINVAL, options
    with pytest.raises(OSError, match="has no address, but '/tmp/x' was given"):
        admin.add_fixture(net, "slirp", "/tmp/x")
    assert uplinks(net) == []


@requires("slirp4netns")
def test_a_network_has_one_uplink_of_this_kind(net: str, ipnd: RunningDaemon) -> None:
    slirp(net, program="slirp4netns")
    with pytest.raises(FileExistsError):
        admin.add_fixture(net, "slirp", "slirp")
    assert len(programs_of(ipnd)) == 1


def programs_at(ipnd: RunningDaemon, **scripts: str) -> None:
    """Restart the daemon so that it finds no programs but these: names and scripts, or what they are links to."""
    directory = Path(ipnd.path("bin"))
    directory.mkdir()
    for name, script in scripts.items():
        if script.startswith("/"):
            (directory / name).symlink_to(script)
        else:
            (directory / name).write_text(f"#!/bin/sh\n{script}\n")
            (directory / name).chmod(0o755)
    ipnd.env["PATH"] = str(directory)
    ipnd.restart()


def test_programs_that_are_not_installed_are_an_error_that_says_so(ipnd: RunningDaemon, net: str) -> None:
    programs_at(ipnd)
    for options, words in (
        ({}, "neither slirp4netns nor passt is installed on the host of ipnd"),
        ({"program": "passt"}, "passt is not installed"),
        ({"cidr": "10.0.2.0/24"}, "slirp4netns is not installed"),
    ):
        with pytest.raises(FileNotFoundError, match=words):
            admin.add_fixture(net, "slirp", "", **options)
    assert uplinks(net) == []


@requires("passt")
def test_where_only_passt_is_installed_it_is_passt(outside: Outside, ipnd: RunningDaemon, net: str) -> None:
    programs_at(ipnd, passt="/usr/bin/passt")
    assert slirp(net)["command"].startswith("passt")
    assert arp_answered(net, GATEWAY)


@pytest.mark.parametrize("name", ["slirp4netns", "passt"])
def test_why_a_program_does_not_start_is_told_and_it_is_tried_again(
    ipnd: RunningDaemon, net: str, name: str
) -> None:
    marker = ipnd.path("attempts")
    programs_at(ipnd, **{name: f"echo again >>{marker}; echo cannot have the moon >&2; exit 3"})
    admin.add_fixture(net, "slirp", "")
    problem = f"{name} ended with status 3: cannot have the moon"
    eventually(lambda: uplinks(net)[0]["problem"] == problem)
    eventually(lambda: Path(marker).read_text().count("again") >= 3)
    assert len([line for line in ipnd.log if problem in line]) == 1
    assert admin.show_network(net)["ports"] == []
