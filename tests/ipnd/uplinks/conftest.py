"""Fixtures for uplinks: the world outside, a lab for guests, and a network on ipnd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipn import admin
from tests.ipnd.uplinks.outside import Outside, outside_world
from tests.lab import Lab
from tests.running import RunningDaemon


@pytest.fixture
def outside() -> Iterator[Outside]:
    """Be in a world of its own. Before ``ipnd``, so that the daemon is in it."""
    with outside_world() as world:
        yield world


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Give a lab for guests."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def net(ipnd: RunningDaemon) -> str:
    """Give the path of a switch that everybody may use and manage."""
    path = ipnd.path("net")
    admin.create_network(path, "vdeswitch", mode=0o777)
    return path
