"""Arguments and options that several commands share, and how their texts become values."""

from __future__ import annotations

import grp
import ipaddress
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ipn import netdev

F = TypeVar("F", bound=Callable[..., Any])

MAX_MODE: Final = 0o777
MAX_GID: Final = 2**32 - 2
"""The highest group: the number above means "leave it" to chown(2)."""


def network_argument(function: F) -> F:
    """Add the argument PATH: a network's socket file, judged by nobody but the daemon. Shells complete it."""
    return click.argument("path", type=click.Path(readable=False))(function)


def json_option(help: str = "Print JSON instead of a table.") -> Callable[[F], F]:
    """Return the option ``--json``, passed on as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def parse_mode(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return the permission bits that are given in octal, as chmod takes them: 770, 0770 or 0o770."""
    if value is None:
        return None
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= MAX_MODE:
        raise click.BadParameter(f"{value!r} is no mode from 0000 to 0777 (octal)", ctx, param)
    return mode


def parse_group(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return the gid of a group given by name or number."""
    if value is None:
        return None
    try:
        return grp.getgrnam(value).gr_gid
    except KeyError:
        if not (value.isascii() and value.isdigit() and int(value) <= MAX_GID):
            raise click.BadParameter(f"there is no group {value!r}", ctx, param) from None
    return int(value)


def mac_option(function: F) -> F:
    """Add the option ``--mac``, passed on as the text that was given."""
    return click.option("--mac", metavar="MAC", callback=_checked_mac, help="Its hardware address. [default: random]")(
        function
    )


def address_option(help: str) -> Callable[[F], F]:
    """Return the option ``--address``, which may be given again, passed on as the tuple ``addresses``."""
    return click.option(
        "--address", "addresses", metavar="ADDRESS/LENGTH", multiple=True, callback=_checked_addresses, help=help
    )


def parse_interface_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Return the name of a new interface: what the kernel takes, or such a pattern (``vm%d``)."""
    try:
        return netdev.check_name(value)
    except OSError as error:
        raise click.BadParameter(str(error.strerror), ctx, param) from None


def _checked_mac(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return a hardware address as it was given, if it is one that an interface may have."""
    if value is not None:
        try:
            netdev.parse_mac(value)
        except OSError as error:
            raise click.BadParameter(str(error.strerror), ctx, param) from None
    return value


def _checked_addresses(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return addresses with their prefix lengths as they were given."""
    for value in values:
        try:
            ipaddress.ip_interface(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is no IPv4 or IPv6 address with a length", ctx, param) from None
        length = value.partition("/")[2]
        if not length.isdigit():
            raise click.BadParameter(f"{value!r} needs the length of its prefix, as in 10.0.0.1/24", ctx, param)
    return values
