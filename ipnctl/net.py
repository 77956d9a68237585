"""``ipnctl net``: making, listing, showing, changing and deleting networks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from ipn import admin
from ipn.abi import (
    DEFAULT_MSGPOOLSIZE,
    DEFAULT_MTU,
    DEFAULT_NUMNODES,
    IPN_ANY,
    IPN_BROADCAST,
    MAX_MSGPOOLSIZE,
    MAX_MTU,
    MAX_NUMNODES,
    POLICY_NAMES,
    policy_name,
)

from . import tables
from .arguments import json_option, network_argument, parse_group, parse_mode
from .errors import Failure, explained
from .fixtures import ADDING, HINTS, chosen, completed, gateway_options, listed
from .output import emit, emit_json

ANY: Final = policy_name(IPN_ANY)
"""No policy of a network: only who joins one may say so."""

CREATING: Final = {
    errno.ENOENT: "make its directory first",
    errno.EACCES: "choose a directory that you may write to",
    errno.EPERM: "choose a group that you are in, or ask root",
    errno.EEXIST: "choose another path, or remove that (a network with: ipnctl net delete)",
    errno.ECONNREFUSED: "choose another path, or see to it that ipnd runs",
}
"""What to do when creating fails."""


F = TypeVar("F", bound=Callable[..., Any])


def _limit_option(name: str, largest: int, default: int, help: str) -> Callable[[F], F]:
    return click.option(name, type=click.IntRange(1, largest), default=default, show_default=True, help=help)


def _known_policies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names that a shell completes: those of the daemon, if one answers, else those every ipnd knows."""
    try:
        names = [str(row["name"]) for row in admin.policies()]
    except OSError:
        names = [name for name, number in POLICY_NAMES.items() if number != IPN_ANY]
    return [name for name in names if name.startswith(incomplete)]


@contextmanager
def _policy_named(policy: str | None) -> Iterator[None]:
    """Turn a name that ipnd does not know into wrong usage of ``--policy``."""
    try:
        if policy == ANY:
            raise ValueError(f"a network has one policy; {policy!r} is for those who join")
        yield
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="'--policy'") from None


@click.group()
def net() -> None:
    """Make, list, show, change and delete networks."""


@net.command()
@network_argument
@click.option(
    "--policy",
    metavar="NAME",
    shell_complete=_known_policies,
    default=policy_name(IPN_BROADCAST),
    show_default=True,
    help='Who gets a message: a name of "ipnctl policy list".',
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
@gateway_options
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
    **given: Sequence[str],
) -> None:
    """Make a network at PATH; it lives until "net delete"."""
    with explained(CREATING), _policy_named(policy):
        admin.create_network(
            path, policy, mtu=mtu, ports=ports, pool=pool, lossless=lossless, mode=mode, gid=gid,
            gateways=chosen(given),
        )
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


@net.command("set")
@network_argument
@click.option(
    "--policy",
    metavar="NAME",
    shell_complete=_known_policies,
    help='Who gets a message: a name of "ipnctl policy list".',
)
@click.option("--ports", type=click.IntRange(1, MAX_NUMNODES), metavar="N", help="How many may be connected at once.")
@gateway_options
@click.option(
    "--close", metavar="ADDR", type=click.Path(readable=False), multiple=True, shell_complete=completed("gateway"),
    help="Close the gateway at this path; who came through it leaves.",
)
@json_option("Print what the network is now, as JSON.")
def set_(
    path: str, policy: str | None, ports: int | None, close: Sequence[str], as_json: bool, **given: Sequence[str]
) -> None:
    """Change the network at PATH while it lives.

    Its members stay. The new policy may refuse, and then nothing has changed.
    """
    gateways = chosen(given)
    if policy is None and ports is None and not gateways and not close:
        raise click.UsageError("Say what to change: --policy, --ports, a gateway (--vde, …) or --close.")
    if policy is not None or ports is not None:
        with _policy_named(policy):
            admin.set_network(path, policy=policy, ports=ports)
    with explained(HINTS):
        for address in close:
            admin.remove_gateway(path, _kind_of(path, address), address)
    with explained(ADDING):
        for kind, address in gateways:
            admin.add_gateway(path, kind, address)
    if as_json:
        emit_json(admin.show_network(path))


def _kind_of(path: str, address: str) -> str:
    """Return which kind the gateway at ``address`` is."""
    whole = os.path.abspath(address)
    for gateway in listed(path, "gateway"):
        if gateway["address"] == whole:
            return str(gateway["kind"])
    raise Failure(f"{path} has no gateway at {address}; see those it has with: ipnctl net show")
