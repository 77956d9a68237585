"""What is set for a router: changed in one place for verbs and saved state, each change checked whole. Pure."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

from ipnd.policies.base import refuse
from ipnd.policies.ethernet import format_mac
from ipnd.policies.switchsettings import Rows, boolean, checked

from .checks import MTU, VLAN, Address, host_address, host_mac, own_interface, prefix
from .interfaces import MAX_GATEWAYS, Gateway, Interface, Network
from .router import Router
from .table import MAX_ROUTES

# -- changes -----------------------------------------------------------------------------------------------------------


def add_gateway(router: Router, gateway: Gateway) -> None:
    """Give the router an address. EEXIST when it has it, EINVAL when its subnet is in another VLAN, ENOSPC."""
    others = router.interfaces.gateways
    interface = gateway.interface
    if len(others) >= MAX_GATEWAYS:
        raise refuse(errno.ENOSPC, f"the router has {MAX_GATEWAYS} addresses already")
    for other in others:
        if other.interface.ip == interface.ip:
            raise refuse(errno.EEXIST, f"the router has the address {interface.ip} already, in VLAN {other.vlan}")
        if other.vlan != gateway.vlan and _overlap(other.interface.network, interface.network):
            text = f"the subnet of {interface} overlaps with {other.interface.network} in VLAN {other.vlan}"
            raise refuse(errno.EINVAL, text)
    router.interfaces.replace([*others, gateway])


def _overlap(one: Network, two: Network) -> bool:
    return one.version == two.version and one.overlaps(two)


def remove_gateway(router: Router, address: Interface, vlan: int | None) -> Gateway:
    """Take an address from the router and return it. ENOENT when it does not have it."""
    kept, removed = [], None
    for gateway in router.interfaces.gateways:
        if gateway.interface.ip == address.ip and vlan in (None, gateway.vlan):
            removed = gateway
        else:
            kept.append(gateway)
    if removed is None:
        raise refuse(errno.ENOENT, f"the router does not have the address {address.ip}")
    router.interfaces.replace(kept)
    return removed


def add_route(router: Router, prefix: Network, via: Address) -> None:
    """Set a static route. EINVAL when ``via`` cannot be the next router, EEXIST when there is a route, ENOSPC."""
    table = router.table
    if via.version != prefix.version:
        raise refuse(errno.EINVAL, f"{via} and {prefix} are of different versions of host_address")
    if via.packed in router.interfaces.addresses:
        raise refuse(errno.EINVAL, f"{via} is this router itself")
    if not any(router.interfaces.subnet(vlan, via.packed) for vlan in router.interfaces.vlans()):
        raise refuse(errno.EINVAL, f"{via} is in none of the router's subnets; see address.list")
    if any(route.prefix == prefix for route in table.routes):
        raise refuse(errno.EEXIST, f"there is a route to {prefix} already")
    if len(table.static) >= MAX_ROUTES:
        raise refuse(errno.ENOSPC, f"the router has {MAX_ROUTES} routes already")
    table.static[prefix] = via.packed


def remove_route(router: Router, prefix: Network, via: Address | None) -> Address:
    """Forget a static route and return its next router. ENOENT when there is none, or another."""
    static = router.table.static
    known = static.get(prefix)
    if known is None or (via is not None and via.packed != known):
        through = f" through {via}" if via is not None else ""
        raise refuse(errno.ENOENT, f"there is no static route to {prefix}{through}")
    del static[prefix]
    return ip_address(known)


def neighbour_vlan(router: Router, address: Address, vlan: int | None) -> int:
    """Return the VLAN for a static neighbour. EINVAL when it cannot be one there, or it is not clear where."""
    interfaces = router.interfaces
    if address.packed in interfaces.addresses:
        raise refuse(errno.EINVAL, f"{address} is this router itself")
    near = [one for one in interfaces.vlans() if vlan in (None, one) and interfaces.near(one, address.packed)]
    if not near:
        where = "" if vlan is None else f" in VLAN {vlan}"
        raise refuse(errno.EINVAL, f"{address} is in none of the router's subnets{where}")
    if len(near) > 1:
        raise refuse(errno.EINVAL, f"{address} can be in the VLANs {', '.join(map(str, sorted(near)))}: say which")
    return near[0]


# -- as JSON -----------------------------------------------------------------------------------------------------------


def show(router: Router) -> dict[str, Any]:
    """Return settings and figures; ``mtu`` 0: whatever fits into a frame."""
    mac = router.interfaces.mac
    return {
        "mac": format_mac(mac) if mac else None,
        "link_local": str(ip_address(router.interfaces.link_local)) if mac else None,
        "advertise": router.advertise,
        "mtu": router.largest,
        "addresses": len(router.interfaces.gateways),
        "routes": len(router.table.routes),
        "neighbours": len(router.neighbours.entries),
    }


def save(router: Router) -> dict[str, Any]:
    """Return the configuration."""
    mac = router.interfaces.mac
    return {
        "mac": format_mac(mac) if mac else None,
        "advertise": router.advertise,
        "mtu": router.largest,
        "addresses": [{"address": str(g.interface), "vlan": g.vlan} for g in router.interfaces.gateways],
        "routes": [{"prefix": str(p), "via": str(ip_address(via))} for p, via in router.table.static.items()],
        "neighbours": [
            {"address": str(ip_address(entry.address)), "mac": format_mac(entry.mac or b""), "vlan": entry.vlan}
            for entry in router.neighbours.static()
        ],
    }


def _rows(check: Rows) -> Any:
    return lambda value: [checked(row, check, tuple(check)) for row in value]


_STATE: Final[Rows] = {
    "mac": lambda value: b"" if value is None else host_mac(value),
    "advertise": boolean,
    "mtu": MTU,
    "addresses": _rows({"address": own_interface, "vlan": VLAN}),
    "routes": _rows({"prefix": prefix, "via": host_address}),
    "neighbours": _rows({"address": host_address, "mac": host_mac, "vlan": VLAN}),
}


def load(router: Router, state: Mapping[str, Any]) -> None:
    """Have a new router take over what ``save`` returned; ``ValueError`` when it makes no sense."""
    try:
        values = checked(state, _STATE)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not the state of a router: {error}") from None
    gateways = [Gateway(row["vlan"], row["address"]) for row in values.get("addresses", [])]
    router.interfaces.replace(gateways, values.get("mac", b""))
    router.advertise, router.largest = values.get("advertise", True), values.get("mtu", 0)
    # A route whose subnet has gone meanwhile is kept, as it is in a running router.
    router.table.static = {row["prefix"]: row["via"].packed for row in values.get("routes", [])}
    for row in values.get("neighbours", []):
        router.neighbours.fix(row["vlan"], row["address"].packed, row["mac"], router.around.now)
    router.reconfigured()
