"""``ipnctl router``: addresses, routes and neighbours of a layer-3 switch (docs/switching.md)."""

from __future__ import annotations

import errno
from typing import Any, Final

import click

from . import tables, verbs
from .arguments import json_option, network_argument
from .switch import vlan_option

HINTS: Final = {
    errno.EOPNOTSUPP: "make it a layer-3 switch with: ipnctl net set PATH --policy l3switch",
    errno.ENOENT: "see what there is with: ipnctl router address|route|neigh list PATH, ipnctl net list",
    errno.EEXIST: "see what there is with: ipnctl router address|route|neigh list PATH",
}
"""What to do when the network is no layer-3 switch, or has not what the command is about."""


MAX_PACKET: Final = 65535
"""Longest IP packet, in bytes (RFC 791)."""

_answer_option: Final = json_option("Print what the router answers, as JSON.")


@click.group()
def router() -> None:
    """Look at the router of a network and set it up.

    For networks whose policy is l3switch. What is set lives as long as the network, also when ipnd is
    restarted. Addresses are IPv4 or IPv6.
    """


# -- its own addresses -----------------------------------------------------------------------------------------------


@router.group()
def address() -> None:
    """The router's own addresses: the gateway of each subnet."""


@address.command("list")
@network_argument
@json_option()
def address_list(path: str, as_json: bool) -> None:
    """List the addresses of the router of PATH."""
    verbs.show(path, "address.list", tables.ADDRESSES_OF_A_ROUTER, HINTS, as_json)


@address.command("add")
@network_argument
@click.argument("address")
@vlan_option("The VLAN of its subnet. [default: the untagged one]")
@_answer_option
def address_add(path: str, address: str, vlan: int | None, as_json: bool) -> None:
    """Give the router of PATH an ADDRESS with the length of its subnet: 10.0.1.1/24, fd00:1::1/64."""
    verbs.change(path, "address.add", HINTS, as_json, address=address, vlan=vlan)


@address.command("remove")
@network_argument
@click.argument("address")
@vlan_option("Only in this VLAN.")
@_answer_option
def address_remove(path: str, address: str, vlan: int | None, as_json: bool) -> None:
    """Take an ADDRESS from the router of PATH."""
    verbs.change(path, "address.remove", HINTS, as_json, address=address, vlan=vlan)


# -- routes ----------------------------------------------------------------------------------------------------------


@router.group()
def route() -> None:
    """Routes: through whom the router reaches what is in none of its subnets."""


@route.command("list")
@network_argument
@json_option()
def route_list(path: str, as_json: bool) -> None:
    """List the routes of the router of PATH."""
    verbs.show(path, "route.list", tables.ROUTES, HINTS, as_json)


@route.command("add")
@network_argument
@click.argument("prefix")
@click.option("--via", required=True, metavar="ADDRESS", help="Who is next on the way, in one of the router's subnets.")
@_answer_option
def route_add(path: str, prefix: str, via: str, as_json: bool) -> None:
    """Reach PREFIX (10.2.0.0/16, fd00:2::/48, 0.0.0.0/0, ::/0) through another router."""
    verbs.change(path, "route.add", HINTS, as_json, prefix=prefix, via=via)


@route.command("remove")
@network_argument
@click.argument("prefix")
@click.option("--via", metavar="ADDRESS", help="Only the one through this router.")
@_answer_option
def route_remove(path: str, prefix: str, via: str | None, as_json: bool) -> None:
    """Forget the route to PREFIX."""
    verbs.change(path, "route.remove", HINTS, as_json, prefix=prefix, via=via)


# -- neighbours ------------------------------------------------------------------------------------------------------


@router.group()
def neigh() -> None:
    """Neighbours: which hardware address the router has found for an IP address."""


@neigh.command("list")
@network_argument
@json_option()
def neigh_list(path: str, as_json: bool) -> None:
    """List the neighbours of the router of PATH.

    AGE is for how many seconds nothing was heard of one, QUEUED how many frames wait for its answer.
    """
    verbs.show(path, "neigh.list", tables.NEIGHBOURS, HINTS, as_json)


@neigh.command("add")
@network_argument
@click.argument("address")
@click.argument("mac")
@vlan_option("The VLAN it is in. [default: that of its subnet]")
@_answer_option
def neigh_add(path: str, address: str, mac: str, vlan: int | None, as_json: bool) -> None:
    """Say for good that the IP ADDRESS has the hardware address MAC."""
    verbs.change(path, "neigh.add", HINTS, as_json, address=address, mac=mac, vlan=vlan)


@neigh.command("remove")
@network_argument
@click.argument("address")
@_answer_option
def neigh_remove(path: str, address: str, as_json: bool) -> None:
    """Forget the neighbour with the IP ADDRESS."""
    verbs.change(path, "neigh.remove", HINTS, as_json, address=address)


@neigh.command("flush")
@network_argument
@_answer_option
def neigh_flush(path: str, as_json: bool) -> None:
    """Forget the neighbours that the router of PATH has found."""
    verbs.change(path, "neigh.flush", HINTS, as_json)


# -- the router ------------------------------------------------------------------------------------------------------


@router.command()
@network_argument
@json_option("Print JSON instead of lines.")
def show(path: str, as_json: bool) -> None:
    """Show the settings of the router of PATH."""
    verbs.show(path, "router.show", (), HINTS, as_json)


@router.command("set")
@network_argument
@click.option("--mac", metavar="MAC", help="The router's hardware address.")
@click.option("--advertise/--no-advertise", default=None, help="Announce subnet and router to IPv6 hosts (RFC 4861).")
@click.option(
    "--mtu", type=click.IntRange(0, MAX_PACKET), metavar="N", help="Longest packet it sends; 0: what fits into a frame."
)
@_answer_option
def set_(path: str, as_json: bool, **settings: Any) -> None:
    """Change settings of the router of PATH."""
    if all(value is None for value in settings.values()):
        raise click.UsageError("Say what to change: --mac, --advertise or --mtu.")
    verbs.change(path, "router.set", HINTS, as_json, **settings)
