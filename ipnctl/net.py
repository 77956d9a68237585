"""``ipnctl net``: making, listing, showing, resizing and deleting networks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ipn import admin
from ipn.abi import (
    DEFAULT_MSGPOOLSIZE,
    DEFAULT_MTU,
    DEFAULT_NUMNODES,
    IPN_ANY,
    MAX_MSGPOOLSIZE,
    MAX_MTU,
    MAX_NUMNODES,
    POLICY_NAMES,
)

from . import tables
from .arguments import json_option, network_argument, parse_group, parse_mode
from .errors import explained
from .output import emit, emit_json

POLICIES: Final = [name for name, number in POLICY_NAMES.items() if number != IPN_ANY]

CREATING: Final = {
    errno.ENOENT: "make its directory first",
    errno.EACCES: "choose a directory that you may write to",
    errno.EPERM: "choose a group that you are in, or ask root",
    errno.EEXIST: "choose another path, or end that one with: ipnctl net delete",
    errno.ECONNREFUSED: "choose another path, or see to it that ipnd runs",
}
"""What to do when creating fails."""


F = TypeVar("F", bound=Callable[..., Any])


def _limit_option(name: str, largest: int, default: int, help: str) -> Callable[[F], F]:
    return click.option(name, type=click.IntRange(1, largest), default=default, show_default=True, help=help)


@click.group()
def net() -> None:
    """Make, list, show, resize and delete networks."""


@net.command()
@network_argument
@click.option(
    "--policy", type=click.Choice(POLICIES), default=POLICIES[0], show_default=True, help="Who gets a message."
)
@_limit_option("--mtu", MAX_MTU, DEFAULT_MTU, "Longest message, in bytes.")
@_limit_option("--ports", MAX_NUMNODES, DEFAULT_NUMNODES, "How many may be connected at once.")
@_limit_option(
    "--pool", MAX_MSGPOOLSIZE, DEFAULT_MSGPOOLSIZE, "Messages that may wait per receiver (lossless: in all)."
)
@click.option("--lossless", is_flag=True, help="Senders wait for slow receivers; else these lose messages.")
@click.option(
    "--mode",
    callback=parse_mode,
    metavar="OCTAL",
    help="Mode of the socket file: r receives, w sends, x manages. [default: 0777 less the umask]",
)
@click.option(
    "--group",
    "gid",
    metavar="GROUP",
    callback=parse_group,
    help="Group of the socket file, by name or number.",
)
@json_option("Print what was made, as JSON.")
def create(
    path: str,
    policy: str,
    mtu: int,
    ports: int,
    pool: int,
    lossless: bool,
    mode: int | None,
    gid: int | None,
    as_json: bool,
) -> None:
    """Make a network at PATH; it lives until "net delete"."""
    with explained(CREATING):
        admin.create_network(path, policy, mtu=mtu, ports=ports, pool=pool, lossless=lossless, mode=mode, gid=gid)
    if as_json:
        emit_json(admin.show_network(path))


@net.command("list")
@json_option()
def list_(as_json: bool) -> None:
    """List the networks that you have any right on."""
    with explained({errno.ECONNREFUSED: ""}):
        networks = admin.list_networks()
    if as_json:
        emit_json(networks)
    else:
        emit(tables.network_list(networks))


@net.command()
@network_argument
@json_option()
def show(path: str, as_json: bool) -> None:
    """Show the network at PATH and who is on it.

    SENT and RECEIVED count messages as the member sees them; DROPPED are those meant for it that it was too
    slow for; BLOCKED is for how long it has kept the senders of a lossless network waiting.
    """
    network = admin.show_network(path)
    if as_json:
        emit_json(network)
    else:
        emit(tables.network(network))


@net.command()
@network_argument
def delete(path: str) -> None:
    """End the network at PATH.

    Its members are disconnected and its socket file is removed.
    """
    admin.delete_network(path)


@net.command()
@network_argument
@click.argument("ports", metavar="N", type=click.IntRange(1, MAX_NUMNODES))
def resize(path: str, ports: int) -> None:
    """Change how many may be connected to PATH to N.

    That is refused while a member has a port number of N or more.
    """
    admin.resize_network(path, ports)
