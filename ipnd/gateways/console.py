"""The console of a network that is also a VDE switch: a line comes in, its answer goes out, as on vde_switch's.

``console_commands`` knows what may be said; here are the connection and its bounds. The client gets one answer at a
time: while one is being taken nothing is read. Programs that send a command without the end of its line get an answer
as well, after a moment, since vde_switch takes whatever one read brings for a line.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs

from ipn import __version__
from ipnd.access import Peer
from ipnd.plane.plane import Plane
from ipnd.policies.registry import policy_class

from .console_commands import SHUTDOWN, Answer, answer

if TYPE_CHECKING:
    from ipnd.network import Network

log = logging.getLogger("ipnd.console")

GREETING: Final = (f"VDE switch V.{__version__}", "(a network of ipnd)", "")
"""libvdemgmt takes what is between "V." and the end of that line for the version, and needs another line after it."""
PROMPT: Final = b"\nvde$ "
END: Final = b"9999 END OF SESSION"
BEGIN_LINES: Final = "0000 DATA END WITH '.'"
MAX_LINE: Final = 1024
"""Bytes of a line: eight times what vde_switch takes."""
MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer, which wait here for a client that takes them slowly: 50,000 addresses."""
PAUSE_NS: Final = 100_000_000
"""A line is at its end when nothing more comes for so long."""
PATIENCE_NS: Final = 10_000_000_000
"""A client that has taken nothing of its answer for so long loses its connection."""


@attrs.frozen
class NetworkConsole:
    """A network as the user of a console, ``peer``, may see and change it: see ``console_actions.Console``."""

    network: Network
    peer: Peer
    greeting: tuple[str, ...] = GREETING
    pid: int = attrs.field(factory=os.getpid)

    @property
    def maxports(self) -> int:
        """How many ports the network has."""
        return self.network.options.maxports

    def show(self) -> dict[str, Any]:
        """Return what ``net show --json`` prints."""
        return self.network.show()

    def verb(self, name: str, /, **arguments: Any) -> Any:
        """Carry out a request of the policy. Errors: its own, and EPERM for a change without x."""
        return self.network.policy_verb(self.peer, name, arguments)

    def has_settings(self) -> bool:
        """Tell whether anything is set up that a change of policy would lose."""
        return any(self.network.runner.hook("state").values())

    def require_manage(self) -> None:
        """EPERM without x."""
        self.network.require_manage(self.peer)

    def resize(self, maxports: int) -> None:
        """Change the number of ports. Errors: EPERM without x, those of ``Network.resize``."""
        self.require_manage()
        self.network.resize(maxports)
        self.network.configuration_changed()

    def set_policy(self, number: int) -> None:
        """Change the policy. Errors: EPERM without x, those of ``Network.set_policy``."""
        self.require_manage()
        self.network.set_policy(policy_class(number))
        self.network.configuration_changed()

    def put_out(self, number: int) -> None:
        """Have the member on a port leave. EPERM without x."""
        self.require_manage()
        port, why = self.network.ports[number], f"put out by {self.peer} on the console"
        # Afterwards: when it was the last member the network ends, and the console with it, before it has answered.
        self.network.plane.later(lambda: self.network.leave(port, why))


class ConsoleConnection:
    """One connection to the console, for ``peer``. Owns ``sock``; ``on_close`` hears when it has ended."""

    def __init__(
        self, plane: Plane, sock: socket.socket, peer: Peer, network: Network,
        on_close: Callable[[ConsoleConnection], None],
    ) -> None:
        self._plane = plane
        self._sock = sock
        self._peer = peer
        self._network = network
        self._console = NetworkConsole(network, peer)
        self._on_close = on_close
        self._open = True
        self._heard = b""
        self._ended = False  # it will say nothing more
        self._leaving = 0  # the status that ended the session, once its last words are taken
        self._to_say = memoryview("\n".join(GREETING).encode() + PROMPT)
        self._reads = self._steps = 0
        self._waits_for = select.EPOLLOUT
        self._watched = False
        sock.setblocking(False)
        plane.register(sock.fileno(), select.EPOLLOUT, self._ready)
        self._watch()

    def _ready(self, mask: int) -> None:
        """Something has come, or there is room for an answer: one step each time, for others have a turn as well."""
        self._steps += 1
        if self._to_say:
            self._say()
        elif mask & select.EPOLLOUT:
            self._next_line()
        else:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._reads += 1
        self._ended = not data
        self._heard += data
        self._next_line()

    def _next_line(self) -> None:
        """Answer the next line, or wait for its end."""
        line, end, rest = self._heard.partition(b"\n")
        if end or (self._ended and line):
            self._heard = rest
            self._answer(line)
        elif self._ended:
            self.close()
        elif len(line) >= MAX_LINE:
            log.warning("closing the console of %s for %s: a line of more than %d bytes",
                        self._network.created_as, self._peer, MAX_LINE)  # fmt: skip
            self.close()
        else:
            self._wait_for(select.EPOLLIN)
            if line:
                reads = self._reads
                self._plane.call_at(time.monotonic_ns() + PAUSE_NS, lambda: self._paused(reads))

    def _paused(self, reads: int) -> None:
        """Take what has come for a line if nothing has come since."""
        if self._open and reads == self._reads and self._heard and not self._to_say:
            self._heard += b"\n"
            self._wait_for(select.EPOLLOUT)

    def _answer(self, line: bytes) -> None:
        given = answer(self._console, line.decode("utf-8", "replace"))
        if given is not None and given.status < 0:
            self._leaving = given.status
            self._to_say = memoryview(END)
        else:
            self._to_say = memoryview(encode_answer(given) + PROMPT)
        self._wait_for(select.EPOLLOUT)
        self._say()

    def _say(self) -> None:
        """Send what the client takes; a session that is over ends with its last words."""
        try:
            sent = self._sock.send(self._to_say)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has gone
            self.close()
            return
        self._to_say = self._to_say[sent:]
        if self._leaving and not self._to_say:
            self._leave()

    def _leave(self) -> None:
        over = self._leaving == SHUTDOWN
        self.close()
        if over:
            self._network.end(f"shut down by {self._peer} on the console")

    def _wait_for(self, mask: int) -> None:
        """Wait for words, or for room for an answer and then the next line."""
        if mask != self._waits_for:
            self._waits_for = mask
            self._plane.modify(self._sock.fileno(), mask)
        if mask == select.EPOLLOUT and not self._watched:
            self._watch()

    def _watch(self) -> None:
        """See to it that a client that takes nothing does not stay."""
        self._watched = True
        steps = self._steps
        self._plane.call_at(time.monotonic_ns() + PATIENCE_NS, lambda: self._look_again(steps))

    def _look_again(self, steps: int) -> None:
        self._watched = False
        if not self._open or self._waits_for == select.EPOLLIN:
            return
        if steps == self._steps:
            log.warning("closing the console of %s for %s: it does not take its answer",
                        self._network.created_as, self._peer)  # fmt: skip
            self.close()
        else:
            self._watch()

    def close(self) -> None:
        """End the connection. May be called twice."""
        if self._open:
            self._open = False
            self._plane.unregister(self._sock.fileno())
            self._sock.close()
            self._to_say = memoryview(b"")
            self._on_close(self)


def encode_answer(given: Answer | None) -> bytes:
    """Return an answer as it is sent, without the prompt after it; EMSGSIZE takes the place of one that is too long."""
    if given is None:
        return b""
    lines = [] if given.lines is None else [BEGIN_LINES, *map(_printable, given.lines), "."]
    status = f"1{given.status:03} {os.strerror(given.status)}" if given.status else "1000 Success"
    data = "".join(f"{line}\n" for line in (*lines, status)).encode("utf-8", "replace")
    if len(data) <= MAX_ANSWER:
        return data
    text = f"the answer has {len(data)} bytes, too many for a console; ask for one VLAN or port, or use ipnctl"
    return encode_answer(Answer([text], errno.EMSGSIZE))


def _printable(line: str) -> str:
    """Return a line without what could forge others, or drive a terminal."""
    return "".join(character if character.isprintable() else "?" for character in line)
