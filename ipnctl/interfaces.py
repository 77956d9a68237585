"""``ipnctl net attach-tap``, ``attach-grab`` and ``detach``: the host's interfaces on a network."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, Final

import click

from ipn import admin

from .arguments import address_option, json_option, mac_option, network_argument, parse_interface_name
from .errors import Failure, explained_devices
from .output import emit, emit_json

LOOPBACK: Final = "lo"

HINTS: Final = {
    errno.EBUSY: "see the interfaces of a network with: ipnctl net show",
}
"""What to do when an interface cannot be put on a network, where ``ipn`` does not say it itself."""
DETACHING: Final = {
    errno.EADDRNOTAVAIL: "see its interfaces with: ipnctl net show",
    errno.ENODEV: "see its interfaces with: ipnctl net show",
}


def _interfaces_of_the_host(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return what a shell completes for a GRAB."""
    with contextlib.suppress(OSError):
        names = sorted(os.listdir("/sys/class/net"))
        return [name for name in names if name.startswith(incomplete) and name != LOOPBACK]
    return []


def _interfaces_of_the_network(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return what a shell completes for an interface on the network whose path stands before it."""
    with contextlib.suppress(OSError):
        names = [_name(port) for port in admin.show_network(ctx.params.get("path") or "")["ports"]]
        return sorted({name for name in names if name and name.startswith(incomplete)})
    return []


def _name(port: dict[str, Any]) -> str:
    return str(port.get("interface", {}).get("name", ""))


def _tell(path: str, name: str, as_json: bool) -> None:
    """Print the interface that is on the network now: its name, or its port."""
    if not as_json:
        emit(name)
        return
    ports = [port for port in admin.show_network(path)["ports"] if _name(port) == name]
    # Other namespaces may have interfaces of that name.
    port = next((port for port in ports if port.get("pid") == os.getpid()), ports[-1] if ports else None)
    if port is None:
        raise Failure(f"{name} has left {path} again already")
    emit_json(port)


@click.command("attach-tap")
@network_argument
@click.option(
    "--name",
    metavar="NAME",
    default="",
    callback=parse_interface_name,
    help='Its name; "%d" in it becomes the first free number. [default: ipn%d]',
)
@click.option("--persist", is_flag=True, help="Keep it when ipnd is restarted or killed, and the network with it.")
@mac_option
@click.option("--up", is_flag=True, help="Set it up; else that is left to you, as are addresses.")
@address_option("Give it this address; may be given again.")
@json_option("Print its port as JSON instead of its name.")
def attach_tap(
    path: str, name: str, persist: bool, mac: str | None, up: bool, addresses: tuple[str, ...], as_json: bool
) -> None:
    """Make a TAP interface of this host that is a member of PATH, and print its name.

    The host's own stack then is on the network. The interface goes with "net detach", with the network, and,
    unless it is to persist, with ipnd. Needs CAP_NET_ADMIN or ipn-helper (see "ipnctl helper check").
    """
    with explained_devices(path, HINTS, HINTS):
        made = admin.attach_tap(path, name, mac=mac, persist=persist, up=up, addresses=addresses)
        _tell(path, made, as_json)


@click.command("attach-grab")
@network_argument
@click.argument("interface", metavar="IFACE", shell_complete=_interfaces_of_the_host)
@json_option("Print its port as JSON instead of its name.")
def attach_grab(path: str, interface: str, as_json: bool) -> None:
    """Put the interface IFACE of this host on PATH: a wire, a veth, a bridge.

    Whatever it hears goes to the network, and what the network has for it goes out. It keeps feeding the host's
    own stack, too. Needs CAP_NET_RAW or ipn-helper (see "ipnctl helper check").
    """
    with explained_devices(path, HINTS, HINTS):
        _tell(path, admin.attach_grab(path, interface), as_json)


@click.command()
@network_argument
@click.argument("interface", metavar="IFACE", shell_complete=_interfaces_of_the_network)
@click.option(
    "--port", type=click.IntRange(0), metavar="N", help="Which one, where interfaces of several hosts are called so."
)
def detach(path: str, interface: str, port: int | None) -> None:
    """Take the interface IFACE off PATH: a TAP ends, any other goes on without the network."""
    with explained_devices(path, DETACHING, DETACHING):
        admin.detach(path, interface, port=port)
