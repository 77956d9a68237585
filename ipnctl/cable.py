"""``ipnctl cable``: joining networks, of one daemon or of several machines."""

from __future__ import annotations

import os
from typing import Final

import click

from ipn import admin

from . import fixtures
from .arguments import json_option, network_argument
from .errors import explained
from .output import emit_json

AGENT: Final = "SSH_AUTH_SOCK"
"""Where ssh finds the keys of who asks (ssh-agent(1)); ipnd, which runs ssh, need not have been told."""


def _kind(to: str) -> str:
    """Return the kind of cable that an address needs: the scheme of a URL, or one to a network's path."""
    scheme, there, _ = to.partition("://")
    return scheme if there else "cable"


def _address(to: str) -> str:
    """Return what the daemon knows the other end by: a network's path is the one without symbolic links."""
    return os.path.realpath(to) if _kind(to) == "cable" else to


@click.group()
def cable() -> None:
    """Join networks by cables: frames on one reach the other.

    TO is the path of another network of the same ipnd, or a URL: ssh://HOST/PATH is a network of another machine,
    vxlan://HOST?vni=N one or several VXLAN tunnel endpoints, udp://HOST:PORT bare frames in datagrams.
    """


@cable.command()
@network_argument
@click.argument("to", metavar="TO")
@json_option("Print the cable as JSON.")
def add(path: str, to: str, as_json: bool) -> None:
    """Join the network at PATH to TO.

    The cable stays until "cable remove" or the end of the network; a persistent network has it again when its ipnd
    restarts. Needs x on PATH, and r or w on TO.
    """
    options = {"agent": os.environ.get(AGENT)} if _kind(to) == "ssh" else {}
    with explained(fixtures.ADDING):
        made = admin.add_fixture(path, _kind(to), _address(to), **options)
    if as_json:
        emit_json(made)


@cable.command("list")
@network_argument
@json_option()
def list_(path: str, as_json: bool) -> None:
    """List the cables of the network at PATH."""
    fixtures.show(path, "cable", as_json)


@cable.command()
@network_argument
@click.argument("to", metavar="TO", shell_complete=fixtures.completed("cable"))
def remove(path: str, to: str) -> None:
    """Take the cable from PATH to TO out."""
    with explained(fixtures.HINTS):
        admin.remove_fixture(path, _kind(to), _address(to))
