"""Staying near the one receiver of bulk traffic, and going away when the processor is too busy for two."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import ipn
from ipnd.plane.nearness import BACK_OFF_NS, PERIOD_NS, Nearness
from tests.running import RunningDaemon
from tests.waiting import eventually

ALLOWED = os.sched_getaffinity(0)
several = pytest.mark.skipif(len(ALLOWED) < 2, reason="one processor is all there is")


@pytest.fixture
def nearness() -> Iterator[Nearness]:
    yield Nearness()
    os.sched_setaffinity(0, ALLOWED)


def busy(processor: int) -> subprocess.Popen[bytes]:
    code = f"import os; os.sched_setaffinity(0, {{{processor}}})\nprint(flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@several
def test_it_moves_to_where_the_receiver_is_and_back_when_the_traffic_ends(nearness: Nearness) -> None:
    processor = max(ALLOWED)
    receiver = busy(processor)
    try:
        assert nearness.consider(PERIOD_NS, receiver.pid)
        assert os.sched_getaffinity(0) == {processor}
        assert not nearness.consider(PERIOD_NS + 1, 0), "the period is not over"
        assert nearness.consider(3 * PERIOD_NS, 0)
        assert os.sched_getaffinity(0) == ALLOWED
    finally:
        receiver.kill()
        receiver.communicate()


@several
def test_it_keeps_away_from_a_processor_that_is_too_busy_for_two(nearness: Nearness) -> None:
    receivers = [busy(max(ALLOWED)) for _ in range(3)]
    try:
        now = PERIOD_NS
        nearness.consider(now, receivers[0].pid)

        def driven_away() -> bool:
            nonlocal now
            for _ in range(200_000):
                pass  # it must want the processor to have to wait for it
            now += PERIOD_NS
            nearness.consider(now, receivers[0].pid)
            return os.sched_getaffinity(0) == ALLOWED

        eventually(driven_away, 10)
        nearness.consider(now + BACK_OFF_NS // 2, receivers[0].pid)
        assert os.sched_getaffinity(0) == ALLOWED, "it comes back later, not at once"
    finally:
        for receiver in receivers:
            receiver.kill()
            receiver.communicate()


def test_a_receiver_that_is_gone_changes_nothing(nearness: Nearness) -> None:
    nearness.consider(PERIOD_NS, 2**22 + 1)
    assert os.sched_getaffinity(0) == ALLOWED


def test_after_bulk_traffic_the_daemon_may_run_anywhere_again(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, lossless=True), ipn.connect(path) as a, ipn.connect(path, timeout=10) as b:
        sender = threading.Thread(target=lambda: [a.send_many([bytes(1500)] * 100) for _ in range(100)])
        sender.start()
        heard = 0
        while heard < 10_000:
            heard += len(b.recv_many())
        sender.join()
        a.send(b"a word")
        eventually(lambda: os.sched_getaffinity(ipnd.process.pid) == ALLOWED)
