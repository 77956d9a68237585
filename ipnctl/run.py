"""``ipnctl run``: a program written for AF_IPN, under a supervisor that is the kernel's AF_IPN to it."""

from __future__ import annotations

import array
import os
import resource
import select
import shutil
import signal
import socket
import stat
import sys
import threading
from typing import Final

import click

from ipn.abi import AF_IPN, DEFAULT_MTU, MAX_MTU

from . import child
from .errors import Failure

FAMILIES: Final = (AF_IPN, 33, 13)
"""As proposed in 2007, and as the module that came later had it."""
TAKEN: Final = frozenset({1, 2, 10, 16, 17})
"""Families that programs cannot do without: unix, IPv4, IPv6, netlink, packet."""
AT_ONCE: Final = 0.1
"""Seconds in which the supervisor notices that nobody is left."""
CAPABILITIES: Final = "security.capability"


def _families(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Return the numbers in a list with commas."""
    words = [word.strip() for word in value.split(",")]
    if not all(word.isascii() and word.isdecimal() and 0 < int(word) < 256 for word in words):
        raise click.BadParameter(f"{value!r} is no list of address families such as 34,33,13", ctx, param)
    families = tuple(dict.fromkeys(map(int, words)))
    if wrong := TAKEN.intersection(families):
        raise click.BadParameter(f"{min(wrong)} is an address family that programs need for what it is", ctx, param)
    return families


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--family",
    "families",
    metavar="N,…",
    default=",".join(map(str, FAMILIES)),
    show_default=True,
    callback=_families,
    help="Address families that are AF_IPN to the program.",
)
@click.option(
    "--mtu",
    type=click.IntRange(1, MAX_MTU),
    default=DEFAULT_MTU,
    show_default=True,
    help="Longest message that goes to the network without a look at its length, in bytes.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- PROGRAM [ARGS]...")
def run(families: tuple[int, ...], mtu: int, command: tuple[str, ...]) -> None:
    """Run PROGRAM, written for AF_IPN, as if the kernel had it.

    Its sockets of that family are sockets of IPN networks, in all its processes; all else it does is left alone.
    It needs no privilege, and PROGRAM gains none either: set-user-ID programs run with your rights. Its exit status
    is passed on when all its processes have ended.
    """
    from .programs import filter, seccomp
    from .programs.machine import MACHINES
    from .programs.supervisor import Supervisor

    machine = MACHINES.get(os.uname().machine)
    if machine is None or sys.maxsize < 2**32:
        raise Failure(f"ipnctl run knows the machines {' and '.join(MACHINES)} (64 bit), not {os.uname().machine}")
    _refuse_privileged(command[0])
    try:
        seccomp.require_support(machine)
    except OSError as error:
        raise Failure(str(error.strerror)) from None
    program = filter.build(machine, families, mtu)
    ours, theirs = socket.socketpair()
    supervising: list[tuple[threading.Thread, int]] = []

    def prepare() -> None:
        listener = seccomp.install(machine, program, filter.INSTRUCTION.size)
        theirs.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])

    def started() -> None:
        theirs.close()
        if (listener := _received(ours)) is not None:
            _have_room()
            thread = threading.Thread(target=Supervisor(machine, listener, families).serve, daemon=True)
            thread.start()
            supervising.append((thread, listener))

    child.adopt()  # what a daemon's parent has left behind stays a descendant, into which Yama lets us look
    status = child.run(command, prepare, started)
    for thread, listener in supervising:
        _wait_for_the_others(thread, listener)
    sys.exit(status)


def _have_room() -> None:
    """Raise our limit of descriptors: each socket of the program's takes some of ours. The program keeps its own."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _wait_for_the_others(supervising: threading.Thread, listener: int) -> None:
    """Stay until the last process that PROGRAM has left behind has ended, or a signal ends us.

    The listener tells (POLLHUP); the supervisor may just be waiting for somebody who does not answer.
    """
    child.reap()
    supervising.join(AT_ONCE)
    if supervising.is_alive():
        signal.signal(signal.SIGCHLD, lambda number, frame: child.reap())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, child.PASSED_ON | {signal.SIGCHLD})
        child.reap()
        poll = select.poll()
        poll.register(listener, 0)
        poll.poll()
        supervising.join(AT_ONCE)


def _received(sock: socket.socket) -> int | None:
    """Return the descriptor that comes; None when the other end has gone without sending one."""
    with sock:
        _, fds, _, _ = socket.recv_fds(sock, 1, 1)
    return fds[0] if fds else None


def _refuse_privileged(name: str) -> None:
    """Refuse a program that would gain privileges: it could not, and would fail in ways that nobody understands."""
    path = shutil.which(name)
    if path is None or os.geteuid() == 0:
        return
    mode = os.stat(path).st_mode
    gains = "set-user-ID" if mode & stat.S_ISUID else "set-group-ID" if mode & stat.S_ISGID else ""
    if not gains and _has_capabilities(path):
        gains = "file capabilities"
    if gains:
        text = f"{path} gains privileges ({gains}), which nothing can under ipnctl run (no_new_privs); run it as root"
        raise Failure(text)


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, CAPABILITIES))
    except OSError:
        return False

