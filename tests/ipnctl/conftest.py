"""The fixture ``ipnctl``: the command, against a daemon of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ipnctl.command import Ipnctl
from tests.running import RunningDaemon


@pytest.fixture
def ipnctl(ipnd: RunningDaemon) -> Iterator[Ipnctl]:
    """Run ``ipnctl`` against a running daemon; what is still running at the end is killed."""
    command = Ipnctl(ipnd)
    try:
        yield command
    finally:
        command.close()


@pytest.fixture
def network(ipnctl: Ipnctl) -> str:
    """Give the path of a lossless network with the default MTU."""
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--lossless").ok()
    return path
