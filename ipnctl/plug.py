"""``ipnctl plug``: a network on standard input and output, for ``dpipe``, ``vde_plug`` and ssh.

The network's side is a data socket, whose bytes are frames behind 4-byte lengths; the other side speaks VDE's stream,
or, with ``--hops``, the very same bytes, so that nothing needs to be looked into.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from ipn.abi import IPN_ANY, IPN_DESCRLEN
from ipn.greeting import GREETING, GreetingDecoder, GreetingError
from ipn.rendezvous import open_network
from ipn.vdestream import BatchEncoder, StreamDecoder, in_chunks

from .arguments import network_argument
from .errors import Failure, explained, say
from .relay import PIECE, End, SocketEnd, Way, end_of, relay

GREETING_SECONDS: Final = 10.0
"""Time for the other end's greeting. ssh, which may have to ask for a password first, starts us when it has."""
WHOLE: Final = 64 * 1024 * 1024
"""More bytes than one read makes: all of it is one chunk."""


def _description(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if len(value.encode("utf-8", "replace")) > IPN_DESCRLEN:
        raise click.BadParameter(f"a description has at most {IPN_DESCRLEN} bytes", ctx, param)
    return value


@click.command()
@network_argument
@click.option("--descr", metavar="TEXT", default="", callback=_description, help='What "net show" says of this member.')
@click.option("--hops", is_flag=True, help="Be the far end of a cable of ipnd's, which counts hops; see ipnctl cable.")
def plug(path: str, descr: str, hops: bool) -> None:
    """Join the network at PATH and carry its frames to standard output, and to it those of standard input.

    They are in VDE's stream format: dpipe vde_plug DIR = ipnctl plug PATH. It has frames of up to 65535 bytes;
    vde_plug takes up to 9236 of them (that of VDE 2: 1521). The end of standard input is the end of the plug.
    """
    if sys.stdin is None or sys.stdout is None:
        raise Failure("plug needs standard input and output, and one of them is closed")
    if sys.stdin.isatty() or sys.stdout.isatty():
        raise Failure("standard input and output are for frames, not a terminal; try: dpipe vde_plug DIR = ipnctl plug")
    with _joined(path, descr, "hops" if hops else "stream") as net:
        stdin, stdout = end_of(sys.stdin.fileno()), end_of(sys.stdout.fileno())
        if hops:
            inward, outward = _as_they_are(net, stdin, stdout)
        else:
            inward, outward = _as_vdestream(net, stdin, stdout)
        if relay(inward, outward) is outward:
            raise Failure(f"the network {path} has ended")


@contextlib.contextmanager
def _joined(path: str, descr: str, data: str) -> Iterator[End]:
    """Be a member of the network at ``path`` and give its data socket."""
    with explained(), contextlib.closing(open_network(path)) as channel:
        answer, fds = channel.request("connect", policy=IPN_ANY, descr=descr, data=data)
        try:
            _tell_of_rights(path, answer)
            yield SocketEnd(fds[0])
        finally:
            for fd in fds:
                os.close(fd)


def _tell_of_rights(path: str, answer: dict[str, Any]) -> None:
    """Say what the network's mode keeps from us. Frames that may not go there are thrown away."""
    if answer["rights"] != "rw":
        only = "receive from" if answer["rights"] == "r" else "send to"
        say(f"you may only {only} {path} (its mode gives no more): frames the other way are thrown away")


# -- VDE's stream ----------------------------------------------------------------------------------------------------


def _as_vdestream(net: End, stdin: End, stdout: End) -> tuple[Way, Way]:
    """Return the ways from standard input to the network and back, turning the one's framing into the other's."""
    decoder, encoder = StreamDecoder(), BatchEncoder()
    chunk = _make_small(stdout)

    def records(data: bytes) -> Iterable[bytes]:
        before = encoder.left_out
        pieces = in_chunks(encoder.feed(data), chunk)
        if encoder.left_out and not before:
            say("frames longer than 65535 bytes are left out: VDE's stream cannot tell their length")
        return pieces

    return Way(stdin, net, lambda data: [decoder.feed(data)]), Way(net, stdout, records)


def _make_small(stdout: End) -> int:
    """Have a pipe take nothing before all it held is read; return the bytes of a chunk that may then go into it.

    Programs of VDE read what is there, and lose their place where that ends between the two bytes of a length. If a
    pipe never holds more than a chunk, reads (theirs are of 4,096 bytes and more) end where chunks do.
    """
    if not stat.S_ISFIFO(os.fstat(stdout.fileno()).st_mode):
        return WHOLE
    with contextlib.suppress(OSError):
        fcntl.fcntl(stdout.fileno(), fcntl.F_SETPIPE_SZ, PIECE)
    return PIECE


# -- the far end of a cable --------------------------------------------------------------------------------------------


def _as_they_are(net: End, stdin: End, stdout: End) -> tuple[Way, Way]:
    """Return the ways from standard input to the network and back, once the other end has greeted."""
    stdout.write(GREETING)
    first = _greeted(stdin)
    return Way(stdin, net, lambda data: [data], first), Way(net, stdout, lambda data: [data])


def _greeted(stdin: End) -> bytes:
    """Wait for the other end's greeting and return what came behind it."""
    decoder = GreetingDecoder()
    deadline = time.monotonic() + GREETING_SECONDS
    try:
        while select.select([stdin.fileno()], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (data := stdin.read()):
                raise Failure("the other end of the cable has gone before it greeted")
            if (rest := decoder.feed(data)) is not None:
                return rest
    except GreetingError as error:
        raise Failure(str(error)) from None
    raise Failure(f"the other end of the cable did not greet within {GREETING_SECONDS:.0f} s")
