"""Fixtures: compiled programs; a daemon for all tests of a file; ``ipnctl run`` against it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ipnctl.command import Ipnctl
from tests.ipnctl.programs.compiling import Compiler
from tests.ipnctl.programs.scripts import Scripts
from tests.running import RunningDaemon


@pytest.fixture(scope="session")
def compiled() -> Iterator[Compiler]:
    """Give what compiles a program of tests/programs and returns its path, which all users may run."""
    directory = Path(tempfile.mkdtemp(prefix="ipn-programs-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        yield Compiler(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def lasting_ipnd() -> Iterator[RunningDaemon]:
    """Give a running daemon for all tests of a file, which the library here finds."""
    directory = Path(tempfile.mkdtemp(prefix="ipn-", dir="/tmp"))
    directory.chmod(0o755)
    daemon = RunningDaemon(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPND_SOCKET", daemon.control)
        patch.setenv("IPN_AUTOSTART", "0")
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.close()
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def programs(lasting_ipnd: RunningDaemon) -> Iterator[Ipnctl]:
    """Run ``ipnctl`` against the file's daemon (``start("run", "--", program, …)``); what still runs is killed."""
    command = Ipnctl(lasting_ipnd)
    try:
        yield command
    finally:
        command.close()


@pytest.fixture
def script(programs: Ipnctl) -> Scripts:
    """Run programs written in Python under ``ipnctl run``."""
    return Scripts(programs)
