"""Fixtures: compiled programs; a daemon for all tests of a file; ``ipnctl run`` against it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ipnctl.command import Ipnctl
from tests.ipnctl.programs.compiling import Compiler
from tests.ipnctl.programs.scripts import Scripts
from tests.running import RunningDaemon, directory_for_all, running_daemon


@pytest.fixture(scope="session")
def compiled() -> Iterator[Compiler]:
    """Give what compiles a program of tests/programs and returns its path, which all users may run."""
    with directory_for_all() as directory:
        yield Compiler(directory)


@pytest.fixture(scope="module")
def lasting_ipnd() -> Iterator[RunningDaemon]:
    """Give a running daemon for all tests of a file, which the library here finds."""
    with directory_for_all() as directory, running_daemon(directory) as daemon:
        yield daemon


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
