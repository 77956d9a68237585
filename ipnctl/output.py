"""Where results go: standard output or a file, at once; a closed pipe is told from a failure."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

STDOUT_FD: Final = 1


class OutputClosed(Exception):
    """Nobody reads our output any more."""


class OutputFailed(Exception):
    """The output cannot be written; the text says why."""


class Output:
    """Takes bytes and passes them on at once. Borrows ``stream``."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, data: bytes) -> None:
        """Write all of ``data``. Raises ``OutputClosed`` or ``OutputFailed``."""
        try:
            self._stream.write(data)
            self._stream.flush()
        except BrokenPipeError:
            raise OutputClosed from None
        except OSError as error:
            raise OutputFailed(f"cannot write to {self._name}: {error.strerror}") from None


def standard_output() -> Output:
    """Return the output that is standard output; ``OutputFailed`` when the caller closed that."""
    # Without it (">&-") Python sets None, and the number belongs to whatever was opened next.
    if sys.stdout is None:
        raise OutputFailed("cannot write to standard output: it is closed")
    return Output(sys.stdout.buffer, "standard output")


@contextlib.contextmanager
def open_output(name: str | None) -> Iterator[Output]:
    """Give the output called ``name``: a file, made or emptied; None or ``-``: standard output."""
    if name is None or name == "-":
        yield standard_output()
        return
    try:
        file = open(name, "wb")  # noqa: SIM115 (closed below; a failure to open is not one of the body)
    except OSError as error:
        raise OutputFailed(f"cannot write to {name}: {error.strerror}") from None
    try:
        yield Output(file, name)
    finally:
        with contextlib.suppress(OSError):  # a full disk was told by write
            file.close()


def emit(text: str) -> None:
    """Write lines to standard output, at once."""
    standard_output().write((text + "\n").encode("utf-8", "backslashreplace"))


def emit_json(value: Any, *, indent: int | None = 2) -> None:
    """Write ``value`` as JSON to standard output; ``indent=None`` puts it on one line."""
    emit(json.dumps(value, indent=indent))


def abandon_output() -> None:
    """Let what is still buffered for standard output go nowhere, so that the interpreter ends silently."""
    if sys.stdout is None:
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, STDOUT_FD)
    os.close(null)
