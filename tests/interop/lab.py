"""Networks for real peers, and the recipes of docs/interop.md run on them, word by word, by a shell.

A recipe's words that begin with ``$`` are environment variables: ``$NET``, the network's path; ``$DIR``, ``$DGRAM``
and ``$SEQPACKET``, those of its gateways; and what the peer needs besides.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from ipn import admin
from tests.guests import Guest, qemu_options, uml_environment, uml_options
from tests.lab import SBIN
from tests.running import RunningDaemon
from tests.waiting import eventually

from . import document

SECONDS: Final = 30.0
OUR_PROGRAMS: Final = os.path.dirname(sys.executable)


@attrs.define(eq=False)
class Network:
    """A network with all gateways, made by the document's own recipe. Its files are in ``directory``."""

    daemon: RunningDaemon
    directory: Path
    prefix: tuple[str, ...] = ()
    running: list[subprocess.Popen[bytes]] = attrs.field(factory=list)
    guests: dict[str, Guest] = attrs.field(factory=dict)

    def make(self) -> None:
        """Make it."""
        self.run("network")

    @property
    def path(self) -> str:
        """The path of the network."""
        return str(self.directory / "net")

    def environment(self, **more: object) -> dict[str, str]:
        """Return the environment of a recipe; ``more``: its variables that are not the network's."""
        own = {"NET": self.path, "PATH": f"{OUR_PROGRAMS}{os.pathsep}{SBIN}"}
        own |= {name.upper(): str(self.directory / name) for name in ("dir", "dgram", "seqpacket")}
        return {**self.daemon.env, **own, **{name: str(value) for name, value in more.items()}}

    def _command(self, recipe: str, prefix: Sequence[str] = ()) -> list[str]:
        return [*self.prefix, *prefix, "sh", "-c", document.recipes(document.read())[recipe].strip()]

    # -- programs --------------------------------------------------------------------------------------------------

    def start(self, recipe: str, prefix: Sequence[str] = (), **more: object) -> subprocess.Popen[bytes]:
        """Start a recipe, with pipes for its standard input and output; it is killed at the end with all it started.

        ``prefix`` is put before the shell.
        """
        process = subprocess.Popen(
            self._command(recipe, prefix),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=self.environment(**more),
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def run(self, recipe: str, stdin: str = "", prefix: Sequence[str] = (), **more: object) -> str:
        """Run a recipe to its end, which must be a good one, and return what it wrote."""
        done = subprocess.run(
            self._command(recipe, prefix),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=self.environment(**more),
            check=False,
        )
        assert done.returncode == 0, f"{recipe}: {done.stdout}{done.stderr}"
        return done.stdout

    def boot(self, recipe: str, name: str, address: str) -> Guest:
        """Boot a guest by a recipe. It goes on in the background; ``address``: 10.0.0.1/24."""
        directory = self.directory / name
        own: dict[str, str] = {}
        if recipe.startswith("qemu"):
            options = qemu_options(directory, address)
        else:
            options = uml_options(directory, address)
            own = uml_environment(directory)
        mac = f"52:54:00:00:00:{len(self.guests) + 1:02x}"
        variables = self.environment(GUEST=" ".join(options), MAC=mac, OWN=directory / "socket")
        self.guests[name] = Guest(self._command(recipe), directory, {**variables, **own})
        return self.guests[name]

    # -- looking at it ---------------------------------------------------------------------------------------------

    def ports(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the members of some kinds."""
        return [port for port in admin.show_network(self.path)["ports"] if port["kind"] in kinds]

    def wait_for_ports(self, kind: str, count: int) -> None:
        """Wait until there are ``count`` members of a kind."""
        eventually(lambda: len(self.ports(kind)) == count, SECONDS, f"{self.path} never had {count} ports of {kind}")

    def close(self) -> None:
        """End all that was started on it."""
        for guest in self.guests.values():
            guest.close()
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
