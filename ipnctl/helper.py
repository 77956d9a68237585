"""``ipnctl helper``: how you stand with the small privileged process that opens interfaces for users."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Final

import click

from ipn.helper import helper_check

from .arguments import json_option
from .output import emit, emit_json
from .tables import Entry, printable

KINDS: Final = {"tap": ("make TAPs", "CAP_NET_ADMIN"), "grab": ("grab interfaces", "CAP_NET_RAW")}
"""What the privilege for each kind of device lets one do, and its name."""


@click.group()
def helper() -> None:
    """The helper that opens interfaces for users without privilege."""


@helper.command()
@json_option("Print JSON instead of sentences.")
def check(as_json: bool) -> None:
    """Say whether you can put interfaces on networks, and if not, why.

    That takes privilege of your own, or ipn-helper and a rule of its that lets you. Ends with 0 when you can, else 1.
    """
    report = helper_check()
    if as_json:
        emit_json(report)
    else:
        emit("\n".join(map(printable, sentences(report))))
    sys.exit(0 if report["own"] or report["allowed"] else 1)


def sentences(report: Entry) -> Iterator[str]:
    """Give what is well, what is wrong, and what to do."""
    own, missing = ([kind for kind in KINDS if (kind in report["own"]) is has] for has in (True, False))
    if own:
        yield f"you may {_told(own, 0)} yourself, with {_told(own, 1)}"
    if missing:
        yield f"you may not {_told(missing, 0)} without the helper, as you have no {_told(missing, 1)}"
    if report["running"]:
        yield f"the helper answers at {report['address']}"
        yield from (f"it allows you to {sentence}" for sentence in report["allowed"])
        if not report["allowed"]:
            yield "it allows you nothing; root adds a rule for you to its file, see ipn-helper(8)"
    yield from (f"{'problem' if missing else 'for others'}: {sentence}" for sentence in report["problems"])


def _told(kinds: Sequence[str], column: int) -> str:
    return " and ".join(KINDS[kind][column] for kind in kinds)
