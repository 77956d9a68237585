"""What can go wrong, as one line on standard error and an exit status; never a traceback.

``ipn`` says what happened and why; what to do about it is a row of ``HINTS``, or of a command's own table
where the same errno calls for something else.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Final

import click

from .output import OutputClosed, OutputFailed, abandon_output

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells report it."""
PIPE_CLOSED: Final = 141
"""Exit status when the reader of our output went away: 128 + SIGPIPE."""

HINTS: Final[Mapping[int, str]] = {
    errno.ENOENT: "try: ipnctl net list, or ipnctl net create",
    errno.ECONNREFUSED: "try: ipnctl net list, or ipnctl net create",
    errno.ECONNRESET: "see whether it is still there with: ipnctl net list",
    errno.EACCES: "its owner gives r (receive) and w (send) with chmod, chgrp or setfacl on it",
    errno.EPERM: "its owner gives x (manage) with chmod, chgrp or setfacl on it",
    errno.EADDRINUSE: "see who uses it with: ipnctl net show",
    errno.EPROTONOSUPPORT: "see those there are with: ipnctl policy list",
    errno.ETIMEDOUT: "see whether ipnd is stopped or overloaded",
}
"""What to do, by errno. An empty hint in a command's table: ``ipn`` has said it already."""


class Failure(click.ClickException):
    """A failure that needs no more words than its own: ends the command with one line and exit status 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        say(self.message)


def say(text: str) -> None:
    """Print one line on standard error, behind the program's name."""
    click.echo(f"ipnctl: {' '.join(text.splitlines())}", err=True)


def describe(error: OSError, hints: Mapping[int, str] = HINTS) -> str:
    """Return what happened, why, and what to do."""
    text = error.strerror or str(error)
    if error.filename is not None and str(error.filename) not in text:
        text = f"{error.filename}: {text}"
    hint = hints.get(error.errno or 0)
    return f"{text}; {hint}" if hint else text


@contextmanager
def explained(hints: Mapping[int, str] | None = None) -> Iterator[None]:
    """Turn an ``OSError`` of the body into a ``Failure``; ``hints`` go before the general ones."""
    try:
        yield
    except OSError as error:
        raise Failure(describe(error, {**HINTS, **(hints or {})})) from None


@contextmanager
def explained_devices(path: str, hints: Mapping[int, str], devices: Mapping[int, str]) -> Iterator[None]:
    """As ``explained``, for what opens interfaces for the network at ``path``.

    ``hints``, and the general ones, go with errors of the network, ``devices`` with those of the interface.
    """
    try:
        yield
    except OSError as error:
        raise Failure(describe(error, {**HINTS, **hints} if error.filename == path else devices)) from None


@contextmanager
def _quiet_end() -> Iterator[None]:
    """End the process as a good filter does when it is interrupted or nobody reads its output any more."""
    try:
        with explained():
            try:
                yield
            except BrokenPipeError as error:
                if error.filename is not None:
                    raise  # EPIPE of a network, which may not be sent to
                raise OutputClosed from None  # click printing help
    except KeyboardInterrupt:
        abandon_output()
        sys.exit(INTERRUPTED)
    except OutputClosed:
        abandon_output()
        sys.exit(PIPE_CLOSED)
    except OutputFailed as error:
        abandon_output()
        raise Failure(str(error)) from None


class Program(click.Group):
    """A group whose commands all end in the ways this module describes."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse; ``--help`` already prints here."""
        with _quiet_end():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _quiet_end():
            return super().invoke(ctx)
