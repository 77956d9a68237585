"""``ipnctl send``: a file or standard input, as messages on a network."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import Final

import click

import ipn
from ipn import admin
from ipn.abi import MAX_MTU, MAX_NUMNODES
from ipn.control import Message
from ipn.socket import Socket

from .arguments import network_argument
from .cutting import Cutter, LineCutter, LineTooLong, SizeCutter
from .errors import Failure, say

READ_SIZE: Final = 256 * 1024
"""Bytes read at once; what they hold goes out with few system calls."""
PAUSE: Final = 0.1
"""Seconds after which part of a message is sent rather than kept waiting for more input."""


@click.command()
@network_argument
@click.argument("file", type=click.Path(allow_dash=True, readable=False), default="-")
@click.option("--lines", is_flag=True, help="A message a line, without its newline. Empty lines are skipped.")
@click.option(
    "--size",
    type=click.IntRange(1, MAX_MTU),
    metavar="N",
    help="Messages of N bytes; the last may be shorter.",
)
@click.option("--wait-readers", type=click.IntRange(1, MAX_NUMNODES), metavar="N", help="Begin when N members receive.")
def send(path: str, file: str, lines: bool, size: int | None, wait_readers: int | None) -> None:
    """Send FILE, or standard input, to a network.

    It is cut into messages as long as the network's MTU permits; when the input pauses, what has come goes
    out at once. What is sent while nobody receives is lost (see --wait-readers).
    """
    if lines and size is not None:
        raise click.UsageError("--lines and --size exclude each other.")
    with _open_input(file) as (fd, name), ipn.connect(path, receive=False) as net:
        if size is not None and size > net.mtu:
            raise Failure(f"a message on {path} has at most {net.mtu} bytes (its MTU); give --size no more")
        cutter: Cutter = LineCutter(net.mtu) if lines else SizeCutter(size or net.mtu)
        if wait_readers is not None:
            _wait_for_readers(path, wait_readers)
        try:
            _pump(fd, name, cutter, net, hasty=not lines and size is None)
        except LineTooLong as error:
            net.send_many(error.before)
            text = f"line {error.number} of {name} is longer than the {net.mtu} bytes (MTU) of {path}"
            raise Failure(f"{text}; send without --lines, or make a network with a larger --mtu") from None
    if isinstance(cutter, LineCutter) and cutter.empty:
        say(f"empty lines in {name}, which cannot be messages and were skipped: {cutter.empty}")


def _pump(fd: int, name: str, cutter: Cutter, net: Socket, *, hasty: bool) -> None:
    """Send what ``fd`` gives to its end; ``hasty``: at a pause also what does not fill a message."""
    while True:
        if hasty and cutter.pending and not select.select([fd], [], [], PAUSE)[0]:
            net.send_many(cutter.flush())
        try:
            data = os.read(fd, READ_SIZE)
        except OSError as error:
            raise Failure(f"cannot read {name}: {error.strerror}") from None
        if not data:
            break
        net.send_many(cutter.feed(data))
    net.send_many(cutter.flush())


def _wait_for_readers(path: str, count: int) -> None:
    with contextlib.closing(admin.monitor(path)) as events:
        for event in events:
            if _readers(event) >= count:
                return
    raise Failure(f"the network {path} ended before it had {count} readers; nothing was sent")


def _readers(event: Message) -> int:
    """Return how many receive, as far as this event of a monitor tells; 0 when it does not."""
    return int(event.get("readers") or event.get("numreaders") or 0)


@contextlib.contextmanager
def _open_input(file: str) -> Iterator[tuple[int, str]]:
    """Give a descriptor to read ``file`` from (``-``: standard input), and what to call it."""
    if file == "-":
        # Without it ("<&-") Python sets None, and the number belongs to whatever was opened next.
        if sys.stdin is None:
            raise Failure("cannot read standard input: it is closed; name a file")
        yield sys.stdin.fileno(), "standard input"
        return
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}") from None
    try:
        yield fd, file
    finally:
        os.close(fd)
