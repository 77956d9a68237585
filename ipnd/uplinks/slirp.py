"""An uplink by a program that ipnd starts: slirp4netns, or passt where that is not installed. Neither needs root.

slirp4netns listens on a SEQPACKET socket, for which ipnd makes a directory that is gone as soon as it is connected; it
would not notice that ipnd has died, so it also gets a descriptor that tells it (``--exit-fd``). passt gets its end of a
stream and leaves when that closes; it tells that it is ready by writing its process number to a pipe.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Final

import trio

from ipnd.access import Peer
from ipnd.attempting import AttemptingFixture, EndingPackets, EndingStream, connect_as
from ipnd.fixture import refuse_unknown
from ipnd.ownership import acting_as
from ipnd.plane.links import Link
from ipnd.supervisor import Child, search_path

PROGRAMS: Final = ("slirp4netns", "passt")
"""Those that can be it, the better one first: slirp4netns takes many guests."""
ETHERNET: Final = 14
"""Bytes of an Ethernet header, which an MTU does not count."""
USUAL_MTU: Final = 1500
MIN_MTU, MAX_MTU = 68, 65520
"""Bytes of an IPv4 packet (RFC 791); the most that both programs take."""
LONGEST_PREFIX: Final = 25
"""slirp4netns needs a network with at least 128 addresses."""
READY_SECONDS: Final = 10.0
"""Seconds that a program may take until it is ready."""
LOOK_SECONDS: Final = 0.01
"""Seconds between two looks whether slirp4netns listens: it says so in no other way."""
NOISE: Final = ("Failed to send",)
"""Lines that tell nothing: passt where no syslog runs."""
OPTIONS: Final = ("program", "cidr", "mtu", "host")


class SlirpUplink(AttemptingFixture):
    """slirp4netns or passt; there is one such uplink for each network, and its address is ``slirp``.

    Options: ``program``; ``cidr``, of slirp4netns; ``mtu`` in bytes; ``host``: whether guests reach its 127.0.0.1.
    """

    group = "uplink"
    kind = "slirp"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"slirp": EndingPackets, "passt": EndingStream}

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL for options that make no sense, and for an address other than ``slirp``."""
        refuse_unknown(cls.kind, options, OPTIONS)
        if address not in ("", "slirp"):
            raise OSError(errno.EINVAL, f"an uplink of the kind slirp has no address, but {address!r} was given")
        _check_options(options)
        return "slirp"

    def start(self) -> None:
        """Start the program. ENOENT when it is not installed, EINVAL when the network's frames are too short for it."""
        self._program()
        if self._mtu() + ETHERNET > self.network.options.mtu:
            text = (
                f"an MTU of {self._mtu()} needs frames of {self._mtu() + ETHERNET} bytes, and {self.network.path} takes"
                f" {self.network.options.mtu}"
            )
            raise OSError(errno.EINVAL, text)
        super().start()

    def _program(self) -> str:
        """Return the program to run."""
        wanted = self.options.get("program")
        known = (wanted,) if wanted else PROGRAMS[:1] if self.options.get("cidr") else PROGRAMS
        for program in known:
            if shutil.which(program, path=search_path()):
                return str(program)
        what = f"neither {' nor '.join(known)} is" if len(known) > 1 else f"{known[0]} is not"
        raise FileNotFoundError(errno.ENOENT, f"{what} installed on the host of ipnd")

    def _mtu(self) -> int:
        given: int | None = self.options.get("mtu")
        return given or max(MIN_MTU, min(USUAL_MTU, self.network.options.mtu - ETHERNET))

    async def attempt(self, up: Callable[[], None]) -> str:
        """Run the program and be connected to it, until it ends."""
        ways: dict[str, Callable[[Callable[[], None]], Awaitable[str]]] = {
            "slirp4netns": self._slirp4netns,
            "passt": self._passt,
        }
        return await ways[self._program()](up)

    async def _slirp4netns(self, up: Callable[[], None]) -> str:
        with ExitStack() as stack, _Pipe() as ready, _Pipe() as leave:
            directory = stack.enter_context(_directory_of(self.peer))
            command = [
                "slirp4netns", "--target-type=bess", f"--mtu={self._mtu()}",
                f"--ready-fd={ready.write}", f"--exit-fd={leave.read}",
            ]  # fmt: skip
            command += [f"--cidr={self.options['cidr']}"] if self.options.get("cidr") else []
            command += [] if self.options.get("host", True) else ["--disable-host-loopback"]
            path = f"{directory}/bess"
            async with Child([*command, path], self.peer, pass_fds=(ready.write, leave.read)) as child:
                ready.close_write()
                leave.close_read()

                async def work() -> str:
                    sock = await self._connected(path, ready, child)
                    stack.close()
                    return await self.serve("slirp", sock, child.pid, child.name, up)

                try:
                    return await child.during(work)
                finally:
                    self.leave(f"{child.name} has ended")

    async def _connected(self, path: str, ready: _Pipe, child: Child) -> socket.socket:
        """Return the connection to slirp4netns once it is ready."""
        with _in_time(child):
            while True:
                try:
                    sock = connect_as(self.peer, socket.SOCK_SEQPACKET, path)
                except (FileNotFoundError, ConnectionRefusedError):
                    await trio.sleep(LOOK_SECONDS)
                    continue
                try:
                    await ready.wait()
                except BaseException:
                    sock.close()
                    raise
                return sock

    async def _passt(self, up: Callable[[], None]) -> str:
        ours, theirs = socket.socketpair()
        with ours, theirs, _Pipe() as ready:
            os.fchmod(ready.write, 0o666)  # passt of root's opens it as nobody
            command = [
                "passt", "--foreground", "--stderr", "--quiet", f"--mtu={self._mtu()}",
                f"--fd={theirs.fileno()}", f"--pid=/proc/self/fd/{ready.write}",
            ]  # fmt: skip
            command += [] if self.options.get("host", True) else ["--no-map-gw"]
            pass_fds = (theirs.fileno(), ready.write)
            async with Child(command, self.peer, pass_fds=pass_fds, noise=NOISE) as child:
                theirs.close()
                ready.close_write()

                async def work() -> str:
                    with _in_time(child):
                        await ready.wait()
                    return await self.serve("passt", ours, child.pid, child.name, up)

                try:
                    return await child.during(work)
                finally:
                    self.leave(f"{child.name} has ended")


def _check_options(options: Mapping[str, Any]) -> None:
    program, cidr, mtu, host = (options.get(name) for name in OPTIONS)
    if program not in (None, *PROGRAMS):
        raise OSError(errno.EINVAL, f"'program' must be one of {', '.join(PROGRAMS)}, not {program!r}")
    if mtu is not None and not (type(mtu) is int and MIN_MTU <= mtu <= MAX_MTU):
        raise OSError(errno.EINVAL, f"'mtu' must be a number from {MIN_MTU} to {MAX_MTU}, not {mtu!r}")
    if host not in (None, True, False):
        raise OSError(errno.EINVAL, f"'host' must be true or false, not {host!r}")
    if cidr is not None:
        _check_cidr(cidr)
        if program == "passt":
            raise OSError(errno.EINVAL, "passt has the addresses of its host, so that 'cidr' is for slirp4netns only")


def _check_cidr(cidr: object) -> None:
    try:
        network = ipaddress.IPv4Network(cidr if isinstance(cidr, str) else "")
        if "/" in str(cidr) and network.prefixlen <= LONGEST_PREFIX:
            return
    except ValueError:
        pass
    text = f"'cidr' must be an IPv4 network of at most {LONGEST_PREFIX} bits, as in 10.0.2.0/24, not {cidr!r}"
    raise OSError(errno.EINVAL, text)


@contextmanager
def _in_time(child: Child) -> Iterator[None]:
    """ETIMEDOUT when the program is not ready in time."""
    try:
        with trio.fail_after(READY_SECONDS):
            yield
    except trio.TooSlowError:
        text = f"{child.name} was not ready within {READY_SECONDS:.0f} s"
        raise TimeoutError(errno.ETIMEDOUT, text) from None


@contextmanager
def _directory_of(peer: Peer) -> Iterator[str]:
    """Give a directory that only ``peer`` can look into, removed at the end with what is in it."""
    with acting_as(peer.uid, peer.gid):
        directory = tempfile.mkdtemp(prefix="ipn-slirp-")
    try:
        yield directory
    finally:
        with acting_as(peer.uid, peer.gid):
            shutil.rmtree(directory, ignore_errors=True)


class _Pipe:
    """A pipe: what a program tells us, or we tell it by closing."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_read()
        self.close_write()

    async def wait(self) -> None:
        """Wait until something has been written. At the end of the pipe, wait for ever: its writer is ending."""
        await trio.lowlevel.wait_readable(self.read)
        if not os.read(self.read, 64):
            await trio.sleep_forever()

    def close_read(self) -> None:
        """Close this end. May be called twice."""
        if self.read >= 0:
            os.close(self.read)
            self.read = -1

    def close_write(self) -> None:
        """Close this end. May be called twice."""
        if self.write >= 0:
            os.close(self.write)
            self.write = -1
