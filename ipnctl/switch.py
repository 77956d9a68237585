"""``ipnctl switch``: the table of addresses, the ports and the settings of an Ethernet switch (docs/switching.md)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ipn.abi import MAX_NUMNODES

from . import tables, verbs
from .arguments import json_option, network_argument

F = TypeVar("F", bound=Callable[..., Any])

HINTS: Final = {
    errno.EOPNOTSUPP: "make it a switch with: ipnctl net set PATH --policy vdeswitch",
    errno.ENOENT: "see what there is with: ipnctl switch fdb show PATH, ipnctl net list",
}
"""What to do when the network is no switch, or has not what the command is about."""

MAX_VLAN: Final = 4094
"""The highest VLAN; 4095 is reserved (IEEE 802.1Q)."""
VLAN: Final = click.IntRange(0, MAX_VLAN)
"""0 stands for "none": addresses of a switch without VLANs are in it, a port with it takes no untagged frames."""
PORT: Final = click.IntRange(0, MAX_NUMNODES - 1)
NUMBER: Final = click.IntRange(min=0)
SECONDS: Final = click.FloatRange(min=0)


def vlan_option(help: str) -> Callable[[F], F]:
    """Return the option ``--vlan``."""
    return click.option("--vlan", type=VLAN, metavar="V", help=help)


@click.group()
def switch() -> None:
    """Look at the switch of a network and set it up.

    For networks whose policy is vdeswitch or l3switch. What is set lives as long as the network, also
    when ipnd is restarted.
    """


# -- addresses -------------------------------------------------------------------------------------------------------


@switch.group()
def fdb() -> None:
    """The table of addresses: which one is behind which port."""


@fdb.command("show")
@network_argument
@click.option("--port", type=PORT, metavar="N", help="Only those behind this port.")
@vlan_option("Only those of this VLAN.")
@json_option()
def fdb_show(path: str, port: int | None, vlan: int | None, as_json: bool) -> None:
    """Show the addresses that the switch of PATH knows.

    AGE is for how many seconds an address has not been heard of; static ones do not age.
    """
    verbs.show(path, "fdb.show", tables.ADDRESSES_OF_A_SWITCH, HINTS, as_json, port=port, vlan=vlan)


@fdb.command("find")
@network_argument
@click.argument("mac")
@vlan_option("Only in this VLAN.")
@json_option()
def fdb_find(path: str, mac: str, vlan: int | None, as_json: bool) -> None:
    """Show behind which port of PATH the address MAC is, in each VLAN where it is known."""
    verbs.show(path, "fdb.find", tables.ADDRESSES_OF_A_SWITCH, HINTS, as_json, mac=mac, vlan=vlan)


@fdb.command("add")
@network_argument
@click.argument("mac")
@click.argument("port", metavar="N", type=PORT)
@vlan_option("The VLAN it is in. [default: the port's own]")
@json_option("Print what the switch answers, as JSON.")
def fdb_add(path: str, mac: str, port: int, vlan: int | None, as_json: bool) -> None:
    """Put the address MAC behind port N of PATH for good.

    Such a static address neither ages nor moves.
    """
    verbs.change(path, "fdb.add", HINTS, as_json, mac=mac, port=port, vlan=vlan)


@fdb.command("remove")
@network_argument
@click.argument("mac")
@vlan_option("Only in this VLAN.")
@json_option("Print what the switch answers, as JSON.")
def fdb_remove(path: str, mac: str, vlan: int | None, as_json: bool) -> None:
    """Forget the address MAC, learned or static."""
    verbs.change(path, "fdb.remove", HINTS, as_json, mac=mac, vlan=vlan)


@fdb.command("flush")
@network_argument
@click.option("--port", type=PORT, metavar="N", help="Only those behind this port.")
@vlan_option("Only those of this VLAN.")
@click.option("--static", is_flag=True, default=None, help="The static ones, too.")
@json_option("Print how many there were, as JSON.")
def fdb_flush(path: str, port: int | None, vlan: int | None, static: bool | None, as_json: bool) -> None:
    """Forget the addresses that the switch of PATH has learned."""
    verbs.change(path, "fdb.flush", HINTS, as_json, port=port, vlan=vlan, static=static)


# -- ports -----------------------------------------------------------------------------------------------------------


@switch.command()
@network_argument
@click.argument("number", metavar="[N]", type=PORT, required=False)
@click.option("--pvid", type=VLAN, metavar="V", help="The VLAN of its untagged frames; 0: it takes none.")
@click.option("--tagged", metavar="LIST", help='The VLANs it has with a tag: "10,20-29", or "none".')
@click.option("--isolate/--no-isolate", default=None, help="Isolated ports do not reach each other.")
@click.option("--address-limit", type=NUMBER, metavar="N", help="Addresses that may be learned there; 0: none.")
@click.option(
    "--broadcast-rate", type=NUMBER, metavar="N", help="Frames to many that it may send a second; 0: any number."
)
@click.option("--unblock", is_flag=True, default=None, help="End the block that a loop has brought it.")
@click.option("--reset", is_flag=True, default=None, help="Set it up as it was at first.")
@json_option()
def port(path: str, number: int | None, as_json: bool, **settings: Any) -> None:
    """Show the ports of the switch of PATH, or only N, or set N up.

    Each option changes what it is about and leaves the rest; without any the command shows. A port can be
    set up before anybody is on it, and stays so when its member leaves.
    """
    if all(value is None for value in settings.values()):
        verbs.show(path, "port.show", tables.PORTS_OF_A_SWITCH, HINTS, as_json, port=number)
    elif number is None:
        raise click.UsageError("Say which port to set up: ipnctl switch port PATH N …")
    else:
        verbs.change(path, "port.set", HINTS, as_json, port=number, **settings)


# -- the switch ------------------------------------------------------------------------------------------------------


@switch.command()
@network_argument
@json_option("Print JSON instead of lines.")
def show(path: str, as_json: bool) -> None:
    """Show the settings of the switch of PATH, and how full its table is."""
    verbs.show(path, "switch.show", (), HINTS, as_json)


@switch.command("set")
@network_argument
@click.option("--ageing", type=SECONDS, metavar="S", help="Forget an address after so many seconds of silence.")
@click.option("--max-entries", type=click.IntRange(min=1), metavar="N", help="Addresses in the table.")
@click.option("--port-limit", type=click.IntRange(min=1), metavar="N", help="Addresses behind one port.")
@click.option(
    "--forward-reserved/--no-forward-reserved",
    default=None,
    help="Pass on what IEEE 802.1D keeps between neighbours (01:80:c2:00:00:0X).",
)
@click.option("--loop-moves", type=NUMBER, metavar="N", help="Moves of an address that mean a loop; 0: never.")
@click.option("--loop-seconds", type=SECONDS, metavar="S", help="The time in which they happen.")
@click.option("--loop-block", type=SECONDS, metavar="S", help="For how long the younger port is blocked then.")
@json_option("Print what the switch answers, as JSON.")
def set_(path: str, as_json: bool, **settings: Any) -> None:
    """Change settings of the switch of PATH."""
    if all(value is None for value in settings.values()):
        raise click.UsageError("Say what to change; see ipnctl switch set --help.")
    verbs.change(path, "switch.set", HINTS, as_json, **settings)
