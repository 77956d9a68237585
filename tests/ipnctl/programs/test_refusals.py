"""Where programs cannot be run: it is said why, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ipnctl import run as run_module
from ipnctl.programs.machine import MACHINES
from ipnctl.programs.seccomp import ADD_DESCRIPTOR
from ipnctl.run import run
from tests.ipnctl.command import AS_NOBODY, IPNCTL, Ipnctl
from tests.peers import requires, requires_root, skip_or_fail

SETUID_CAPABILITY = bytes.fromhex("0100000280000000000000000000000000000000")
"""A ``struct vfs_cap_data`` (version 2, effective) with CAP_SETUID."""

WITHOUT = """
import ctypes, os, struct, sys
number, error, argument = map(int, sys.argv.pop(1).split(","))
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 24), (0x15, 0, 1, argument),
         (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7FFF0000)]
if argument < 0:
    steps[2:4] = []
    steps[1] = (0x15, 0, 1, number)
filter = b"".join(struct.pack("=HBBI", *step) for step in steps)
room = ctypes.create_string_buffer(filter)
program = struct.pack("@H6xP", len(steps), ctypes.addressof(room))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program):
    sys.exit("no filter")
os.execv(sys.argv[1], sys.argv[1:])
"""


def where(call: int, error: int, argument: int = -1) -> tuple[str, ...]:
    """Return what, put before a command, has it run where a system call fails, if its second argument is that."""
    return (sys.executable, "-S", "-c", WITHOUT, f"{call},{error},{argument}")


def seccomp_is(error: int) -> tuple[str, ...]:
    """Return what, put before a command, has it run where seccomp(2) fails."""
    return where(MACHINES[os.uname().machine].seccomp, error)


def test_a_kernel_that_does_not_know_of_it_is_named_with_the_version_that_does(programs: Ipnctl) -> None:
    for number in (38, 22, 95):
        programs.run("run", "--", "true", prefix=seccomp_is(number)).failed("this kernel", "Linux 5.9 or newer")


def test_a_kernel_that_cannot_give_descriptors_is_named_with_the_version_that_can(programs: Ipnctl) -> None:
    ioctl = MACHINES[os.uname().machine].calls["ioctl"]
    ran = programs.run("run", "--", "true", prefix=where(ioctl, errno.EINVAL, ADD_DESCRIPTOR))
    assert ran.status == 126
    assert ran.err.startswith("ipnctl: cannot run true: this kernel")
    assert "Linux 5.9 or newer" in ran.err


def test_a_place_that_forbids_it_is_named_with_what_to_do(programs: Ipnctl) -> None:
    for number in (1, 13):
        programs.run("run", "--", "true", prefix=seccomp_is(number)).failed("container", "seccomp=unconfined")


def test_one_within_another_says_that_there_is_one_already(programs: Ipnctl) -> None:
    ran = programs.run("run", "--", *IPNCTL, "run", "--", "true")
    assert ran.status == 126
    assert ran.err.count("\n") == 1
    assert "cannot run true" in ran.err
    assert "ipnctl run?" in ran.err


@requires_root
@requires("setpriv")
@pytest.mark.parametrize("mode, words", [(0o4755, "set-user-ID"), (0o2755, "set-group-ID")])
def test_a_program_that_gains_privileges_is_refused_for_users(programs: Ipnctl, mode: int, words: str) -> None:
    program = shutil.copy("/bin/true", programs.path(f"true-{mode:o}"))
    os.chmod(program, mode)
    programs.run("run", "--", program, prefix=AS_NOBODY).failed(program, words, "no_new_privs", "run it as root")
    programs.run("run", "--", program).ok()


@requires_root
@requires("setpriv")
def test_a_program_with_file_capabilities_is_refused_for_users(programs: Ipnctl) -> None:
    program = shutil.copy("/bin/true", programs.path("true-capable"))
    try:
        os.setxattr(program, "security.capability", SETUID_CAPABILITY)
    except OSError as error:
        skip_or_fail(f"this filesystem has no file capabilities: {error}")
    programs.run("run", "--", program, prefix=AS_NOBODY).failed(program, "file capabilities", "no_new_privs")
    programs.run("run", "--", program).ok()


def test_a_machine_that_nobody_has_tried_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = os.uname_result(("Linux", "host", "6.1", "#1", "riscv64"))
    monkeypatch.setattr(os, "uname", lambda: there)
    ran = CliRunner().invoke(run, ["true"])
    assert ran.exit_code == 1
    assert "x86_64 and aarch64 (64 bit), not riscv64" in ran.output


def test_an_interpreter_of_32_bits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module.sys, "maxsize", 2**31 - 1)
    ran = CliRunner().invoke(run, ["true"])
    assert ran.exit_code == 1
    assert "64 bit" in ran.output


def test_a_program_that_is_not_there_is_127(programs: Ipnctl) -> None:
    for name in ("ipn-no-such-program", "/nowhere/program", ""):
        ran = programs.run("run", "--", name)
        assert (ran.status, ran.err) == (127, f"ipnctl: cannot run {name}: there is no such command\n")


def test_a_program_that_cannot_be_run_is_126(programs: Ipnctl) -> None:
    file = Path(programs.path("no-program"))
    file.write_text("no program")
    for name, mode in ((file, 0o644), (file, 0o755), (file.parent, 0o755)):
        name.chmod(mode)
        ran = programs.run("run", "--", str(name))
        assert ran.status == 126
        assert ran.err.startswith(f"ipnctl: cannot run {name}: ")


@pytest.mark.parametrize(
    "families, words",
    [
        ("34,x", "no list of address families"),
        ("", "no list of address families"),
        ("34,,33", "no list of address families"),
        ("0", "no list of address families"),
        ("256", "no list of address families"),
        ("-34", "no list of address families"),
        ("٣٤", "no list of address families"),
        ("34,2", "2 is an address family that programs need"),
        ("1", "1 is an address family that programs need"),
    ],
)
def test_a_family_that_cannot_be_is_refused(families: str, words: str) -> None:
    ran = CliRunner().invoke(run, [f"--family={families}", "true"])
    assert ran.exit_code == 2
    assert words in ran.output


def test_nothing_to_run_is_a_mistake_of_usage() -> None:
    assert CliRunner().invoke(run, []).exit_code == 2
