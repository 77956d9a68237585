"""What a switch keeps with a persistent network: settings, ports, static addresses; not what it has learned. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .ethernet import format_mac
from .switchsettings import PORT, PORT_FIELDS, SETTINGS, VLAN, Rows, Settings, checked, mac
from .vlan import PortConfig

if TYPE_CHECKING:
    from .vdeswitch import VdeSwitch

STATIC_FIELDS: Final[Rows] = {"vlan": VLAN, "mac": mac, "port": PORT}


def save_state(switch: VdeSwitch) -> dict[str, Any]:
    """Return the configuration of ``switch`` as JSON values."""
    entries = switch.fdb.entries
    return {
        "settings": switch.settings.to_json(),
        "ports": {str(port): config.to_json() for port, config in sorted(switch.ports.configured.items())},
        "static": [
            {"vlan": vlan, "mac": format_mac(address), "port": entries[vlan, address].port}
            for vlan, address in switch.fdb.static_keys()
        ],
    }


def load_state(switch: VdeSwitch, state: Mapping[str, Any]) -> None:
    """Take over what ``save_state`` returned; ``ValueError`` when it makes no sense, and then nothing has changed."""
    try:
        settings = Settings(**checked(state.get("settings", {}), SETTINGS))
        ports = {
            PORT(int(number)): PortConfig(**checked(fields, PORT_FIELDS))
            for number, fields in state.get("ports", {}).items()
        }
        static = [checked(row, STATIC_FIELDS, tuple(STATIC_FIELDS)) for row in state.get("static", [])]
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not the state of a switch: {error}") from None
    switch.configure(settings)
    for port, config in ports.items():
        switch.configure_port(port, config)
    for row in static:
        switch.fdb.pin((row["vlan"], row["mac"]), row["port"], switch.net.now)
