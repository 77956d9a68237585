"""The management requests of the router: one row each in ``ROUTER_VERBS``. Pure.

Arguments come by name as JSON values. Wrong ones: EINVAL with a sentence; what is not there: ENOENT; what is there
already: EEXIST; no room for another: ENOSPC. What changes something needs the right to manage.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Final, Protocol

from ipnd.policies.base import Verb, refuse
from ipnd.policies.ethernet import format_mac
from ipnd.policies.switchsettings import Rows, boolean, checked

from . import configuration
from .checks import MTU, VLAN, any_interface, host_address, host_mac, own_interface, prefix
from .interfaces import Gateway
from .neighbours import MAX_NEIGHBOURS, Neighbour
from .router import Router
from .table import Route

Arguments = dict[str, Any]


class Switch(Protocol):
    """What a verb needs of the policy that it is carried out by."""

    router: Router

    def configured(self, *, announce: bool) -> None:
        """Put a change into effect; ``announce``: the hosts are to hear of it."""


# -- addresses ---------------------------------------------------------------------------------------------------------


def list_addresses(switch: Switch, arguments: Arguments) -> list[dict[str, Any]]:
    """Return the router's addresses."""
    return [_address_row(gateway) for gateway in switch.router.interfaces.gateways]


def add_address(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Give the router an address in a VLAN, with its subnet."""
    gateway = Gateway(arguments.get("vlan", 0), arguments["address"])
    configuration.add_gateway(switch.router, gateway)
    switch.configured(announce=True)
    return _address_row(gateway)


def remove_address(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Take an address from the router; routes through its subnet stay and wait for it to come back."""
    removed = configuration.remove_gateway(switch.router, arguments["address"], arguments.get("vlan"))
    switch.configured(announce=False)
    return _address_row(removed)


def _address_row(gateway: Gateway) -> dict[str, Any]:
    return {"address": str(gateway.interface), "vlan": gateway.vlan}


# -- routes ------------------------------------------------------------------------------------------------------------


def list_routes(switch: Switch, arguments: Arguments) -> list[dict[str, Any]]:
    """Return all routes; one without ``vlan`` is not in use: its router is in none of the subnets."""
    return [_route_row(route) for route in switch.router.table.routes]


def add_route(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Reach a prefix through another router."""
    prefix, via = arguments["prefix"], arguments["via"]
    configuration.add_route(switch.router, prefix, via)
    switch.configured(announce=False)
    return next(_route_row(r) for r in switch.router.table.routes if r.prefix == prefix and r.via == via.packed)


def remove_route(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Forget the static route to a prefix."""
    via = configuration.remove_route(switch.router, arguments["prefix"], arguments.get("via"))
    switch.configured(announce=False)
    return {"prefix": str(arguments["prefix"]), "via": str(via), "kind": "static"}


def _route_row(route: Route) -> dict[str, Any]:
    row = {
        "prefix": str(route.prefix),
        "via": None if route.via is None else str(ip_address(route.via)),
        "kind": route.kind,
    }
    return row if route.vlan is None else {**row, "vlan": route.vlan}


# -- neighbours --------------------------------------------------------------------------------------------------------


def list_neighbours(switch: Switch, arguments: Arguments) -> list[dict[str, Any]]:
    """Return all neighbours; ``age``: seconds since one was heard, ``queued``: packets that wait for its answer."""
    now = switch.router.around.now
    return [_neighbour_row(entry, now) for entry in switch.router.neighbours.entries.values()]


def add_neighbour(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Say for good where an address is; without a VLAN, in that of its subnet."""
    router, address, mac = switch.router, arguments["address"], arguments["mac"]
    vlan = configuration.neighbour_vlan(router, address, arguments.get("vlan"))
    static = router.neighbours.static()
    if len(static) >= MAX_NEIGHBOURS // 2 and all(one.address != address.packed for one in static):
        raise refuse(errno.ENOSPC, f"there are {len(static)} static neighbours already")
    router.release(vlan, mac, router.neighbours.fix(vlan, address.packed, mac, router.around.now))
    switch.configured(announce=False)
    return _neighbour_row(router.neighbours.entries[(vlan, address.packed)], router.around.now)


def remove_neighbour(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Forget a neighbour, in whatever VLAN it is."""
    address = arguments["address"]
    removed = _forget(switch, lambda entry: entry.address == address.packed)
    if not removed:
        raise refuse(errno.ENOENT, f"{address} is no neighbour of the router")
    return {"removed": removed}


def flush_neighbours(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Forget all neighbours that are not static."""
    return {"removed": _forget(switch, lambda entry: not entry.static)}


def _forget(switch: Switch, chosen: Callable[[Neighbour], bool]) -> int:
    router = switch.router
    entries = [entry for entry in router.neighbours.entries.values() if chosen(entry)]
    for entry in entries:
        router.lost(entry, router.neighbours.forget(entry))
    switch.configured(announce=False)
    return len(entries)


def _neighbour_row(entry: Neighbour, now: float) -> dict[str, Any]:
    return {
        "address": str(ip_address(entry.address)),
        "mac": None if entry.mac is None else format_mac(entry.mac),
        "vlan": entry.vlan,
        "state": entry.state(now),
        "age": round(max(0.0, now - entry.heard), 1),
        "queued": len(entry.waiting),
    }


# -- the router --------------------------------------------------------------------------------------------------------


def show_router(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Return the settings and figures of the router; ``mac`` is null until it has an address."""
    return configuration.show(switch.router)


def set_router(switch: Switch, arguments: Arguments) -> dict[str, Any]:
    """Change settings of the router; return them all."""
    router = switch.router
    moved = "mac" in arguments and arguments["mac"] != router.interfaces.mac
    if moved:
        router.interfaces.replace(router.interfaces.gateways, arguments["mac"])
    advertise = arguments.get("advertise", router.advertise)
    announce = moved or (advertise and not router.advertise) or "mtu" in arguments
    router.advertise, router.largest = advertise, arguments.get("mtu", router.largest)
    switch.configured(announce=announce)
    return configuration.show(router)


def _verb(action: Callable[[Any, Arguments], Any], rows: Rows, *required: str, changes: bool = False) -> Verb:
    """Return the verb that checks its arguments before ``action`` sees them; null is the same as nothing."""

    def carry_out(switch: Any, arguments: Mapping[str, Any]) -> Any:
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            values = checked(given, rows, required)
        except ValueError as error:
            raise refuse(errno.EINVAL, str(error)) from None
        return action(switch, values)

    return carry_out, changes


_NEIGHBOUR: Final[Rows] = {"address": host_address, "mac": host_mac, "vlan": VLAN}

ROUTER_VERBS: Final[Mapping[str, Verb]] = {
    "address.list": _verb(list_addresses, {}),
    "address.add": _verb(add_address, {"address": own_interface, "vlan": VLAN}, "address", changes=True),
    "address.remove": _verb(remove_address, {"address": any_interface, "vlan": VLAN}, "address", changes=True),
    "route.list": _verb(list_routes, {}),
    "route.add": _verb(add_route, {"prefix": prefix, "via": host_address}, "prefix", "via", changes=True),
    "route.remove": _verb(remove_route, {"prefix": prefix, "via": host_address}, "prefix", changes=True),
    "neigh.list": _verb(list_neighbours, {}),
    "neigh.add": _verb(add_neighbour, _NEIGHBOUR, "address", "mac", changes=True),
    "neigh.remove": _verb(remove_neighbour, {"address": host_address}, "address", changes=True),
    "neigh.flush": _verb(flush_neighbours, {}, changes=True),
    "router.show": _verb(show_router, {}),
    "router.set": _verb(set_router, {"mac": host_mac, "advertise": boolean, "mtu": MTU}, changes=True),
}
