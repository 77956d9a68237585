"""Fixtures for all tests. ``ipnd`` is a real daemon in a process of its own, with a directory of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.running import RunningDaemon

# No deadline per example: the machine is shared, and a slow example is no wrong example.
settings.register_profile("ipn", deadline=None, max_examples=60, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ipn"))

__all__ = ["RunningDaemon", "ipnd", "short_directory"]


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Give a fresh directory, open to all users, with a path short enough for unix sockets (107 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="ipn-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def ipnd(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    """Give a running daemon that the library here finds. It must end cleanly and without a traceback."""
    daemon = RunningDaemon(short_directory)
    monkeypatch.setenv("IPND_SOCKET", daemon.control)
    monkeypatch.setenv("IPN_AUTOSTART", "0")
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
