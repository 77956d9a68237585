"""``ipnctl recv``: what comes over a network, to standard output or a file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import Final

import click

import ipn
from ipn.socket import Socket

from .arguments import json_option, network_argument
from .errors import Failure, describe, say
from .forms import FORMS, Received
from .output import open_output

LOOK_AGAIN: Final = 0.1
"""Seconds between two looks for a network that is not there yet."""
ABSENT: Final = (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, PermissionError)
"""Errors that a network may cure by (re)appearing, or by its owner's chmod."""


class Silence(Exception):
    """Nothing came for as long as the caller was ready to wait."""


@click.command()
@network_argument
@click.option("-o", "--output", metavar="FILE", type=click.Path(allow_dash=True, readable=False), help="Write to FILE.")
@click.option("--lines", is_flag=True, help="Put a newline after each message.")
@click.option("--hex", "as_hex", is_flag=True, help="Show number, length, time and a hex dump of each message.")
@json_option('Print a JSON object a line: number, time, length, and "text", or "base64" if it is not UTF-8.')
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("--follow", is_flag=True, help="Wait for the network to appear, and to reappear when it ends.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="End when no message came for S seconds.",
)
def recv(
    path: str,
    output: str | None,
    lines: bool,
    as_hex: bool,
    as_json: bool,
    count: int | None,
    follow: bool,
    timeout: float | None,
) -> None:
    """Receive from the network at PATH until it ends.

    The messages are written as they are, one after the other, unless an option says otherwise. With
    --count it is a failure when fewer messages came.
    """
    chosen = [name for name, on in (("lines", lines), ("hex", as_hex), ("json", as_json)) if on]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other.")
    form = FORMS[chosen[0] if chosen else "raw"]
    got, why = 0, "the network ended"
    try:
        with open_output(output) as out, contextlib.closing(batches(path, follow, timeout)) as incoming:
            for batch in incoming:
                now = time.time()
                wanted = batch if count is None else batch[: count - got]
                out.write(b"".join(form(Received(data, n, now)) for n, data in enumerate(wanted, got + 1)))
                got += len(wanted)
                if got == count:
                    return
    except Silence:
        why = f"nothing came for {timeout:g} s"
    if count is not None:
        text = f"{got} of {count} messages came from {path}: {why}"
        raise Failure(f"{text}; see who sends with: ipnctl net show")


def batches(path: str, follow: bool, timeout: float | None) -> Generator[list[bytes]]:
    """Yield messages, as many at a time as have come; ``Silence`` after ``timeout`` seconds without any."""
    while True:
        with _join_when_there(path, timeout) if follow else _join(path) as net:
            net.settimeout(timeout)
            while messages := _receive(net):
                yield messages
        if not follow:
            return


def _join(path: str) -> Socket:
    return ipn.connect(path, send=False)


def _join_when_there(path: str, timeout: float | None) -> Socket:
    deadline = None if timeout is None else time.monotonic() + timeout
    told = ""
    while True:
        try:
            return _join(path)
        except ABSENT as error:
            if (reason := describe(error, {})) != told:
                say(f"waiting: {reason}")
                told = reason
        if deadline is not None and time.monotonic() >= deadline:
            raise Silence
        time.sleep(LOOK_AGAIN)


def _receive(net: Socket) -> list[bytes]:
    """Return messages; none when the network has ended."""
    try:
        return net.recv_many()
    except ConnectionResetError:
        return []
    except TimeoutError:
        raise Silence from None
