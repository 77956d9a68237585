"""A real ipnd in a process of its own, for tests that drive it from outside."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

START_SECONDS: Final = 15.0
END_SECONDS: Final = 5.0
"""SIGTERM ends a daemon within so long, whatever its members do."""

NOT_FOR_THE_DAEMON: Final = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def clean_environment(control: str) -> dict[str, str]:
    """Return an environment in which programs find the daemon at ``control`` and start none of their own."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_FOR_THE_DAEMON}
    return {**kept, "IPND_SOCKET": control, "IPN_AUTOSTART": "0"}


@attrs.define(eq=False)
class RunningDaemon:
    """An ipnd whose control socket is ``directory``/control. ``arguments`` are added to its command line,
    ``prefix`` is put before it (``setpriv …``), ``pass_fds`` are inherited. Change ``env`` before ``start``.
    """

    directory: Path
    arguments: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    pass_fds: tuple[int, ...] = ()
    control: str = attrs.field(init=False)
    env: dict[str, str] = attrs.field(init=False)
    log: list[str] = attrs.field(init=False, factory=list)
    process: subprocess.Popen[str] = attrs.field(init=False)
    _news: threading.Condition = attrs.field(init=False, factory=threading.Condition)
    _listener: threading.Thread = attrs.field(init=False)
    _log_ended: bool = attrs.field(init=False, default=False)
    _ended: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.control = str(self.directory / "control")
        self.env = clean_environment(self.control)

    # -- running ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon and return when it says that it is ready."""
        self._log_ended = self._ended = False
        start = len(self.log)
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "ipnd", "--control", self.control, *self.arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.env,
            cwd="/",
            pass_fds=self.pass_fds,
            text=True,
            errors="replace",
        )
        self._listener = threading.Thread(target=self._listen, args=(self.process,), daemon=True)
        self._listener.start()
        self._wait_for_line(lambda line: line == "ready", START_SECONDS, start, "it never said ready")

    def end(self) -> None:
        """End it with SIGTERM; it must do so in time, with exit status 0. Nothing to do when it has ended."""
        if self._ended:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"ipnd did not end within {END_SECONDS:.0f} s of SIGTERM{self._told()}")
        self._collect()
        self._ended = True
        assert status == 0, f"ipnd ended with {status}{self._told()}"

    def kill(self) -> None:
        """End it with SIGKILL, as the kernel does when memory runs out."""
        self._ended = True
        self.process.kill()
        self.process.wait()
        self._collect()

    def restart(self) -> None:
        """End it with SIGTERM, unless it was killed, and start it again."""
        self.end()
        self.start()

    def close(self) -> None:
        """End it, and check that it never met a bug of its own."""
        try:
            self.end()
        finally:
            if self.process.poll() is None:
                self.kill()
        assert not any("Traceback" in line for line in self.log), f"ipnd met a bug{self._told()}"

    # -- looking at it ---------------------------------------------------------------------------------------

    def path(self, name: str) -> str:
        """Return the path of ``name`` in the daemon's directory."""
        return str(self.directory / name)

    def wait_for_log(self, text: str, timeout: float = 5.0, start: int = 0) -> str:
        """Return the first line of stderr, from line ``start`` on, with ``text`` in it; fail without one."""
        return self._wait_for_line(lambda line: text in line, timeout, start, f"it never said {text!r}")

    def rss_kib(self) -> int:
        """Return its resident memory in KiB (VmRSS of proc(5))."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def fds(self) -> int:
        """Return how many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._news:
                self.log.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._log_ended = True
            self._news.notify_all()

    def _collect(self) -> None:
        """Take in the last words of a process that has ended."""
        self._listener.join(END_SECONDS)
        if not self._listener.is_alive() and self.process.stderr is not None:
            self.process.stderr.close()

    def _wait_for_line(self, wanted: Callable[[str], bool], timeout: float, start: int, failure: str) -> str:
        def found() -> list[str]:
            return [line for line in self.log[start:] if wanted(line)]

        with self._news:
            self._news.wait_for(lambda: found() or self._log_ended, timeout)
            if lines := found():
                return lines[0]
        status = self.process.poll()
        ended = "" if status is None else f", and has ended with {status}"
        pytest.fail(f"ipnd: {failure}{ended}{self._told()}")

    def _told(self) -> str:
        return "; it said:\n" + "\n".join(self.log[-40:])


@contextlib.contextmanager
def directory_for_all() -> Iterator[Path]:
    """Give a fresh directory, open to all users, with a path short enough for unix sockets (107 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="ipn-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def running_daemon(directory: Path) -> Iterator[RunningDaemon]:
    """Give a running daemon that the library here finds."""
    daemon = RunningDaemon(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPND_SOCKET", daemon.control)
        patch.setenv("IPN_AUTOSTART", "0")
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.close()
