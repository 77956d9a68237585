"""Programs in Python, whose interpreter is as real a program as any, under ``ipnctl run``."""

from __future__ import annotations

import ast
import sys
from typing import Any, Final

import attrs

from tests.ipnctl.command import Ipnctl, Started
from tests.ipnctl.programs.compiling import SOURCES

PRELUDE: Final = f"""
import errno, fcntl, os, select, signal, socket, struct, sys, threading, time
sys.path.insert(0, {str(SOURCES)!r})
from calling import *
"""
"""What each script begins with: tests/programs/calling.py has the calls."""


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a script."""
    return (sys.executable, "-S", "-c", PRELUDE + code, *arguments)


@attrs.frozen
class Scripts:
    """Runs scripts against a daemon."""

    programs: Ipnctl

    def __call__(
        self, code: str, *arguments: str, before: tuple[str, ...] = (), prefix: tuple[str, ...] = ()
    ) -> Any:
        """Run a script, which must succeed, and return the value that it has printed.

        ``before``: what runs the script, under ``ipnctl run``; ``prefix``: what runs ``ipnctl`` (``setpriv …``).
        """
        done = self.programs.run("run", "--", *before, *python(code, *arguments), prefix=prefix)
        return ast.literal_eval(done.ok().text)

    def start(self, code: str, *arguments: str, **more: Any) -> Started:
        """Start a script."""
        return self.programs.start("run", "--", *python(code, *arguments), **more)

    def path(self, name: str) -> str:
        """Return the path of a network called ``name``."""
        return self.programs.path(name)
