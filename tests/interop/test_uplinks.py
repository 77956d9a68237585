"""slirp4netns and passt: a host on the network gets an address by DHCP, from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.ipnd.uplinks.outside import Outside, lease_of, outside_world, tcp
from tests.lab import Lab
from tests.peers import requires
from tests.waiting import eventually

from .lab import SECONDS, Network


@pytest.fixture
def outside() -> Iterator[Outside]:
    """Be in a world of its own. Before ``ipnd``, so that the daemon is in it."""
    with outside_world() as world:
        yield world


@pytest.mark.parametrize("recipe", ["slirp4netns", "passt"])
@requires("slirp4netns", "passt", "udhcpc")
def test_a_host_gets_an_address_and_reaches_the_world(
    outside: Outside, networks: Callable[[str], Network], seen: Callable[[str, str], None], recipe: str
) -> None:
    network = networks("net")
    directory = network.directory / "passt"
    directory.mkdir()
    directory.chmod(0o777)
    network.start(recipe, PASST=directory / "socket")
    eventually(lambda: network.ports("slirp", "passt"), SECONDS)
    with Lab() as lab:
        host = lab.host("host", network.path)
        lease = lease_of(host, network.directory)
        assert tcp(host, lease.router, outside.port)
    seen(recipe, "DHCP is answered, and TCP through the gateway")
