"""What ``ipnctl`` says of gateways, uplinks and cables: the options of ``net create`` and ``net set``, the listings."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from ipn import admin

from . import tables
from .output import emit, emit_json

F = TypeVar("F", bound=Callable[..., Any])

GATEWAYS: Final = {
    "vde": ("DIR", "Be a VDE switch, too: DIR/ctl and DIR.mgmt."),
    "dgram": ("ADDR", 'Take bare datagrams at this path, too: QEMU\'s "-netdev dgram", vfkit.'),
    "seqpacket": ("ADDR", "Take bare SEQPACKET connections at this path, too: UML's bess, slirp4netns."),
}
"""Kind of gateway → how its address is called, and what it is."""

HINTS: Final[Mapping[int, str]] = {
    errno.ENOENT: "see what there is with: ipnctl net show",
    errno.EEXIST: "choose another path, or remove that",
    errno.EADDRINUSE: "choose another path, or end who serves it",
    errno.EINVAL: "",
    errno.EPERM: "its owner gives x (manage) with chmod, chgrp or setfacl on it",
}
"""What to do when a fixture cannot be added or removed, where the daemon does not say it itself."""
ADDING: Final = {**HINTS, errno.ENOENT: ""}
"""The same where it cannot be the fixture that is not there."""


def gateway_options(function: F) -> F:
    """Add ``--vde``, ``--dgram`` and ``--seqpacket``, each of which may be given again, passed on by their names."""
    for kind, (metavar, help) in reversed(GATEWAYS.items()):
        path = click.Path(readable=False)
        option = click.option(f"--{kind}", kind, metavar=metavar, type=path, multiple=True, help=help)
        function = option(function)
    return function


def chosen(given: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return the gateways that were asked for, as (kind, address)."""
    return [(kind, address) for kind in GATEWAYS for address in given[kind]]


def listed(path: str, group: str) -> list[dict[str, Any]]:
    """Return what is fixed to the network at ``path``, of one group."""
    return [fixture for fixture in admin.show_network(path)["fixtures"] if fixture["group"] == group]


def show(path: str, group: str, as_json: bool) -> None:
    """Print what is fixed to the network at ``path``, of one group."""
    fixtures = listed(path, group)
    if as_json:
        emit_json(fixtures)
    else:
        emit(tables.fixture_list(fixtures))


def completed(group: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes the address of something fixed to the network whose path stands before it."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            addresses = [str(fixture["address"]) for fixture in listed(ctx.params.get("path") or "", group)]
        except OSError:
            return []
        return [address for address in addresses if address.startswith(incomplete)]

    return complete
