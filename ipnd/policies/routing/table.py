"""The routing table: subnets the router is in, static routes, and the longest prefix that matches. Pure.

For each IP version there is one dictionary per prefix length, longest first; a lookup shifts the address and asks each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from .interfaces import Gateway, Network

MAX_ROUTES: Final = 4096
"""Static routes of one network: enough for any network of virtual machines, and a change rebuilds the table."""


@attrs.frozen
class Route:
    """``via`` is the next router, None for a subnet the router is in; ``vlan`` None: its router cannot be reached."""

    prefix: Network
    via: bytes | None
    vlan: int | None

    @property
    def kind(self) -> str:
        """What it is there for."""
        return "connected" if self.via is None else "static"


@attrs.frozen
class Hop:
    """Where a packet goes next: to the neighbour ``address`` in ``vlan``."""

    vlan: int
    address: bytes


class Table:
    """Routes compiled from gateways and static routes."""

    def __init__(self) -> None:
        self.static: dict[Network, bytes] = {}
        self.routes: Sequence[Route] = ()
        self._by_size: dict[int, list[tuple[int, dict[int, Route]]]] = {4: [], 16: []}

    def rebuild(self, gateways: Iterable[Gateway]) -> None:
        """Compile the table anew: ``gateways`` or ``static`` has changed."""
        connected: dict[Network, Route] = {}
        for gateway in gateways:
            network = gateway.interface.network
            connected.setdefault(network, Route(network, None, gateway.vlan))
        self._compile(connected.values())
        static = [Route(prefix, via, self._vlan_of(via)) for prefix, via in self.static.items()]
        self.routes = [*connected.values(), *static]
        self._compile([*(route for route in static if route.vlan is not None), *connected.values()])

    def _compile(self, routes: Iterable[Route]) -> None:
        levels: dict[int, dict[int, dict[int, Route]]] = {4: {}, 16: {}}
        for route in routes:
            shift = route.prefix.max_prefixlen - route.prefix.prefixlen
            level = levels[route.prefix.max_prefixlen // 8].setdefault(shift, {})
            level[int(route.prefix.network_address) >> shift] = route
        self._by_size = {size: sorted(level.items()) for size, level in levels.items()}

    def _vlan_of(self, address: bytes) -> int | None:
        route = self._match(address)
        return None if route is None else route.vlan

    def _match(self, address: bytes) -> Route | None:
        number = int.from_bytes(address, "big")
        for shift, level in self._by_size[len(address)]:
            route = level.get(number >> shift)
            if route is not None:
                return route
        return None

    def lookup(self, address: bytes) -> Hop | None:
        """Return where a packet to ``address`` goes next; None: nowhere."""
        route = self._match(address)
        if route is None or route.vlan is None:
            return None
        return Hop(route.vlan, address if route.via is None else route.via)
