"""Cables over ssh: through a real sshd, and through a program that takes ssh's place and runs the command here."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shlex
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from ipn import admin
from ipnd.cables.ssh import ssh_command
from ipnd.cables.url import SshUrl
from tests.ipnctl.command import AS_NOBODY, INSTALLED, Ipnctl
from tests.ipnd.cables.recipes import RECIPES, run_recipe
from tests.peers import requires, requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

SECONDS: Final = 20.0

INSTEAD_OF_SSH: Final = """#!/bin/sh
while [ $# -gt 2 ]; do shift; done
case $1 in
  away) echo "ssh: connect to host away port 22: Connection refused" >&2; exit 255;;
  who) echo "user $(id -u), agent $SSH_AUTH_SOCK, home $HOME" >&2; exit 1;;
  greets) echo "Welcome!"; echo "You have mail.";;
  babbles) exec yes "no cable";;
esac
exec sh -c "$2"
"""
"""Some hosts are special; on others the command is run."""


@pytest.fixture
def instead(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the daemon that starts next run a program in ssh's place."""
    program = short_directory / "ssh"
    program.write_text(INSTEAD_OF_SSH)
    program.chmod(0o755)
    monkeypatch.setenv("IPN_SSH", str(program))
    monkeypatch.setenv("PATH", f"{INSTALLED.parent}{os.pathsep}{os.environ['PATH']}")
    return str(program)


@pytest.fixture
def nets(instead: str, ipnd: RunningDaemon) -> tuple[str, str]:
    """Give the paths of two networks; the second one's asks for quoting."""
    paths = (ipnd.path("net"), ipnd.path("the far 'net'"))
    for path in paths:
        admin.create_network(path, lossless=True)
    return paths


def cable(path: str) -> dict[str, Any]:
    (found,) = (fixture for fixture in admin.show_network(path)["fixtures"] if fixture["kind"] == "ssh")
    return dict(found)


def ports(path: str, kind: str) -> list[dict[str, Any]]:
    return [port for port in admin.show_network(path)["ports"] if port["kind"] == kind]


def wait_until_up(path: str, but: int = 0) -> int:
    """Return the process behind the cable once it is up and is not ``but``."""

    def process() -> int:
        there = ports(path, "ssh") + ports(path, "vdestream")
        return next((int(port["pid"]) for port in there if port["pid"] != but and cable(path)["state"] == "up"), 0)

    return eventually(process, SECONDS, f"never up: {cable(path)}")


def raw_member(path: str) -> RawMember:
    """Return a raw member that has joined."""
    before = len(ports(path, "raw"))
    member = RawMember(path)
    eventually(lambda: len(ports(path, "raw")) > before, SECONDS)
    return member


def to(path: str, host: str = "there") -> str:
    return f"ssh://{host}{quote(path)}"


def by(command: str) -> str:
    return f"ssh://there?plug={quote(command)}"


def frames_of(count: int, longest: int) -> list[bytes]:
    sizes = random.Random(7)
    return [struct.pack(">I", n) + os.urandom(1) * sizes.randrange(11, longest - 3) for n in range(count)]


def check_all_cross(one: RawMember, other: RawMember, frames: list[bytes]) -> None:
    """Send all frames in both directions at once; each must come, and in order."""

    def send(member: RawMember) -> None:
        for frame in frames:
            member.send_frame(frame)

    heard: list[bytes | None] = []
    threads = [threading.Thread(target=send, args=(member,)) for member in (one, other)]
    threads.append(threading.Thread(target=lambda: heard.extend(other.recv_frame() for _ in frames)))
    for thread in threads:
        thread.start()
    assert [one.recv_frame() for _ in frames] == frames
    for thread in threads:
        thread.join()
    assert heard == frames


# -- to ipnctl plug --hops -------------------------------------------------------------------------------------------


def test_frames_cross_until_the_cable_is_removed(nets: tuple[str, str], ipnd: RunningDaemon) -> None:
    near, far = nets
    url = to(far, "greets")
    assert admin.add_fixture(near, "ssh", url)["group"] == "cable"
    process = wait_until_up(near)
    with raw_member(near) as one, raw_member(far) as other:
        check_all_cross(one, other, frames_of(2000, 1514))
        (port,) = ports(near, "ssh")
        assert (port["rights"], port["tx_frames"], port["rx_frames"], port["dropped"]) == ("rw", 2000, 2000, 0)
        admin.remove_fixture(near, "ssh", url)
        assert not ports(near, "ssh")
        eventually(lambda: not ports(far, "hops"), SECONDS)
        eventually(lambda: not os.path.exists(f"/proc/{process}"), SECONDS)


def test_a_loop_over_ssh_ends_at_the_hop_limit(nets: tuple[str, str], ipnd: RunningDaemon) -> None:
    near, far = nets
    admin.add_fixture(near, "ssh", to(far))
    wait_until_up(near)
    admin.add_fixture(near, "cable", far)
    with raw_member(near) as member:
        member.send_frame(b"round and round")

        def limited() -> int:
            return sum(admin.show_network(path)["drops"].get("hop limit", 0) for path in nets)

        eventually(lambda: limited() >= 2, SECONDS)  # the frame goes round both ways
        assert [member.recv_frame() for _ in range(8)] == [b"round and round"] * 8  # four times each
        admin.add_fixture(near, "ssh", "ssh://away/net")  # a request that is answered when all is quiet
        assert limited() == 2


def test_it_is_up_again_when_ssh_or_the_other_end_has_gone(nets: tuple[str, str], ipnd: RunningDaemon) -> None:
    near, far = nets
    admin.add_fixture(near, "ssh", to(far))
    process = wait_until_up(near)
    os.kill(process, signal.SIGKILL)
    process = wait_until_up(near, but=process)
    admin.delete_network(far)
    eventually(lambda: cable(near)["state"] == "waiting", SECONDS)
    assert f"the network {far} has ended" in ipnd.wait_for_log("has ended")
    admin.create_network(far)
    wait_until_up(near, but=process)
    with raw_member(near) as one, raw_member(far) as other:
        one.send_frame(b"again")
        assert other.recv_frame() == b"again"


def test_it_is_there_again_after_a_restart(nets: tuple[str, str], ipnd: RunningDaemon) -> None:
    near, far = nets
    admin.add_fixture(near, "ssh", to(far), agent="/run/agent")
    process = wait_until_up(near)
    ipnd.kill()
    eventually(lambda: not os.path.exists(f"/proc/{process}"), SECONDS)  # ssh has ended with its daemon
    ipnd.start()
    wait_until_up(near)
    assert (cable(near)["address"], cable(near)["options"]) == (to(far), {"agent": "/run/agent"})


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("away", "ssh ended with status 255: ssh: connect to host away port 22: Connection refused"),
        ("babbles", "the other end is no cable of this kind; the last line it said is 'no cable'"),
    ],
)
def test_why_it_is_not_up_is_shown_and_logged_once(
    nets: tuple[str, str], ipnd: RunningDaemon, host: str, problem: str
) -> None:
    near, far = nets
    admin.add_fixture(near, "ssh", to(far, host))
    states = set()

    def tried_twice() -> bool:
        states.add((cable(near)["state"], cable(near)["problem"]))
        return {("waiting", problem), ("connecting", problem)} <= states

    eventually(tried_twice, SECONDS, f"{states}")
    assert not ports(near, "ssh")
    admin.remove_fixture(near, "ssh", to(far, host))
    assert sum(problem in line for line in ipnd.log) == 1


@requires_root
def test_ssh_runs_as_who_asked_and_with_their_agent(nets: tuple[str, str], ipnd: RunningDaemon) -> None:
    near, far = nets
    os.chmod(near, 0o777)
    ipnctl = Ipnctl(ipnd)
    ipnd.env["SSH_AUTH_SOCK"] = "/run/their-agent"
    ipnctl.run("cable", "add", near, to(far, "who"), prefix=AS_NOBODY).ok()
    eventually(lambda: cable(near)["problem"], SECONDS)
    assert ": user 65534, agent /run/their-agent, home /" in cable(near)["problem"]
    ipnctl.run("cable", "remove", near, to(far, "who"), prefix=AS_NOBODY).ok()


@pytest.mark.parametrize("agent", ["a\0b", "x" * 200, 7])
def test_an_agent_that_makes_no_sense_is_refused(nets: tuple[str, str], agent: Any) -> None:
    with pytest.raises(OSError, match="must be the path of ssh-agent's socket") as refusal:
        admin.add_fixture(nets[0], "ssh", to(nets[1]), agent=agent)
    assert refusal.value.errno == errno.EINVAL


def test_the_command_names_host_port_and_user() -> None:
    command = ssh_command(SshUrl("fd00::1", "/run/a net", user="me", port=2222))
    assert command[:2] == ["ssh", "-T"]
    assert command[-6:] == ["-p", "2222", "-l", "me", "fd00::1", "ipnctl plug --hops '/run/a net'"]
    assert "BatchMode=yes" in command


# -- to what speaks VDE's stream -------------------------------------------------------------------------------------


def test_by_another_command_vdes_stream_goes_over_the_cable(nets: tuple[str, str], ipnd: RunningDaemon) -> None:
    near, far = nets
    admin.add_fixture(near, "ssh", by(f"ipnctl plug {shlex.quote(far)}"))
    wait_until_up(near)
    eventually(lambda: ports(far, "stream"), SECONDS)
    with raw_member(near) as one, raw_member(far) as other:
        frames = frames_of(3000, 1514)
        check_all_cross(one, other, frames)
        (port,) = ports(near, "vdestream")
        size = sum(map(len, frames))
        assert (port["tx_frames"], port["tx_bytes"], port["dropped"]) == (3000, size, 0)
        assert (port["rx_frames"], port["rx_bytes"], port["oversize"]) == (3000, size, 0)


def test_long_frames_are_not_torn_and_those_that_the_stream_cannot_tell_are_dropped(
    instead: str, ipnd: RunningDaemon
) -> None:
    near, far = ipnd.path("near"), ipnd.path("far")
    for path in (near, far):
        admin.create_network(path, mtu=100_000, lossless=True)
    admin.add_fixture(near, "ssh", by(f"ipnctl plug {far}"))
    wait_until_up(near)
    eventually(lambda: ports(far, "stream"), SECONDS)
    with raw_member(near) as one, raw_member(far) as other:
        check_all_cross(one, other, frames_of(300, 65535))
        for frame in (b"a" * 65535, b"b" * 65536, b"c" * 100_000, b"d"):
            one.send_frame(frame)
        assert [other.recv_frame(), other.recv_frame()] == [b"a" * 65535, b"d"]
        assert ports(near, "vdestream")[0]["dropped"] == 2
    assert sum("frames longer than 65535 bytes" in line for line in ipnd.log) == 1


def test_a_far_end_that_reads_nothing_holds_up_nobody_on_a_lossy_network(instead: str, ipnd: RunningDaemon) -> None:
    near = ipnd.path("near")
    admin.create_network(near)
    admin.add_fixture(near, "ssh", by("sleep 1000"))
    wait_until_up(near)
    with raw_member(near) as one, raw_member(near) as other:
        for number in range(2000):
            one.send_frame(struct.pack(">I", number) * 350)
            assert other.recv_frame() == struct.pack(">I", number) * 350
        assert ports(near, "vdestream")[0]["dropped"] > 0


@requires("vde_switch", "vde_plug")
def test_two_networks_meet_on_a_vde_switch(instead: str, ipnd: RunningDaemon) -> None:
    nets, directory = (ipnd.path("one"), ipnd.path("two")), ipnd.path("vde.ctl")
    switch = subprocess.Popen(
        ["vde_switch", "-hub", "-s", directory], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: os.path.exists(f"{directory}/ctl"), SECONDS)
        for path in nets:
            admin.create_network(path)
            run_recipe(RECIPES["ssh-vde"], ipnd, NET=path, THERE="there", SWITCH=directory)
            wait_until_up(path)
        with raw_member(nets[0]) as one, raw_member(nets[1]) as other:
            for sender, receiver in ((one, other), (other, one)):
                for number in range(30):
                    frame = b"\xff" * 6 + b"\2\0\0\0\0\1\x88\xb5" + bytes([number + 1]) * 40 * number
                    heard_through(sender, receiver, frame)
    finally:
        switch.terminate()
        switch.wait()
        assert switch.stdin is not None
        switch.stdin.close()


def heard_through(sender: RawMember, receiver: RawMember, frame: bytes) -> None:
    """Send a frame until it is heard: the first ones may come before vde_plug is at its switch."""
    receiver.settimeout(0.3)

    def heard() -> bool:
        sender.send_frame(frame)
        with contextlib.suppress(TimeoutError):
            while (got := receiver.recv_frame()) != frame:
                assert got is not None
            return True
        return False

    eventually(heard, SECONDS)


# -- through a real sshd ---------------------------------------------------------------------------------------------


@pytest.fixture
def sshd(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Run sshd on a port of the loopback with keys of its own; have the daemon's ssh know it."""
    place = short_directory / "sshd"
    place.mkdir(mode=0o700)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / key)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (place / "authorized").write_text((place / "user.pub").read_text())
    (place / "known").write_text(f"[127.0.0.1]:{port} {(place / 'host.pub').read_text()}")
    (place / "config").write_text(f"IdentityFile {place}/user\nUserKnownHostsFile {place}/known\nIdentitiesOnly yes\n")
    (place / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nSetEnv PATH={INSTALLED.parent}:/usr/bin:/bin\n"
    )
    program = short_directory / "ssh"
    program.write_text(f'#!/bin/sh\nexec ssh -F {place}/config "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("IPN_SSH", str(program))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd will not run without it
    log = (place / "log").open("w")
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(place / "sshd_config")], stderr=log)
    try:
        eventually(lambda: "Server listening" in (place / "log").read_text(), SECONDS, f"no sshd: see {place}/log")
        yield port
    finally:
        server.terminate()
        server.wait()
        log.close()


@requires("sshd", "ssh", "ssh-keygen")
def test_through_a_real_sshd_frames_cross_and_refusals_are_told(sshd: int, ipnd: RunningDaemon) -> None:
    near, far = ipnd.path("near"), ipnd.path("the far 'net'")
    for path in (near, far):
        admin.create_network(path, lossless=True)
    run_recipe(RECIPES["ssh"], ipnd, NET=near, THERE=f"127.0.0.1:{sshd}", FAR=quote(far))
    wait_until_up(near)
    with raw_member(near) as one, raw_member(far) as other:
        check_all_cross(one, other, frames_of(3000, 1514))
    Ipnctl(ipnd).run("cable", "remove", near, f"ssh://127.0.0.1:{sshd}{quote(far)}").ok()
    eventually(lambda: not ports(far, "hops"), SECONDS)
    absent = ipnd.path("absent")
    admin.add_fixture(near, "ssh", f"ssh://127.0.0.1:{sshd}{absent}")
    eventually(lambda: f"there is no network at {absent}" in cable(near)["problem"], SECONDS)
    admin.remove_fixture(near, "ssh", f"ssh://127.0.0.1:{sshd}{absent}")
    admin.add_fixture(near, "ssh", f"ssh://stranger@127.0.0.1:{sshd}{far}")
    eventually(lambda: "Permission denied (publickey" in cable(near)["problem"], 5, str(cable(near)))
