"""The real ``ipnctl`` in a process of its own, run to its end or in the background."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from ipn import admin
from tests.running import RunningDaemon
from tests.waiting import eventually

IPNCTL: Final = (sys.executable, "-m", "ipnctl")
INSTALLED: Final = Path(sys.executable).with_name("ipnctl")
"""The same as a console script."""
AS_NOBODY: Final = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
"""Put before a command: makes it run as another user, without groups."""
SECONDS: Final = 20.0
"""No command here takes longer, however busy the machine."""


@attrs.frozen
class Ran:
    """A command that has ended: its exit status and what it wrote."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    @property
    def objects(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def ok(self) -> Ran:
        """Assert that it succeeded and had nothing to say; return it."""
        assert (self.status, self.err) == (0, "")
        return self

    def failed(self, *words: str) -> Ran:
        """Assert that it failed with one line on stderr, with ``words`` in it, and nothing on stdout."""
        assert self.status == 1, self
        assert self.out == b""
        assert self.err.startswith("ipnctl: "), self.err
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err
        return self


@attrs.define(eq=False)
class Started:
    """A command that runs; what it writes goes to files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait_for(self, test: Callable[[bytes], object], what: str = "the output") -> None:
        """Wait until ``test`` holds for what it has written to stdout."""
        eventually(lambda: test(self.out.read_bytes()), SECONDS, f"{what} never came; {self._so_far()}")

    def wait_for_word(self, text: str) -> None:
        """Wait until ``text`` is on its stderr."""
        eventually(lambda: text in self.err.read_text(), SECONDS, f"it never said {text!r}; {self._so_far()}")

    def feed(self, data: bytes) -> None:
        """Write to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def interrupt(self) -> Ran:
        """Press Ctrl-C; return how it ended."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> Ran:
        """Wait for its end, its stdin at an end, and return it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        status = self.process.wait(SECONDS)
        return Ran(status, self.out.read_bytes(), self.err.read_text())

    def _so_far(self) -> str:
        return f"out {self.out.read_bytes()[:1000]!r}, err {self.err.read_text()!r}"


@attrs.define(eq=False)
class Ipnctl:
    """Runs ``ipnctl`` against a daemon."""

    daemon: RunningDaemon
    started: list[Started] = attrs.field(factory=list)

    def path(self, name: str) -> str:
        """Return the path of a network called ``name``."""
        return self.daemon.path(name)

    def run(self, *arguments: str, stdin: bytes | None = None, prefix: tuple[str, ...] = ()) -> Ran:
        """Run a command to its end."""
        done = subprocess.run(
            [*prefix, *IPNCTL, *arguments],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env=self.daemon.env,
            timeout=SECONDS,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr.decode())

    def start(self, *arguments: str, prefix: tuple[str, ...] = (), **more: Any) -> Started:
        """Start a command whose stdin is a pipe; ``more`` is for ``Popen``."""
        number = len(self.started)
        out, err = (self.daemon.directory / f"{kind}-{number}" for kind in ("out", "err"))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [*prefix, *IPNCTL, *arguments],
                **{"stdin": subprocess.PIPE, "stdout": out_file, "stderr": err_file, "env": self.daemon.env, **more},
            )
        self.started.append(Started(process, out, err))
        return self.started[-1]

    def receiver(self, path: str, *options: str) -> Started:
        """Start ``recv`` and return when the network counts it as a reader."""
        before = admin.show_network(path)["readers"]
        command = self.start("recv", path, *options)
        wait_for_readers(path, before + 1)
        return command

    def close(self) -> None:
        """Kill what still runs."""
        for command in self.started:
            if command.process.poll() is None:
                command.process.kill()
            command.process.wait()
            if command.process.stdin is not None:
                command.process.stdin.close()


def wait_for_readers(path: str, count: int) -> None:
    """Wait until ``count`` members receive on the network."""
    eventually(lambda: admin.show_network(path)["readers"] == count, SECONDS, f"{path} never had {count} readers")
