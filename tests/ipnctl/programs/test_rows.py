"""Each call and option of AF_IPN in a C program under ``ipnctl run`` beside the same with the library, row by row."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import attrs
import pytest

import ipn
from ipn import abi, admin
from tests.ipnctl.command import SECONDS
from tests.ipnctl.programs.compiling import Compiler
from tests.ipnctl.programs.joining import wait_for_members
from tests.peers import NOBODY, as_user, requires_root
from tests.running import RunningDaemon

ROOT: Final = Path(__file__).parents[3]
ERRORS: Final = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}
LATER: Final = pytest.mark.parametrize("flags", [(), ("-DIPN_LATER",)], ids=["as proposed", "later encoding"])


def rows(text: str) -> dict[str, str]:
    """Return name → what it came to, of what rows.c or rows.py has printed: an error's name, or result and value."""
    found: dict[str, str] = {}
    for name, result, number, value in (line.split("\t") for line in text.splitlines()):
        assert name not in found, f"two rows are called {name!r}"
        found[name] = ERRORS[int(number)] if result == "-1" else f"{result} {value}".rstrip()
    return found


DIFFERENT: Final[dict[str, tuple[str, str]]] = {
    # The program's is a unix socket, which is hung up while it is not connected: POLLHUP.
    "poll fresh": (f"1 {select.POLLOUT | select.POLLHUP}", f"1 {select.POLLOUT}"),
    # Level 1 is SOL_SOCKET before it is the broadcast policy's; option 8 there is SO_RCVBUF.
    "level of the policy": ("0", "EOPNOTSUPP"),
    # The kernel answers what a message's length does not tell apart: it goes, and is not delivered.
    "sendmsg longer than the mtu": ("2000", "EOVERFLOW"),
    "send nothing": ("0", "EINVAL"),
    # The kernel names the sender, which is ipnd's end, by a unix address of its own.
    "recvfrom": ("6", "6 joined"),
    "recv with a look ahead": ("4 0 look", "EOPNOTSUPP"),
    # To the kernel, who does not receive has come to the end.
    "recv shut down": ("0 0", "EPIPE"),
    "recv w": ("0 0", "EPIPE"),
    # To the kernel, the other end is just closed.
    "send at the end": ("EPIPE", "ECONNRESET"),
}
"""Row → what it comes to for a program, and for the library: rows of docs/af_ipn.md, too."""

ONLY_C: Final[dict[str, dict[str, str]]] = {
    "here": {
        "C: socketpair": "EOPNOTSUPP",
        "C: accept4": "EOPNOTSUPP",
    },
    "options": {
        "C: type": f"0 {ipn.SOCK_RAW}",
        "C: domain": f"0 {ipn.AF_IPN}",
        "C: protocol": f"0 {ipn.IPN_BROADCAST}",
    },
    "joined": {
        "C: protocol of any": f"0 {ipn.IPN_BROADCAST}",
        "C: whom from": f"0 {int(socket.AF_UNIX)}",
    },
    "pointers": {
        "C: bind nowhere": "EFAULT",
        "C: bind null": "EFAULT",
        "C: bind no length": "EINVAL",
        "C: bind length of the family": "EINVAL",
        "C: bind negative length": "EINVAL",
        "C: bind huge length": "EINVAL",
        "C: bind without a path": "EINVAL",
        "C: bind an internet address": "EAFNOSUPPORT",
        "C: connect nowhere": "EFAULT",
        "C: connect huge length": "EINVAL",
        "C: getsockname fresh nowhere": "ENOTCONN",
        "C: bind a unix address of just its length": "0",
        "C: getsockname": "0",
        "C: its family and length": f"0 {ipn.AF_IPN} 0",
        "C: its path": "0 0",
        "C: getsockname cut": "0",
        "C: cut where": f"0 {ipn.AF_IPN} 0 /tm##",
        "C: getsockname without room": "0",
        "C: getsockname negative room": "EINVAL",
        "C: getsockname nowhere": "EFAULT",
        "C: getsockname room nowhere": "EFAULT",
        "C: setsockopt nowhere": "EFAULT",
        "C: setsockopt nothing": "EINVAL",
        "C: setsockopt negative length": "EINVAL",
        "C: setsockopt huge length": "EINVAL",
        "C: setsockopt longer than an int": "0",
        "C: getsockopt nowhere": "EFAULT",
        "C: getsockopt room nowhere": "EFAULT",
        "C: getsockopt negative room": "EINVAL",
        "C: getsockopt with more room": "0",
        "C: how much of it": f"0 4 {abi.DEFAULT_MTU}",
        "C: ioctl nowhere": "EFAULT",
        "C: ioctl null": "EFAULT",
        "C: ioctl of other files": "ENOTTY",
        "C: connect a path it is bound to": "0",
        "C: send from nowhere": "EFAULT",
        "C: send a long message from nowhere": "EOVERFLOW",
        "C: send more than there is": "EOVERFLOW",
        "C: bind closed": "EBADF",
        "C: bind what is no socket": "ENOTSOCK",
    },
}
"""Section → its rows that the library cannot have → what they come to."""


@attrs.frozen
class Bench:
    """Runs a section twice, in C and in Python, each in a directory of its own."""

    daemon: RunningDaemon
    compiled: Compiler

    def directory(self, section: str, side: str) -> Path:
        """Return a fresh directory with what sections expect there: a file, a dead socket, a place for all."""
        directory = self.daemon.directory / f"{section}-{side}"
        directory.mkdir()
        (directory / "file").touch()
        (directory / "open").mkdir()
        (directory / "open").chmod(0o777)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(directory / "dead"))
        return directory

    def start(
        self, section: str, directory: Path, *flags: str, prefix: tuple[str, ...] = (), python: bool = False
    ) -> subprocess.Popen[str]:
        """Start a section in ``directory``."""
        program = [self.compiled("rows", *flags)]
        command = ["-m", "tests.ipnctl.programs.rows"] if python else ["-m", "ipnctl", "run", "--", *program]
        return subprocess.Popen(
            [*prefix, sys.executable, *command, section, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.daemon.env,
            cwd=ROOT,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> dict[str, str]:
        """Give a line to a section that waits for one, and return its rows once it has ended."""
        try:
            out, err = process.communicate("\n", timeout=SECONDS)
        finally:
            process.kill()
            process.wait()
        assert (process.returncode, err) == (0, ""), out
        return rows(out)

    def compare(self, section: str, *flags: str) -> None:
        """Check the rows of a section, in C and in Python."""
        name = f"{section}{len(flags)}"
        ran = [
            self.start(section, self.directory(name, "c"), *flags),
            self.start(section, self.directory(name, "python"), python=True),
        ]
        compare(section, *map(self.finish, ran))


@pytest.fixture
def bench(lasting_ipnd: RunningDaemon, compiled: Compiler) -> Bench:
    return Bench(lasting_ipnd, compiled)


def compare(section: str, in_c: dict[str, str], in_python: dict[str, str]) -> None:
    """Check that all rows are the same but those that are known to differ, and those that only C has."""
    expected = {name: DIFFERENT.get(name, (row, row)) for name, row in in_python.items()}
    found = {name: (in_c.get(name, "missing"), row) for name, row in in_python.items()}
    wrong = {name: f"{found[name]}, not {expected[name]}" for name in found if found[name] != expected[name]}
    assert wrong == {}
    assert in_c
    only_c = {name: row for name, row in in_c.items() if name not in in_python}
    assert only_c == ONLY_C.get(section, {})


@LATER
def test_what_a_socket_says_before_it_has_joined(bench: Bench, flags: tuple[str, ...]) -> None:
    bench.compare("here", *flags)


def test_options_unset_set_and_on_a_live_network(bench: Bench) -> None:
    bench.compare("options")


@LATER
def test_what_members_may_do(bench: Bench, flags: tuple[str, ...]) -> None:
    bench.compare("joined", *flags)


def test_pointers_and_lengths_that_lead_nowhere(bench: Bench) -> None:
    ran = bench.start("pointers", bench.directory("pointers", "c"))
    compare("pointers", bench.finish(ran), {})


@requires_root
def test_who_has_no_rights_is_refused(bench: Bench) -> None:
    found = []
    for python in (False, True):
        directory = bench.directory("stranger", "python" if python else "c")
        networks = {}
        for name, mode in {"r": 0o704, "w": 0o702, "rw": 0o706, "none": 0o700, "all": 0o707}.items():
            networks[name] = ipn.bind(directory / name)
            (directory / name).chmod(mode)
        found.append(bench.finish(bench.start("stranger", directory, prefix=as_user(NOBODY), python=python)))
        for network in networks.values():
            network.close()
    compare("stranger", *found)


def test_when_the_network_has_ended(bench: Bench) -> None:
    found = []
    for python in (False, True):
        directory = bench.directory("end", "python" if python else "c")
        with ipn.bind(directory / "end"):
            process = bench.start("end", directory, python=python)
            wait_for_members(str(directory / "end"), readers=1)
            admin.delete_network(directory / "end")
        found.append(bench.finish(process))
    compare("end", *found)
