"""Network namespaces of a test's own: the test itself, and the programs it starts, are inside.

    with own_namespace():
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")

Only the calling thread moves. ``/sys`` goes on showing the namespace that it was mounted in.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Final

from tests.lab import SBIN, command
from tests.peers import skip_or_fail
from tests.waiting import eventually

CLONE_NEWNET: Final = 0x40000000
THREAD: Final = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def own_namespace(*, tun: bool = True) -> Iterator[None]:
    """Be in a fresh network namespace until the end. Skips the test where that cannot be had: it needs root.

    ``tun``: the test makes TAPs.
    """
    if os.geteuid() != 0:
        skip_or_fail("needs root")
    if tun and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        skip_or_fail("needs /dev/net/tun")
    before = os.open(THREAD, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(before, CLONE_NEWNET))
    finally:
        os.close(before)


@contextlib.contextmanager
def other_namespace() -> Iterator[str]:
    """Give a second namespace, as what ``ip link set … netns`` takes: the pid of a process that is in it."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "600"], env={**os.environ, "PATH": SBIN})
    try:
        eventually(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink(THREAD))
        yield str(process.pid)
    finally:
        process.kill()
        process.wait()


def ip(*arguments: str) -> str:
    """Run ip(8), which must succeed, and return what it said."""
    return command("ip", *arguments).stdout


def interfaces() -> set[str]:
    """Return the names of the interfaces of this namespace."""
    return {name for _, name in socket.if_nameindex()}


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
