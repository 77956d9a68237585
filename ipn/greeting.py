"""What the two ends of a cable between machines say first: one line each, then frames. Sans-IO.

The line tells either end that the other is there and understands frames with hop counts. What comes before it is
skipped, as login shells like to say something (``~/.bashrc``), but not for ever.
"""

from __future__ import annotations

from typing import Final

PROGRAM: Final = b"ipn-cable "
GREETING: Final = PROGRAM + b"1\n"
"""The line, with the version of what follows."""
MAX_NOISE: Final = 8192
"""Bytes that may come before it."""


class GreetingError(Exception):
    """The other end is none of ours, or of another version."""


class GreetingDecoder:
    """Looks for the other end's line. ``heard``: the last other line that it said, for who has to tell of a failure."""

    def __init__(self) -> None:
        self.heard = ""
        self._noise = 0
        self._rest = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take ``data`` in; return what came behind the line once it is there, and None before."""
        *lines, rest = (self._rest + data).split(b"\n")
        for number, line in enumerate(lines):
            if line + b"\n" == GREETING:
                self._rest = b""
                return b"\n".join([*lines[number + 1 :], rest])
            if line.startswith(PROGRAM):
                raise GreetingError(f"the other end is a cable of another version: {_text(line)!r}")
            self._noise += len(line) + 1
            self.heard = _text(line) or self.heard
        if self._noise + len(rest) > MAX_NOISE:
            raise GreetingError(f"the other end is no cable of this kind; the last line it said is {self.heard!r}")
        self._rest = rest
        return None


def _text(line: bytes) -> str:
    return line[:200].decode("utf-8", "replace").strip()
