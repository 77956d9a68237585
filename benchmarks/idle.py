"""A daemon with nothing to do: its memory, with a thousand members and with a thousand networks, and its rest."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from pairing import Figures, MeasureError
from peers import Bench, Process, daemon, wait_quiet

import ipn

MANY: Final = 1000
REST_SECONDS: Final = 3.0
PATIENCE: Final = 10.0
"""Seconds that a message may take to a member."""


def members(bench: Bench) -> Figures:
    """Measure 1,000 members of one network, joined by ``ipn.connect``.

    Figures: rss (MiB of the daemon alone), member (KiB more a member), reached (members that got a message sent to
    all), rest (ms of CPU in 3 s of silence).
    """
    _allow_descriptors()
    with daemon(bench.scratch) as process, ExitStack() as stack:
        alone = process.rss_kib()
        path = bench.scratch / f"members.{time.monotonic_ns()}"
        sender = stack.enter_context(ipn.bind(path, ports=MANY + 1))
        joined = [stack.enter_context(ipn.connect(path, timeout=PATIENCE)) for _ in range(MANY)]
        wait_quiet([process])
        grown = process.rss_kib() - alone
        rest_ms = _work_at_rest(process)
        sender.connect()
        sender.send(b"to all")
        reached = sum(member.recv() == b"to all" for member in joined)
    return {"rss": alone / 1024, "member": grown / MANY, "reached": reached, "rest": rest_ms}


def networks(bench: Bench) -> Figures:
    """Measure 1,000 networks of two members. Figures: reached (networks that pass a message on), network (KiB each)."""
    _allow_descriptors()
    with daemon(bench.scratch) as process, ExitStack() as stack:
        alone = process.rss_kib()
        pairs = [_pair(stack, bench.scratch / f"n{number}") for number in range(MANY)]
        wait_quiet([process])
        grown = process.rss_kib() - alone
        for sender, _ in pairs:
            sender.send(b"to one")
        reached = sum(receiver.recv() == b"to one" for _, receiver in pairs)
    return {"reached": reached, "network": grown / MANY}


def _pair(stack: ExitStack, path: Path) -> tuple[ipn.Socket, ipn.Socket]:
    sender = stack.enter_context(ipn.bind(path))
    sender.connect()
    return sender, stack.enter_context(ipn.connect(path, timeout=PATIENCE))


def _work_at_rest(process: Process) -> float:
    before = process.cpu_ns()
    time.sleep(REST_SECONDS)
    return (process.cpu_ns() - before) / 1e6


def _allow_descriptors() -> None:
    """Allow as many descriptors as a thousand pairs of sockets take: two each here, and some in passing."""
    wanted = 5 * MANY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise MeasureError(f"the limit of {hard} open files is too low for {MANY} networks (ulimit -Hn {wanted})")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
