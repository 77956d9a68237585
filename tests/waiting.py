"""Waiting for what another process or thread brings about: with a deadline, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import pytest

T = TypeVar("T")

POLL_SECONDS: Final = 0.005


def eventually(predicate: Callable[[], T], timeout: float = 5.0, message: str = "") -> T:
    """Return the first truthy value of ``predicate()``; fail when none comes within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            pytest.fail(message or f"did not come true within {timeout} s; the last value was {value!r}")
        time.sleep(POLL_SECONDS)
