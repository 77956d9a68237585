"""Fixtures: ``ipnctl``, the command against a daemon of its own; a network; hosts to make interfaces on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.ipnctl.command import Ipnctl
from tests.ipnctl.host import Host, need_tun
from tests.peers import skip_or_fail
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


@pytest.fixture
def new_host() -> Iterator[Callable[[], Host]]:
    """Give a function that makes hosts, which end with the test."""
    if os.geteuid() != 0:
        skip_or_fail("needs root")
    if shutil.which("ip") is None:
        skip_or_fail("not installed: ip")
    need_tun()
    hosts: list[Host] = []

    def new() -> Host:
        hosts.append(Host())
        return hosts[-1]

    try:
        yield new
    finally:
        for host in hosts:
            host.delete()


@pytest.fixture
def host(new_host: Callable[[], Host]) -> Host:
    """Give a host with nothing but a loopback."""
    return new_host()
