"""``ipnctl uplink``: NAT, DHCP and DNS for a network, by passt or slirp4netns."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any, Final

import click

from ipn import admin

from . import fixtures
from .arguments import json_option, network_argument
from .errors import Failure, explained, say
from .output import emit_json

SLIRP: Final = "slirp"
PROGRAMS: Final = ("slirp4netns", "passt")
MIN_MTU, MAX_MTU = 68, 65520

HINTS: Final[Mapping[int, str]] = {
    **fixtures.HINTS,
    errno.EEXIST: "see those there are with: ipnctl uplink list",
}


@click.group()
def uplink() -> None:
    """Give networks NAT, DHCP and DNS.

    An uplink is a program that is the gateway of its network and makes the guests' connections its own, as the user who
    runs it: nobody needs root.
    """


@uplink.command()
@network_argument
@click.option(
    "--passt", "socket", metavar="SOCKET", type=click.Path(readable=False), help="Connect to passt, listening here."
)
@click.option("--slirp", is_flag=True, help="Have ipnd run slirp4netns, or passt where that is not installed.")
@click.option("--program", type=click.Choice(PROGRAMS), help="With --slirp: run this one.")
@click.option("--cidr", metavar="NETWORK", help="With --slirp: slirp4netns's addresses. [default: 10.0.2.0/24]")
@click.option(
    "--mtu",
    type=click.IntRange(MIN_MTU, MAX_MTU),
    metavar="N",
    help="With --slirp: bytes of the largest IP packet. [default: 1500, or what the network takes if that is less]",
)
@click.option(
    "--disable-host-loopback", "no_host", is_flag=True, help="With --slirp: keep guests from the host's 127.0.0.1."
)
@json_option("Print the uplink as JSON.")
def add(path: str, socket: str | None, slirp: bool, as_json: bool, no_host: bool, **options: Any) -> None:
    """Give the network at PATH an uplink.

    Either --passt: to a program that somebody runs and that listens on SOCKET with QEMU's stream framing (passt,
    gvproxy, socket_vmnet), or --slirp: to one that ipnd runs as you. When it goes, it is had again as soon as possible.

    The uplink stays until "uplink remove" or the end of the network; a persistent network has it again when its ipnd
    restarts. Needs x on PATH.
    """
    if slirp == (socket is not None):
        raise click.UsageError("Give either --passt SOCKET or --slirp.")
    given = {**options, "host": False if no_host else None}
    if socket is not None and any(value is not None for value in given.values()):
        raise click.UsageError("Only --slirp takes options: --passt uses a program that runs already.")
    kind, address = (SLIRP, "") if socket is None else ("passt", os.path.abspath(socket))
    with explained(HINTS):
        made = admin.add_fixture(path, kind, address, **given)
    if as_json:
        emit_json(made)
    elif made["problem"]:
        say(f"{made['problem']}; the uplink comes up as soon as it can")


@uplink.command("list")
@network_argument
@json_option()
def list_(path: str, as_json: bool) -> None:
    """List the uplinks of the network at PATH."""
    fixtures.show(path, "uplink", as_json)


@uplink.command()
@network_argument
@click.argument("name", shell_complete=fixtures.completed("uplink"))
def remove(path: str, name: str) -> None:
    """Take an uplink off the network at PATH: SOCKET, or "slirp". A program that ipnd runs for it ends."""
    with explained(HINTS):
        kinds = {str(there["address"]): str(there["kind"]) for there in fixtures.listed(path, "uplink")}
        for address in (name, os.path.abspath(name)):
            if address in kinds:
                admin.remove_fixture(path, kinds[address], address)
                return
    known = f"it has {', '.join(kinds)}" if kinds else "it has none"
    raise Failure(f"{path} has no uplink {name}; {known}")
