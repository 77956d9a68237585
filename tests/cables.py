"""Networks and cables for tests: made persistent, looked at, and drained."""

from __future__ import annotations

from typing import Any

import ipn
from ipn import admin
from tests.running import RunningDaemon
from tests.waiting import eventually


def networks(ipnd: RunningDaemon, *names: str, policy: str = "broadcast", **options: Any) -> list[str]:
    """Make persistent networks and return their paths."""
    paths = [ipnd.path(name) for name in names]
    for path in paths:
        admin.create_network(path, policy, **options)
    return paths


def fixtures_of(path: str) -> list[dict[str, Any]]:
    """Return what is fixed to a network."""
    return list(admin.show_network(path)["fixtures"])


def the_cable(path: str) -> dict[str, Any]:
    """Return the one cable of a network."""
    (cable,) = fixtures_of(path)
    return cable


def cable_port(path: str) -> dict[str, Any]:
    """Return the one port of a network that is the end of a cable."""
    (port,) = [port for port in admin.show_network(path)["ports"] if port["kind"] == "cable"]
    return dict(port)


def comes_up(path: str) -> None:
    """Wait until the one cable of a network is up."""
    eventually(lambda: the_cable(path)["state"] == "up")


def goes_down(path: str) -> dict[str, Any]:
    """Wait until the one cable of a network is down, and return it."""
    eventually(lambda: the_cable(path)["state"] == "down")
    return the_cable(path)


def read(member: ipn.Socket, count: int) -> list[bytes]:
    """Return the next ``count`` messages."""
    return [member.recv() for _ in range(count)]
