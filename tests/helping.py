"""A real ipn-helper in a process of its own, and its clients: root from within the test, others from a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from ipn.channel import close_all
from tests.running import START_SECONDS, RunningDaemon

ROOT: Final = Path(__file__).parent.parent
HELPER: Final = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from ipnd.netdev import helper, helper_server
helper_server.PATIENCE = float(sys.argv.pop(1))
helper.main()
"""
"""The helper without site-packages, so that it can import nothing but the standard library and us."""

CLIENT: Final = """
import json, os, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.settimeout(10)
sock.connect(sys.argv[1])
sock.send(sys.argv[2].encode())
data, fds, _, _ = socket.recv_fds(sock, 1 << 20, 16)
print(json.dumps([json.loads(data), [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]]))
"""

MAX_ANSWER: Final = 1 << 20


@attrs.define(eq=False)
class RunningHelper(RunningDaemon):
    """An ipn-helper in the test's network namespace, with its socket ``directory``/helper and its rules
    ``directory``/helper.toml (see ``set_rules``). ``patience``: seconds that a connection may be silent.
    """

    patience: float = 10.0
    address: str = attrs.field(init=False)
    rules_path: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.address = str(self.directory / "helper")
        self.rules_path = self.directory / "helper.toml"
        self.env["IPN_HELPER"] = self.address

    def start(self) -> None:
        """Start the helper and return when it says that it is ready."""
        self._log_ended = self._ended = False
        start = len(self.log)
        options = ["--socket", self.address, "--rules", str(self.rules_path), *self.arguments]
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "-S", "-E", "-c", HELPER, str(self.patience), *options],
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

    def set_rules(self, text: str, mode: int = 0o644) -> None:
        """Write the rules file."""
        self.rules_path.write_text(text)
        self.rules_path.chmod(mode)

    def ask(self, **request: Any) -> tuple[dict[str, Any], list[int]]:
        """Send one request on a connection of its own, as root; return the answer and its descriptors."""
        with self.connected() as sock:
            return exchange(sock, json.dumps(request).encode())

    def refusal(self, **request: Any) -> tuple[str, str]:
        """Send a request that must be refused and return the error's name and words."""
        answer, fds = self.ask(**request)
        close_all(fds)
        assert "error" in answer, f"{request} was granted: {answer}"
        return answer["error"]["errno"], answer["error"]["message"]

    def ask_as(self, user: tuple[str, ...], **request: Any) -> tuple[dict[str, Any], list[str]]:
        """Let a process of another user (``peers.as_user``) ask; return the answer and what its descriptors were."""
        command = [*user, sys.executable, "-S", "-E", "-c", CLIENT, self.address, json.dumps(request)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        answer, fds = json.loads(done.stdout)
        return answer, fds

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """Give a connection of root's."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(self.address)
            sock.settimeout(10)
            yield sock


def exchange(sock: socket.socket, message: bytes) -> tuple[dict[str, Any], list[int]]:
    """Send ``message`` and return the answer and its descriptors; no answer at all is an empty one."""
    sock.send(message)
    data, fds, _, _ = socket.recv_fds(sock, MAX_ANSWER, 16)
    answer: dict[str, Any] = json.loads(data) if data else {}
    return answer, fds


PREAMBLE: Final = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import fcntl, os, socket, struct
from ipn.helper import *
from ipn.netdev import *
def attempt(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except OSError as error:
        return type(error).__name__, error.errno, error.strerror
"""


def python(prefix: tuple[str, ...], code: str, *, fds: tuple[int, ...] = (), helper: str = "/nowhere/helper") -> str:
    """Run ``code`` with our library in another process, ``prefix`` before it, and return what it printed.

    ``attempt(call, …)`` in it makes an ``OSError`` a tuple; ``helper`` is where the library looks for ipn-helper.
    """
    done = subprocess.run(
        [*prefix, sys.executable, "-S", "-c", PREAMBLE + code],
        capture_output=True,
        text=True,
        timeout=30,
        pass_fds=fds,
        cwd="/",
        env={**os.environ, "IPN_HELPER": helper},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
