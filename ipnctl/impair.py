"""``ipnctl impair``: making the line of a member worse, and showing what came of it."""

from __future__ import annotations

import errno
import re
from typing import Any, Final

import click

from ipn import admin
from ipn.abi import MAX_NUMNODES

from . import tables
from .arguments import json_option, network_argument
from .errors import Failure, explained
from .output import emit, emit_json

PORT: Final = click.IntRange(0, MAX_NUMNODES - 1)
DIRECTIONS: Final = ("in", "out", "both")
SEE_WHO: Final = "see who is there with: ipnctl net show PATH"
HINTS: Final = {errno.EADDRNOTAVAIL: SEE_WHO, errno.EINVAL: ""}
"""What to do when a port cannot be impaired, where the daemon does not say it itself."""

NUMBER: Final = r"(\d+\.?\d*|\.\d+)"


class Measure:
    """The callback of an option that takes a number with a unit, as people write it.

    ``pattern`` is that of the unit, ``units`` what each is worth, ``whole``: the result is an integer.
    """

    def __init__(self, name: str, pattern: str, units: dict[str, float], example: str, *, whole: bool = False) -> None:
        self._name = name
        self._pattern = re.compile(NUMBER + pattern, re.IGNORECASE | re.ASCII)
        self._units = units
        self._example = example
        self._whole = whole

    def __call__(self, ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
        """Return the number in the unit that is worth 1."""
        if value is None:
            return None
        match = self._pattern.fullmatch(value)
        if match is None:
            raise click.BadParameter(f"{value!r} is no {self._name}; write it as in {self._example}", ctx, param)
        number = float(match[1]) * self._units[match[2].lower()]
        return round(number) if self._whole else number


TIME: Final = Measure("time", "(us|ms|s|)", {"us": 0.001, "ms": 1, "": 1, "s": 1000}, "10ms, 500us or 1.5s")
PERCENT: Final = Measure("percentage", "(%|)", {"%": 1, "": 1}, "10% or 0.5%")
RATE: Final = Measure(
    "rate", "([kmgt]?)(?:bit(?:/s)?)?", {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}, "10mbit or 64k", whole=True
)


@click.command()
@network_argument
@click.argument("port", type=PORT)
@click.option("--direction", type=click.Choice(DIRECTIONS), default="both", show_default=True,
              help="in: what the member sends; out: what it is given.")
@click.option("--delay", "delay_ms", callback=TIME, metavar="TIME", help="Each frame comes so much later: 10ms, 1.5s.")
@click.option("--jitter", "jitter_ms", callback=TIME, metavar="TIME", help="The delay differs by up to so much.")
@click.option("--loss", callback=PERCENT, metavar="PERCENT", help="So many frames are lost.")
@click.option("--rate", callback=RATE, metavar="RATE", help="Bits a second that the line carries: 10mbit, 64k.")
@click.option("--duplicate", callback=PERCENT, metavar="PERCENT", help="So many frames come twice.")
@click.option("--reorder", callback=PERCENT, metavar="PERCENT", help="So many frames are not delayed and get ahead.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N",
              help="The same seed and frames, the same losses. [default: PORT]")
@click.option("--clear", is_flag=True, help="Impair it no more; what waits goes at once.")
@json_option("Print the impairment of the port as JSON.")
def impair(path: str, port: int, direction: str, clear: bool, as_json: bool, **settings: Any) -> None:
    """Impair the line of the member on PORT of PATH: lose, delay, double its frames, until it leaves.

    What is given replaces what was set before in that direction; without any of it the command shows what there is.
    Frames keep their order, whatever the jitter, but for those that --reorder lets go ahead.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if clear and given:
        raise click.UsageError("--clear goes with no setting.")
    if not clear and set(given) == {"seed"}:
        raise click.UsageError("Say what --seed is for: --loss, --jitter …")
    with explained(HINTS):
        shown = admin.impair(path, port, direction, **given) if clear or given else _shown(path, port)
    if as_json:
        emit_json(shown)
    elif not (clear or given):
        for name, way in shown.items():
            emit(f"{name}: {tables.line(way)}")
        if not shown:
            emit("not impaired")


def _shown(path: str, number: int) -> dict[str, Any]:
    """Return the impairment of a port; ``Failure`` when nobody is on it."""
    for port in admin.show_network(path)["ports"]:
        if port["port"] == number:
            return dict(port.get("impairment", {}))
    raise Failure(f"nobody is on port {number} of {path}; {SEE_WHO}")
