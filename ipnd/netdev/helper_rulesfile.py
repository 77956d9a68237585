"""The file with the helper's rules: whether it may be trusted, and what it says now.

It is read for every request: it is small, and neither a change of it nor of a user's or group's id can go unnoticed.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable
from typing import Final

from .helper_rules import Rules
from .helper_toml import RulesError, parse_rules

MAX_RULES: Final = 256 * 1024
"""Longest file in bytes: a thousand rules. It is read for each request."""


class RulesFile:
    """The rules at ``path``. ``log`` is told, once each time it changes, what came of reading it."""

    def __init__(self, path: str, log: Callable[[str], None]) -> None:
        self.path = path
        self._log = log
        self._last_said = ""

    def read(self) -> Rules:
        """Return the rules as they are now; EPERM, with what is wrong with the file, when they cannot be followed."""
        try:
            rules = self._rules()
        except PermissionError as error:
            self._say(f"rules: every request is refused: {error.strerror}")
            raise
        warnings = "".join(f"; {warning}" for warning in rules.warnings)
        self._say(f"rules: {self.path}: {len(rules.taps)} for TAPs, {len(rules.grabs)} for grabbing{warnings}")
        return rules

    def announce(self) -> None:
        """Say in the log what the rules are, without a request."""
        with contextlib.suppress(PermissionError):
            self.read()

    def _rules(self) -> Rules:
        try:
            text = _read_trusted(self.path).decode()
            return parse_rules(text, lambda name: pwd.getpwnam(name).pw_uid, lambda name: grp.getgrnam(name).gr_gid)
        except UnicodeDecodeError:
            raise PermissionError(errno.EPERM, f"the helper's rules in {self.path} are not UTF-8") from None
        except RulesError as error:
            raise PermissionError(errno.EPERM, f"the helper's rules in {self.path} are invalid: {error}") from None

    def _say(self, text: str) -> None:
        if text != self._last_said:
            self._last_said = text
            self._log(text)


def _read_trusted(path: str) -> bytes:
    """Return the content of the file at ``path``; EPERM unless only root and the helper's own user can change it."""
    try:
        # O_NONBLOCK: a FIFO in its place must not keep the helper waiting.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = "there is none" if error.errno == errno.ENOENT else error.strerror
        raise PermissionError(errno.EPERM, f"the helper has no rules: {path}: {why}") from None
    try:
        info = os.fstat(fd)
        problem = ""
        if not stat.S_ISREG(info.st_mode):
            problem = "is no file"
        elif info.st_uid not in (0, os.geteuid()):
            problem = f"belongs to user {info.st_uid}; it must belong to root"
        elif info.st_mode & 0o022:
            problem = f"may be written by others than its owner (mode {stat.S_IMODE(info.st_mode):04o}); chmod go-w it"
        elif info.st_size > MAX_RULES:
            problem = f"is longer than {MAX_RULES} bytes"
        if problem:
            raise PermissionError(errno.EPERM, f"the helper's rules are not to be trusted: {path} {problem}")
        with open(fd, "rb", closefd=False) as file:
            return file.read(MAX_RULES)
    finally:
        os.close(fd)
