"""Keeping up what may fail: trying again and again, and running the programs that fixtures need.

``keep_trying`` makes attempts for ever, with a pause between them that doubles up to a limit. ``Child`` is a program
that runs as the user who asked for it, told to end when it is no longer wanted. A program is started in the loop's own
thread: in another one it could be given the identity that ``acting_as`` lends the process for a moment.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import pwd
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self

import trio

from .access import Peer

log = logging.getLogger("ipnd.supervisor")

SHORTEST_PAUSE: Final = 0.25
"""Seconds after the first failure until the next attempt."""
LONGEST_PAUSE: Final = 30.0
"""Seconds that the pauses double up to."""
SETTLED: Final = 10.0
"""Seconds after which what is up counts as well: the next failure is a first one."""
TERM_SECONDS: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""
LAST_WORDS_SECONDS: Final = 0.5
"""Seconds to wait for the end of what a program that has ended said; one of its own children may hold the pipe."""
MAX_LINE: Final = 512
"""Bytes of a line of a program's stderr that are kept."""
PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
"""Where programs are, unless ipnd's own environment says so."""

Attempt = Callable[[Callable[[], None]], Awaitable[str]]


class _Attempts:
    """How the attempts went so far: the next pause, and what the log has been told."""

    def __init__(self, what: str, on_state: Callable[[str, str], None]) -> None:
        self._what = what
        self._on_state = on_state
        self._up_since = math.inf
        self._told = ""
        self.problem = ""
        self.pause = SHORTEST_PAUSE

    def connecting(self) -> None:
        """An attempt begins."""
        self._up_since = math.inf
        self._on_state("connecting", self.problem)

    def up(self) -> None:
        """The attempt has succeeded."""
        if self._up_since == math.inf:
            self._up_since = trio.current_time()
            self._told = self.problem = ""
            log.info("%s: up", self._what)
            self._on_state("up", "")

    def ended(self, reason: str) -> None:
        """The attempt has ended. Many of the same are one line in the log."""
        if trio.current_time() - self._up_since >= SETTLED:
            self.pause = SHORTEST_PAUSE
        self.problem = reason
        if reason != self._told:
            log.warning("%s: %s; it is tried again", self._what, reason)
            self._told = reason
        self._on_state("waiting", reason)


async def keep_trying(what: str, attempt: Attempt, on_state: Callable[[str, str], None]) -> None:
    """Call ``attempt`` for ever, until cancelled.

    It gets a function to call once it is up, and returns why it ended, or raises ``OSError``. ``what``: for the log.
    ``on_state`` is told of each change: ``connecting``, ``up`` or ``waiting``, and what the last problem was.
    """
    attempts = _Attempts(what, on_state)
    while True:
        attempts.connecting()
        try:
            reason = await attempt(attempts.up)
        except OSError as error:
            reason = error.strerror or str(error)
        attempts.ended(reason)
        await trio.sleep(attempts.pause)
        attempts.pause = min(2 * attempts.pause, LONGEST_PAUSE)


# -- programs --------------------------------------------------------------------------------------------------------


def require_identity(peer: Peer) -> None:
    """EPERM where ipnd can do nothing as ``peer``: what its own user may is not for others to use."""
    own = os.geteuid()
    if own not in (0, peer.uid) and peer.uid != 0:
        text = f"this ipnd runs as user {own} and can neither run programs nor connect as user {peer.uid}"
        raise PermissionError(errno.EPERM, text)


def process_arguments(peer: Peer) -> dict[str, Any]:
    """Return what makes ``subprocess.Popen`` run a program as ``peer``, with a clean environment and session.

    EPERM where ipnd cannot.
    """
    require_identity(peer)
    arguments: dict[str, Any] = {"env": _environment(peer), "cwd": "/", "start_new_session": True}
    if os.geteuid() == 0 and peer.uid != 0:
        arguments |= {"user": peer.uid, "group": peer.gid, "extra_groups": sorted(peer.groups)}
    return arguments


def search_path() -> str:
    """Return where programs are searched, as PATH."""
    return os.environ.get("PATH") or PATH


def _environment(peer: Peer) -> dict[str, str]:
    uid = peer.uid if os.geteuid() == 0 else os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
        name, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell or "/bin/sh"
    except KeyError:
        name, home, shell = str(uid), "/", "/bin/sh"
    own = {"PATH": search_path(), "LANG": os.environ.get("LANG") or "C.UTF-8"}
    return {"HOME": home, "USER": name, "LOGNAME": name, "SHELL": shell, **own}


class Child:
    """A program that runs as ``peer``, until it ends or the ``async with`` does; then it is killed.

    ``command`` is found by ipnd's PATH; ``environment`` is added to its own. It has the descriptors ``pass_fds`` and
    no others; they, ``stdin`` and ``stdout`` stay the caller's. ``last_line``: the last that it said on stderr, lines
    that begin with a ``noise`` apart. Errors: EPERM where ipnd cannot act as ``peer``, ENOENT and EACCES for a program
    that cannot be run.
    """

    def __init__(
        self, command: Sequence[str], peer: Peer, *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (), environment: dict[str, str] | None = None, noise: tuple[str, ...] = (),
    ) -> None:
        self.name = os.path.basename(command[0])
        self.last_line = ""
        self._noise = noise
        self._line = b""
        arguments = process_arguments(peer)
        arguments["env"] |= environment or {}
        try:
            self._process = subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, pass_fds=pass_fds, **arguments
            )
        except OSError as error:
            why = "it is not installed" if error.errno == errno.ENOENT else error.strerror
            raise OSError(error.errno, f"cannot run {command[0]}: {why}") from None
        assert self._process.stderr is not None
        self._pidfd = os.pidfd_open(self._process.pid)
        self._stderr = trio.lowlevel.FdStream(os.dup(self._process.stderr.fileno()))
        self._process.stderr.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self._end()
            await self._stderr.aclose()
        os.close(self._pidfd)

    async def wait(self) -> str:
        """Wait for the program's end; return, as a sentence, how it ended and what it said last."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            await self._wait()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_SECONDS
        status = self._process.returncode
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"{self.name} was ended by {signal.Signals(-status).name}"
        words = f": {self.last_line}" if self.last_line else ""
        return f"{self.name} ended with status {status}{words}"

    async def during(self, work: Callable[[], Awaitable[str]]) -> str:
        """Do ``work`` while the program runs. Return why that was over: how the program ended, or what work says.

        ``work`` returns why it has ended, or raises ``OSError``. Where it only saw the program go, that one tells why.
        """
        reasons: list[str] = []

        async def watch() -> None:
            reasons.append(await self.wait())
            nursery.cancel_scope.cancel()

        async def do() -> None:
            try:
                reason = await work()
                await trio.sleep(LAST_WORDS_SECONDS)
            except OSError as error:
                reason = error.strerror or str(error)
            reasons.append(reason)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(do)
        return reasons[0]

    async def _wait(self) -> None:
        """Wait for the end and reap it. The pidfd is readable once the process has ended (pidfd_open(2))."""
        if self._process.poll() is None:
            await trio.lowlevel.wait_readable(self._pidfd)
            self._process.wait()

    async def _listen(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in self._stderr:
                *lines, rest = (self._line + data).split(b"\n")
                self._line = rest[:MAX_LINE]
                for line in [*lines, rest]:
                    shown = _printable(line[:MAX_LINE])
                    if shown and not shown.startswith(self._noise):
                        self.last_line = shown

    async def _end(self) -> None:
        """Tell the program, and what it has started in its session's group, to end; after a moment, end it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)
                with trio.move_on_after(TERM_SECONDS if number == signal.SIGTERM else math.inf):
                    await self._wait()


def _printable(line: bytes) -> str:
    """Return a line without what could forge others in the log."""
    text = line.decode("utf-8", "replace").strip()
    return "".join(character if character.isprintable() else "?" for character in text)
