"""The numbers of system calls, beside those in the system's own headers."""

from __future__ import annotations

import re
import subprocess

import pytest

from ipnctl.programs.machine import MACHINES
from tests.peers import requires, skip_or_fail

X86_64 = "#define __x86_64__ 1\n#undef __i386__\n#undef __ILP32__\n#include <asm/unistd_64.h>\n"
GENERIC = "#undef __SYSCALL_COMPAT\n#define __BITS_PER_LONG 64\n#include <asm-generic/unistd.h>\n"
"""arm64 numbers its calls as all newer machines do."""


def numbers(header: str) -> dict[str, int]:
    """Return the system calls that a header of the system's defines; the test is skipped without it."""
    done = subprocess.run(
        ["cc", "-E", "-dM", "-x", "c", "-"], input=header, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        skip_or_fail(f"no such header here: {header.splitlines()[-1]}")
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", done.stdout, re.MULTILINE)}


@requires("cc")
@pytest.mark.parametrize("machine, header", [("x86_64", X86_64), ("aarch64", GENERIC)])
def test_the_numbers_are_those_of_the_systems_headers(machine: str, header: str) -> None:
    known, ours = numbers(header), MACHINES[machine]
    table = {**ours.calls, "seccomp": ours.seccomp, "pidfd_getfd": ours.pidfd_getfd}
    assert table == {name: known[name] for name in table}


def test_all_machines_have_the_same_calls() -> None:
    assert MACHINES["x86_64"].calls.keys() == MACHINES["aarch64"].calls.keys()
    for machine in MACHINES.values():
        assert len(set(machine.calls.values())) == len(machine.calls)
        assert max(machine.calls.values()) < machine.highest
