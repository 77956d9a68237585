"""``ipnctl policy``: the delivery policies that ipnd has."""

from __future__ import annotations

import errno

import click

from ipn import admin

from . import tables
from .arguments import json_option
from .errors import explained
from .output import emit, emit_json


@click.group()
def policy() -> None:
    """The delivery policies: who gets a message."""


@policy.command("list")
@json_option()
def list_(as_json: bool) -> None:
    """List the delivery policies that ipnd has."""
    with explained({errno.ECONNREFUSED: ""}):
        policies = admin.policies()
    if as_json:
        emit_json(policies)
    else:
        emit(tables.policy_list(policies))
