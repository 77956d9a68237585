"""What the commands of the console of a network that is also a VDE switch do: one function each. Pure.

Each gets the network as a ``Console`` and the words behind the command. It returns the lines to show, None where VDE
shows no block of lines at all; a refusal is an ``OSError`` with a sentence. What changes something needs x (EPERM).
Ports and VLANs have the numbers of ``ipnctl``; only the VLAN that a port without any settings is in is also called 0,
and 4095 stands for "no VLAN", as VDE has it. VLANs need no creating: one is there when a port is in it.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, Final, Protocol

from ipn.abi import IPN_BROADCAST, IPN_VDESWITCH, MAX_NUMNODES
from ipnd.policies.ethernet import VID_LAST
from ipnd.policies.vlan import DEFAULT_PVID

from .console_tables import NO_VLAN, PortRow, port_lines, port_rows, vlan_lines, vlans_of

HUB: Final = "broadcast"
SWITCH: Final = "vdeswitch"


class Console(Protocol):
    """The network, as far as the user of a console may see and change it."""

    @property
    def greeting(self) -> Sequence[str]:
        """The lines that a session begins with."""

    @property
    def pid(self) -> int:
        """The daemon's process."""

    @property
    def maxports(self) -> int:
        """How many ports the network has."""

    def show(self) -> dict[str, Any]:
        """Return what ``net show --json`` prints."""

    def verb(self, name: str, /, **arguments: Any) -> Any:
        """Carry out a request of the policy."""

    def has_settings(self) -> bool:
        """Tell whether anything is set up that a change of policy would lose."""

    def require_manage(self) -> None:
        """EPERM unless the user may manage the network."""

    def resize(self, maxports: int) -> None:
        """Change the number of ports. Needs x, as what follows."""

    def set_policy(self, number: int) -> None:
        """Change the policy."""

    def put_out(self, number: int) -> None:
        """Have the member on a port leave."""


# -- arguments -----------------------------------------------------------------------------------------------------


def invalid(text: str) -> OSError:
    """Return the refusal of arguments that make no sense."""
    return OSError(errno.EINVAL, text)


def _number(word: str, what: str, low: int, high: int) -> int:
    """Return a decimal number: leading zeros, as the tables print them, do not make it octal."""
    value = int(word) if word.isascii() and word.isdecimal() else -1
    if not low <= value <= high:
        raise invalid(f"{what} is a number from {low} to {high}, not {word}")
    return value


def _port(console: Console, word: str) -> int:
    return _number(word, "a port of this network", 0, console.maxports - 1)


def _vlan(word: str) -> int:
    """Return a VLAN, the default one for 0."""
    return _number(word, "a VLAN", 0, VID_LAST) or DEFAULT_PVID


def _switch(console: Console, verb: str, **arguments: Any) -> Any:
    """Ask the switch; EOPNOTSUPP says what to do when the network is none."""
    try:
        return console.verb(verb, **arguments)
    except OSError as refusal:
        if refusal.errno != errno.EOPNOTSUPP:
            raise
        policy = console.show()["policy"]
        hint = "; port/sethub 0 makes it one" if policy == HUB else ""
        raise OSError(errno.EOPNOTSUPP, f"the policy of this network is {policy}, so it is no switch{hint}") from None


def _set_up(console: Console, port: int) -> tuple[int, set[int]]:
    """Return a port's VLAN without a tag (0: none) and those with one. EOPNOTSUPP unless the network is a switch."""
    row = _switch(console, "port.show", port=port)[0]
    return row["pvid"], set(row["tagged"])


# -- the network ---------------------------------------------------------------------------------------------------


def show_network(console: Console, words: list[str]) -> list[str]:
    """Tell what network this is, and how it is made."""
    net = console.show()
    kind = "lossless" if net["lossless"] else "lossy"
    members = f"members {net['members']} of {net['maxports']}, mtu {net['mtu']}, pool {net['pool']}"
    return [
        *console.greeting,
        f"pid {console.pid}",
        f"network {net['path']} perm {net['mode']}",
        f"policy {net['policy']}, {kind}, {members}",
    ]


def show_data_sockets(console: Console, words: list[str]) -> list[str]:
    """Tell where VDE clients connect, and with which permissions."""
    net = console.show()
    directories = [fixture["address"] for fixture in net["fixtures"] if fixture["kind"] == "vde"]
    return [*(f"ctl dir {directory}" for directory in directories), f"std mode {net['mode']}"]


# -- ports ---------------------------------------------------------------------------------------------------------


def show_ports(console: Console, words: list[str]) -> list[str]:
    """Tell how many ports there are, and whether frames go to all of them."""
    net = console.show()
    return [
        f"Numports={net['maxports']}",
        f"HUB={'true' if net['policy'] == HUB else 'false'}",
        "counters=true",
        f"default length of port packet queues: {net['pool']}",
    ]


def resize(console: Console, words: list[str]) -> None:
    """Change the number of ports. EADDRINUSE when one beyond is in use."""
    console.resize(_number(words[0], "the number of ports", 1, MAX_NUMNODES))


def set_hub(console: Console, words: list[str]) -> None:
    """Make a switch a hub, or a hub a switch. EBUSY when the switch would lose its settings."""
    hub = _number(words[0], "1 for a hub, 0 for a switch: it", 0, 1)
    console.require_manage()
    policy = console.show()["policy"]
    if (policy == HUB) == bool(hub):
        return
    if policy not in (HUB, SWITCH):
        raise OSError(errno.EOPNOTSUPP, f"the policy of this network is {policy}; ipnctl net set may change it")
    if console.has_settings():
        text = "a hub would forget how this switch is set up; ipnctl net set --policy changes it all the same"
        raise OSError(errno.EBUSY, text)
    console.set_policy(IPN_BROADCAST if hub else IPN_VDESWITCH)


def set_vlan(console: Console, words: list[str]) -> None:
    """Set the VLAN of a port's frames without a tag; it has that one without tags from then on."""
    port, vlan = _port(console, words[0]), _number(words[1], "a VLAN (4095: none)", 0, NO_VLAN)
    tagged = _set_up(console, port)[1] - {vlan or DEFAULT_PVID}
    pvid = {0: None, NO_VLAN: 0}.get(vlan, vlan)
    _switch(console, "port.set", port=port, pvid=pvid, tagged=sorted(tagged) or None)


def create_port(console: Console, words: list[str]) -> None:
    """Do what is left to do for a port that is there anyway: EEXIST when it is in use or set up."""
    port = _port(console, words[0])
    console.require_manage()
    if any(row.number == port for row in port_rows(console)):
        raise OSError(errno.EEXIST, f"port {port} is there already: in use, or set up")


def remove_port(console: Console, words: list[str]) -> None:
    """Forget how a port is set up. EADDRINUSE when somebody is on it."""
    port = _port(console, words[0])
    console.require_manage()
    rows = {row.number: row for row in port_rows(console)}
    if port in rows and rows[port].member:
        raise OSError(errno.EADDRINUSE, f"port {port} is in use; port/epclose {port} puts its member out")
    if port in rows:
        _switch(console, "port.set", port=port, reset=True)


def close_endpoint(console: Console, words: list[str]) -> None:
    """Put out who is on a port. ENXIO when nobody is, or somebody else."""
    port = _port(console, words[0])
    member = next((row for row in console.show()["ports"] if row["port"] == port), None)
    if member is None:
        raise OSError(errno.ENXIO, f"nobody is on port {port}")
    if len(words) > 1 and _number(words[1], "an ID", 0, 2**31 - 1) != member["pid"]:
        raise OSError(errno.ENXIO, f"the ID of who is on port {port} is {member['pid']}, not {words[1]}")
    console.put_out(port)


def print_ports(console: Console, words: list[str]) -> list[str]:
    """Print the ports in use."""
    return _lines_of_ports(console, words, [row for row in port_rows(console) if row.member])


def print_all_ports(console: Console, words: list[str]) -> list[str]:
    """Print the ports in use, and the free ones that are set up."""
    return _lines_of_ports(console, words, port_rows(console))


def _lines_of_ports(console: Console, words: list[str], rows: list[PortRow]) -> list[str]:
    if words:
        port = _port(console, words[0])
        rows = [row for row in rows if row.number == port]
        if not rows:
            raise OSError(errno.ENXIO, f"nobody is on port {port}")
    pool = console.show()["pool"]
    return [line for row in rows for line in port_lines(row, pool)]


# -- VLANs ---------------------------------------------------------------------------------------------------------


def create_vlan(console: Console, words: list[str]) -> None:
    """Do what is left to do for a VLAN that needs no creating: EEXIST when ports are in it."""
    vlan = _number(words[0], "a VLAN to create", 1, VID_LAST)
    console.require_manage()
    _switch(console, "switch.show")
    if vlan == DEFAULT_PVID or vlan in vlans_of(port_rows(console)):
        what = "ports without a VLAN of their own are in it" if vlan == DEFAULT_PVID else "ports are in it"
        raise OSError(errno.EEXIST, f"VLAN {vlan} is there already: {what}")


def remove_vlan(console: Console, words: list[str]) -> None:
    """Do what is left to do for a VLAN without ports: EADDRINUSE when there are some."""
    vlan = _vlan(words[0])
    console.require_manage()
    _switch(console, "switch.show")
    if vlan in vlans_of(port_rows(console)):
        raise OSError(errno.EADDRINUSE, f"ports are in VLAN {vlan}; vlan/print {vlan} shows which")


def add_port(console: Console, words: list[str]) -> None:
    """Put a port into a VLAN, with tags."""
    vlan, port = _vlan(words[0]), _port(console, words[1])
    untagged, tagged = _set_up(console, port)
    if vlan == untagged:
        console.require_manage()  # and stays in it without a tag, as with VDE
    else:
        _switch(console, "port.set", port=port, tagged=sorted(tagged | {vlan}))


def remove_from_vlan(console: Console, words: list[str]) -> None:
    """Take a port out of a VLAN that it has with tags. EADDRINUSE when it has it without."""
    vlan, port = _vlan(words[0]), _port(console, words[1])
    untagged, tagged = _set_up(console, port)
    if vlan == untagged and vlan not in tagged:
        text = f"port {port} is in VLAN {vlan} without a tag; port/setvlan {port} 0 takes it out"
        raise OSError(errno.EADDRINUSE, text)
    _switch(console, "port.set", port=port, tagged=sorted(tagged - {vlan}) or None)


def print_vlans(console: Console, words: list[str]) -> list[str]:
    """Print the VLANs, with the ports in use."""
    return _lines_of_vlans(console, words, all_ports=False)


def print_all_vlans(console: Console, words: list[str]) -> list[str]:
    """Print the VLANs, with all their ports."""
    return _lines_of_vlans(console, words, all_ports=True)


def _lines_of_vlans(console: Console, words: list[str], *, all_ports: bool) -> list[str]:
    rows = port_rows(console)
    vlans = vlans_of(rows)
    if words:
        wanted = _number(words[0], "a VLAN", 0, VID_LAST)
        found = [vlan for vlan in (wanted, DEFAULT_PVID if not wanted else -1) if vlan in vlans]
        if not found:
            raise OSError(errno.ENXIO, f"no port is in VLAN {wanted}")
        vlans = found[:1]
    return vlan_lines([row for row in rows if all_ports or row.member], vlans)


# -- addresses -----------------------------------------------------------------------------------------------------


def show_hash(console: Console, words: list[str]) -> list[str]:
    """Tell how many addresses are remembered, and for how long. Nothing keeps one from moving."""
    switch = _switch(console, "switch.show")
    return [
        f"Hash size {switch['max_entries']}",
        f"GC interval {switch['ageing'] / 4:.0f} secs",
        f"GC expire {switch['ageing']:.0f} secs",
        "Min persistence 0 secs",
    ]


def set_hash_size(console: Console, words: list[str]) -> None:
    """Set how many addresses are remembered."""
    _switch(console, "switch.set", max_entries=_number(words[0], "the size", 1, 2**31 - 1))


def set_expire(console: Console, words: list[str]) -> None:
    """Set for how many seconds they are."""
    _switch(console, "switch.set", ageing=_number(words[0], "the time in seconds", 1, 2**31 - 1))


def print_hash(console: Console, words: list[str]) -> list[str]:
    """Print the addresses."""
    return _lines_of_addresses(_switch(console, "fdb.show"))


def find_address(console: Console, words: list[str]) -> list[str]:
    """Print an address, in each VLAN or in one. ENODEV when it is not known."""
    place = {"vlan": _number(words[1], "a VLAN", 0, VID_LAST)} if len(words) > 1 else {}
    found = _switch(console, "fdb.find", mac=words[0].replace(".", ":"), **place)
    if not found:
        raise OSError(errno.ENODEV, f"the address {words[0]} is not in the table")
    return _lines_of_addresses(found)


def _lines_of_addresses(entries: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"Hash: {number:04} Addr: {entry['mac']} VLAN {entry['vlan']:04} to port: {entry['port']:03}  "
        + ("static" if entry["static"] else f"age {entry['age']:.0f} secs")
        for number, entry in enumerate(entries)
    ]


# -- spanning tree: there is none ----------------------------------------------------------------------------------


def show_fstp(console: Console, words: list[str]) -> list[str]:
    """Tell whether there is a spanning tree."""
    return ["FSTP=false"]


def set_fstp(console: Console, words: list[str]) -> list[str]:
    """Switch the spanning tree off, which it is. EOPNOTSUPP for on."""
    on = _number(words[0], "1 for on, 0 for off: it", 0, 1)
    console.require_manage()
    if on:
        text = "there is no spanning tree here; a switch blocks ports that make a loop (ipnctl switch set --loop-moves)"
        raise OSError(errno.EOPNOTSUPP, text)
    return []


def print_fstp(console: Console, words: list[str]) -> list[str]:
    """Print what there is to say of it, for each VLAN."""
    vlans = [_number(words[0], "a VLAN", 0, VID_LAST)] if words else vlans_of(port_rows(console))
    return [f"FST DATA VLAN {vlan:04}  FSTP IS DISABLED" for vlan in vlans]
