"""The guests themselves, on networks that are none of ours: a real vde_switch, a socket of the test's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.guests import Guest, qemu, uml
from tests.initramfs import archive, kernel
from tests.peers import requires
from tests.waiting import eventually

NOWHERE = "hubport,hubid=0"
"""A QEMU card that is plugged into nothing."""


def processes_of(guest: Guest) -> list[str]:
    """Return the processes of the guest's process group that still run."""
    stats = (path.read_text().rsplit(")", 1)[1].split() for path in Path("/proc").glob("[0-9]*/stat"))
    return [state for state, _, group, *_ in stats if int(group) == guest.process.pid and state != "Z"]


def test_a_guest_runs_commands_and_tells_their_status_and_output(short_directory: Path) -> None:
    with uml(short_directory / "a", "eth0=mcast", "10.0.0.1/24") as guest:
        assert guest.run("echo one; echo two >&2; exit 7").status == 7
        assert guest.run("printf 'no newline'").text == "no newline"
        assert guest.run("true").text == ""
        assert "10.0.0.1/24" in guest.run("ip address show dev eth0").text


def test_a_guest_that_is_closed_leaves_no_process_and_no_file_outside_its_directory(short_directory: Path) -> None:
    with uml(short_directory / "a", "eth0=mcast", "10.0.0.1/24") as guest:
        guest.wait_ready()
        assert processes_of(guest)
    assert guest.process.returncode == 0
    assert not processes_of(guest)
    assert os.listdir(short_directory) == ["a"]


def test_a_guest_that_is_closed_before_it_is_ready_is_killed_with_all_its_processes(short_directory: Path) -> None:
    with qemu(short_directory / "a", NOWHERE, "10.0.0.1/24", "52:54:00:00:00:01") as guest:
        os.kill(guest.process.pid, signal.SIGSTOP)
    assert guest.process.returncode == -signal.SIGKILL
    assert not processes_of(guest)


def test_a_command_that_does_not_boot_fails_with_what_it_said(short_directory: Path) -> None:
    with Guest(["sh", "-c", "echo no such disk; exit 3"], short_directory) as guest:
        with pytest.raises(pytest.fail.Exception, match="no such disk"):
            guest.wait_ready()


@requires("vde_switch")
def test_guests_of_both_kinds_ping_each_other_over_a_vde_switch(short_directory: Path) -> None:
    switch_directory = short_directory / "switch"
    with subprocess.Popen(["vde_switch", "-s", switch_directory], stdin=subprocess.PIPE) as switch:
        eventually((switch_directory / "ctl").exists)
        with (
            qemu(short_directory / "a", f"vde,sock={switch_directory}", "10.0.0.1/24", "52:54:00:00:00:01") as one,
            uml(short_directory / "b", f"eth0=vde,{switch_directory}", "10.0.0.2/24") as other,
        ):
            assert one.pings("10.0.0.2")
            assert other.pings("10.0.0.1")
            assert other.run("ping -c 1 -W 1 10.0.0.3").status != 0
            assert one.run("cat /sys/class/net/eth0/address").text == "52:54:00:00:00:01\n"
        switch.kill()


def test_a_uml_guest_reaches_a_seqpacket_socket(short_directory: Path) -> None:
    path = str(short_directory / "bess")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(5)
        with uml(short_directory / "a", f"vec0:transport=bess,dst={path}", "10.0.0.1/24") as guest:
            guest.wait_ready()
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                guest.run("ping -c 1 -W 1 10.0.0.2")
                frames = iter(lambda: connection.recv(65536), b"")
                arp = next(frame for frame in frames if frame[12:14] == b"\x08\x06")
        assert arp[:6] == b"\xff" * 6
        assert socket.inet_aton("10.0.0.2") in arp


def test_modules_come_after_those_that_they_need() -> None:
    data = archive(kernel().modules)
    order = data[data.index(b"modules/order") :].split(b"\0")
    names = [name.split(b".")[0] for name in b"\n".join(order).split(b"\n") if b".ko" in name]
    assert names.index(b"virtio") < names.index(b"virtio_pci") < names.index(b"virtio_net")
    assert names.index(b"failover") < names.index(b"net_failover") < names.index(b"virtio_net")
