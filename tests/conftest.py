"""Fixtures for all tests. ``ipnd`` is a real daemon in a process of its own, with a directory of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.running import RunningDaemon, directory_for_all, running_daemon

# No deadline per example: the machine is shared, and a slow example is no wrong example.
settings.register_profile("ipn", deadline=None, max_examples=60, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ipn"))

__all__ = ["RunningDaemon", "ipnd", "short_directory"]


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Give a fresh directory, open to all users, with a path short enough for unix sockets (107 bytes)."""
    with directory_for_all() as directory:
        yield directory


@pytest.fixture
def ipnd(short_directory: Path) -> Iterator[RunningDaemon]:
    """Give a running daemon that the library here finds. It must end cleanly and without a traceback."""
    with running_daemon(short_directory) as daemon:
        yield daemon
