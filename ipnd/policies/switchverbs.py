"""The management requests of a switch: one row each in ``SWITCH_VERBS``. Pure.

Arguments come by name as JSON values. Wrong ones: EINVAL with a sentence; an address that is not there: ENOENT; no room
for another: ENOSPC. What changes something needs the right to manage.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from .base import Verb, refuse
from .ethernet import format_mac
from .fdb import row
from .switchsettings import PORT, PORT_FIELDS, SETTINGS, VLAN, Rows, boolean, checked, mac
from .vlan import DEFAULT

if TYPE_CHECKING:
    from .vdeswitch import VdeSwitch

Action = Callable[["VdeSwitch", dict[str, Any]], Any]


def show_switch(switch: VdeSwitch, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return all settings and the figures."""
    static = len(switch.fdb.static_keys())
    return {**attrs.asdict(switch.settings), **switch.show(), "static": static}


def set_switch(switch: VdeSwitch, arguments: dict[str, Any]) -> dict[str, Any]:
    """Change settings; return them all."""
    switch.configure(attrs.evolve(switch.settings, **arguments))
    return show_switch(switch, {})


def show_fdb(switch: VdeSwitch, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the addresses, all or those of a port or a VLAN."""
    return switch.fdb.rows(switch.net.now, arguments.get("port"), arguments.get("vlan"))


def find_address(switch: VdeSwitch, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of one address, one for each VLAN it is known in; none when it is not known."""
    return [row(key, switch.fdb.entries[key], switch.net.now) for key in _keys_of(switch, arguments)]


def add_address(switch: VdeSwitch, arguments: dict[str, Any]) -> dict[str, Any]:
    """Set a static entry; without a VLAN, in the port's own. It never ages and never moves."""
    port = _port_within(switch, arguments["port"])
    vlan = arguments.get("vlan")
    if vlan is None:
        vlan = switch.own_vlan(port)
    key = (vlan, arguments["mac"])
    if switch.fdb.full() and key not in switch.fdb.entries:
        raise refuse(errno.ENOSPC, f"the table is full with {len(switch.fdb)} addresses")
    switch.fdb.pin(key, port, switch.net.now)
    switch.net.invalidate()
    return row(key, switch.fdb.entries[key], switch.net.now)


def remove_address(switch: VdeSwitch, arguments: dict[str, Any]) -> dict[str, Any]:
    """Forget one address, static or not, in one VLAN or in all."""
    keys = _keys_of(switch, arguments)
    if not keys:
        where = f" in VLAN {arguments['vlan']}" if "vlan" in arguments else ""
        raise refuse(errno.ENOENT, f"the address {format_mac(arguments['mac'])} is not in the table{where}")
    for key in keys:
        switch.fdb.remove(key)
    switch.net.invalidate()
    return {"removed": len(keys)}


def flush_fdb(switch: VdeSwitch, arguments: dict[str, Any]) -> dict[str, Any]:
    """Forget what was learned, on a port, in a VLAN or at all; with ``static`` what was set, too."""
    removed = switch.fdb.flush(arguments.get("port"), arguments.get("vlan"), static=arguments.get("static", False))
    switch.net.invalidate()
    return {"removed": removed}


def show_ports(switch: VdeSwitch, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one port, or all that are in use or configured."""
    if "port" in arguments:
        return [_port_row(switch, _port_within(switch, arguments["port"]))]
    return [_port_row(switch, port) for port in sorted({*switch.net.ports, *switch.ports.configured})]


def set_port(switch: VdeSwitch, arguments: dict[str, Any]) -> dict[str, Any]:
    """Change what is configured for a port and return it; ``reset`` forgets it first, null stands for the default."""
    port = _port_within(switch, arguments.pop("port"))
    old = switch.ports.config(port)
    new = DEFAULT if arguments.pop("reset", False) else old
    if arguments.pop("unblock", False):
        switch.unblock(port)
    if "isolate" in arguments:
        arguments["isolated"] = arguments.pop("isolate")
    new = attrs.evolve(new, **arguments)
    if new != old:
        switch.configure_port(port, new)
    return _port_row(switch, port)


def _port_row(switch: VdeSwitch, port: int) -> dict[str, Any]:
    config = switch.ports.config(port)
    member = switch.ports.member(port)
    return {
        "port": port,
        "pvid": member.pvid,
        "tagged": sorted(member.tagged),
        "isolated": config.isolated,
        "address_limit": switch.address_limit(port),
        "broadcast_rate": config.broadcast_rate or None,
        "addresses": switch.fdb.learned.get(port, 0),
        "blocked": port in switch.guard.blocked,
        "used": port in switch.net.ports,
    }


def _keys_of(switch: VdeSwitch, arguments: Mapping[str, Any]) -> list[tuple[int, bytes]]:
    wanted = arguments.get("vlan")
    keys = switch.fdb.entries
    if wanted is not None:
        key = (wanted, arguments["mac"])
        return [key] if key in keys else []
    return sorted(key for key in keys if key[1] == arguments["mac"])


def _port_within(switch: VdeSwitch, port: int) -> int:
    if port >= switch.net.maxports:
        last = switch.net.maxports - 1
        raise refuse(errno.EINVAL, f"the network has the ports 0 to {last}, and {port} is none of them")
    return port


def _verb(action: Action, rows: Rows, *required: str, changes: bool = False) -> Verb:
    """Return the verb that checks its arguments before ``action`` sees them."""

    def carry_out(switch: Any, arguments: Mapping[str, Any]) -> Any:
        try:
            values = checked(arguments, rows, required)
        except ValueError as error:
            raise refuse(errno.EINVAL, str(error)) from None
        return action(switch, values)

    return carry_out, changes


_PLACE: Final[Rows] = {"port": PORT, "vlan": VLAN}
_ADDRESS: Final[Rows] = {"mac": mac, "vlan": VLAN}
_PORT_ARGUMENTS: Final[Rows] = {
    **{name: check for name, check in PORT_FIELDS.items() if name != "isolated"},
    "isolate": boolean,
    "port": PORT,
    "unblock": boolean,
    "reset": boolean,
}

SWITCH_VERBS: Final[Mapping[str, Verb]] = {
    "switch.show": _verb(show_switch, {}),
    "switch.set": _verb(set_switch, SETTINGS, changes=True),
    "fdb.show": _verb(show_fdb, _PLACE),
    "fdb.find": _verb(find_address, _ADDRESS, "mac"),
    "fdb.add": _verb(add_address, {**_ADDRESS, "port": PORT}, "mac", "port", changes=True),
    "fdb.remove": _verb(remove_address, _ADDRESS, "mac", changes=True),
    "fdb.flush": _verb(flush_fdb, {**_PLACE, "static": boolean}, changes=True),
    "port.show": _verb(show_ports, {"port": PORT}),
    "port.set": _verb(set_port, _PORT_ARGUMENTS, "port", changes=True),
}
