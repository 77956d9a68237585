"""``ipnctl netns``: commands in namespaces of their own, whose interface is a member of a network."""

from __future__ import annotations

import errno
import ipaddress
import os
import sys
from contextlib import ExitStack, closing
from typing import Final

import click

import ipn
from ipn import netdev, netlink

from . import child, namespace
from .arguments import address_option, mac_option, network_argument, parse_interface_name
from .errors import explained_devices

MAX_HOSTNAME: Final = 64
"""Longest host name, in bytes (sethostname(2))."""

DEVICES: Final = {
    errno.EACCES: "root lets everybody use it with: chmod 666 /dev/net/tun",
    errno.ENODEV: "root makes it with: modprobe tun",
    errno.ENETUNREACH: "give an --address in whose network the gateway is",
    errno.EHOSTUNREACH: "give an --address in whose network the gateway is",
}
"""What to do when the interface cannot be made or set up."""


def _checked_gateways(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is no IPv4 or IPv6 address", ctx, param) from None
    return values


def _checked_hostname(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if len(os.fsencode(value)) > MAX_HOSTNAME:
        raise click.BadParameter(f"a host name has at most {MAX_HOSTNAME} bytes", ctx, param)
    return value


@click.group()
def netns() -> None:
    """Run commands in network namespaces of their own that are on a network."""


@netns.command()
@network_argument
@click.argument("command", metavar="[-- COMMAND [ARG]...]", nargs=-1, type=click.UNPROCESSED)
@address_option("Give the interface this address; may be given again.")
@click.option(
    "--gateway",
    "gateways",
    metavar="ADDRESS",
    multiple=True,
    callback=_checked_gateways,
    help="The default route; may be given again, for IPv4 and IPv6.",
)
@mac_option
@click.option(
    "--name",
    metavar="NAME",
    default="eth0",
    show_default=True,
    callback=parse_interface_name,
    help="The name of the interface.",
)
@click.option("--hostname", metavar="NAME", default="", callback=_checked_hostname, help="A host name of its own, too.")
def run(
    path: str,
    command: tuple[str, ...],
    addresses: tuple[str, ...],
    gateways: tuple[str, ...],
    mac: str | None,
    name: str,
    hostname: str,
) -> None:
    """Run COMMAND in a fresh network namespace whose interface is a member of PATH.

    \b
    ipnctl netns run /tmp/lab --address 10.0.0.1/24 -- ping 10.0.0.2

    Without COMMAND your shell is run. No privilege is needed, but r, w or both on the network: COMMAND then is root
    within the namespace, and you outside of it. The port leaves the network when COMMAND ends, with whose exit status
    this command ends, too: 128 + n when signal n killed it, 127 or 126 when it cannot be run.
    """
    with explained_devices(path, {}, DEVICES), closing(ipn.socket()) as sock:
        sock.open(path)  # as the user that we are outside, and where the network's abstract address is
        _check_tun()
        namespace.enter_new_network(hostname)
        _join(sock, name, mac, addresses, gateways)
        status = child.run(command or (os.environ.get("SHELL") or "/bin/sh",))
    sys.exit(status)


def _check_tun() -> None:
    """Raise EACCES when the caller may not use TAPs, now that its uid is still that which others know it by."""
    if os.path.exists(netdev.TUN_PATH) and not os.access(netdev.TUN_PATH, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, f"user {os.geteuid()} has no access to {netdev.TUN_PATH}")


def _join(sock: ipn.Socket, name: str, mac: str | None, addresses: tuple[str, ...], gateways: tuple[str, ...]) -> None:
    """Make the interface, and hand it over to the network that ``sock`` is open to."""
    with ExitStack() as undo:
        device = netdev.open_tap(name, mac=mac, mtu=netdev.tap_mtu(sock.mtu), up=True, addresses=addresses)
        undo.callback(netdev.close_device, device)
        for gateway in gateways:
            netlink.add_route(device.index, gateway)
        undo.pop_all()
    sock.attach_device(device)
