"""Guests of QEMU and User-Mode Linux, each way that they know of coming in, all on one network and all at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import RunningDaemon

from .lab import Network

GUESTS = {
    "qemu-1": "qemu-stream",
    "qemu-2": "qemu-stream",
    "qemu-3": "qemu-dgram",
    "qemu-4": "qemu-vde",
    "uml-1": "uml-bess",
    "uml-2": "uml-bess",
    "uml-3": "uml-vde",
}
ADDRESSES = {name: f"10.0.0.{number}" for number, name in enumerate(GUESTS, 1)}
MEMBERS = {"qemu-stream": "raw", "qemu-dgram": "dgram", "qemu-vde": "vde", "uml-bess": "seqpacket", "uml-vde": "vde"}
"""Recipe → the kind of member that its guests are."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Give a network with all the guests on it, which have booted at the same time."""
    with tempfile.TemporaryDirectory(prefix="ipn-", dir="/tmp") as directory:
        daemon = RunningDaemon(Path(directory))
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("IPND_SOCKET", daemon.control)
            daemon.start()
            network = Network(daemon, Path(directory))
            try:
                network.make()
                for name, recipe in GUESTS.items():
                    network.boot(recipe, name, f"{ADDRESSES[name]}/24")
                yield network
            finally:
                network.close()
                daemon.close()


@pytest.mark.parametrize("recipe", sorted(set(GUESTS.values())))
def test_guests_ping_all_others(network: Network, recipe: str, seen: Callable[[str, str], None]) -> None:
    mine = [name for name in GUESTS if GUESTS[name] == recipe]
    for guest in network.guests.values():
        guest.wait_ready()
    for name in mine:
        answered = [other for other, address in ADDRESSES.items() if network.guests[name].pings(address)]
        assert answered == list(GUESTS)
    of_the_kind = [name for name in GUESTS if MEMBERS[GUESTS[name]] == MEMBERS[recipe]]
    assert len(network.ports(MEMBERS[recipe])) == len(of_the_kind)
    guests = f"{len(mine)} guests ping" if len(mine) > 1 else "a guest pings"
    seen(recipe, f"{guests} the {len(GUESTS) - 1} others, which came all these ways")
