"""A cable to a network of another machine, over ssh: its far end is ``ipnctl plug --hops``, or any command that speaks
VDE's stream.

ssh runs as the user who added the cable, with that user's keys and configuration, and asks nothing. Its standard input
and output are one socket, whose other end becomes a member once the far end has greeted. The far end of another
command is made to greet by the shell there, so that what its login files say is not taken for frames.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import socket
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import trio

from ipn.greeting import GREETING, GreetingDecoder, GreetingError
from ipnd.attempting import AttemptingFixture, EndingLink
from ipnd.fixture import refuse_unknown
from ipnd.plane.hops import CableEnd, HopsLink
from ipnd.plane.links import Link
from ipnd.plane.vdestream import VdeStreamLink
from ipnd.supervisor import Child

from .url import SshUrl, parse_ssh

OPTIONS: Final = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "ControlMaster=no",
    "ControlPath=none",
    "ClearAllForwardings=yes",
    "LogLevel=ERROR",
)
"""ssh_config(5): ask nothing, notice within a minute that the other machine is gone, share nothing with others."""
GREETING_SECONDS: Final = 30.0
"""Seconds from the start of ssh until the far end must have greeted."""
READ_SIZE: Final = 16 * 1024
"""Bytes looked at in one go for the greeting."""
MAX_AGENT: Final = 108
"""Bytes of a socket's path (unix(7))."""


class HopsEnd(EndingLink, HopsLink):
    """The stream to ``ipnctl plug --hops``."""


class VdeStreamEnd(EndingLink, VdeStreamLink):
    """The stream to a command that speaks VDE's."""


class SshCable(AttemptingFixture):
    """A cable to the URL ``address``. ``agent``, an option: the socket of the user's ssh-agent."""

    group = "cable"
    kind = "ssh"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"ssh": HopsEnd, "vdestream": VdeStreamEnd}

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL unless the address is an ssh:// URL and ``agent``, if there is one, can be a socket's path."""
        refuse_unknown(cls.kind, options, ("agent",))
        agent = options.get("agent", "")
        if not isinstance(agent, str) or "\0" in agent or len(os.fsencode(agent)) > MAX_AGENT:
            raise OSError(errno.EINVAL, f"'agent' must be the path of ssh-agent's socket, not {agent!r}")
        return str(parse_ssh(address))

    async def attempt(self, up: Callable[[], None]) -> str:
        """Run ssh, and be a member while the far end is there."""
        url = parse_ssh(self.address)
        agent = {"SSH_AUTH_SOCK": self.options["agent"]} if self.options.get("agent") else {}
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"" if url.plug else GREETING)  # now, as a program that has ended would not take it
            stdio = theirs.fileno()
            async with Child(ssh_command(url), self.peer, stdin=stdio, stdout=stdio, environment=agent) as child:
                theirs.close()

                async def work() -> str:
                    await _greeted(ours)
                    kind = "vdestream" if url.plug else "ssh"
                    return await self.serve(kind, ours, child.pid, child.name, up)

                try:
                    return await child.during(work)
                finally:
                    self.leave(f"{child.name} has ended")

    def show(self) -> dict[str, Any]:
        """Return the cable as ``net show --json`` prints it."""
        link = self._port.link if self._port is not None else None
        looped = link.looped if isinstance(link, CableEnd) else 0
        return {**super().show(), "counts": self.counts | ({"hop limit": looped} if looped else {})}


def ssh_command(url: SshUrl) -> list[str]:
    """Return what to run. ``$IPN_SSH``, of the daemon, is used instead of ssh."""
    command = [os.environ.get("IPN_SSH") or "ssh", "-T"]
    for option in OPTIONS:
        command += ["-o", option]
    command += ["-p", str(url.port)] if url.port else []
    command += ["-l", url.user] if url.user else []
    return [*command, url.host, _remote_command(url)]


def _remote_command(url: SshUrl) -> str:
    """Return the command line for the user's shell on the other machine."""
    if url.plug:
        return f"echo {GREETING.decode().strip()}; {url.plug}"
    return f"ipnctl plug --hops {shlex.quote(url.path)}"


async def _greeted(sock: socket.socket) -> None:
    """Wait until the far end has greeted; leave in the socket what comes behind that. OSError when it does not."""
    decoder = GreetingDecoder()
    try:
        with trio.fail_after(GREETING_SECONDS):
            while not await _heard(sock, decoder):
                pass
    except GreetingError as error:
        raise OSError(errno.EPROTO, str(error)) from None
    except trio.TooSlowError:
        said = f"; the last line it said is {decoder.heard!r}" if decoder.heard else ""
        text = f"the other end did not greet within {GREETING_SECONDS:.0f} s{said}"
        raise TimeoutError(errno.ETIMEDOUT, text) from None


async def _heard(sock: socket.socket, decoder: GreetingDecoder) -> bool:
    """Take in what is there up to the end of the greeting; return whether that has come."""
    await trio.lowlevel.wait_readable(sock)
    data = b""
    with contextlib.suppress(ConnectionError):  # it has gone without having read our greeting
        data = sock.recv(READ_SIZE, socket.MSG_PEEK)
    if not data:
        await trio.sleep_forever()  # the program is about to end, and then says why
    rest = decoder.feed(data)
    sock.recv(len(data) - len(rest or b""), socket.MSG_WAITALL)
    return rest is not None
