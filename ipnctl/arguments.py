"""Arguments and options that several commands share, and how their texts become values."""

from __future__ import annotations

import grp
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

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
