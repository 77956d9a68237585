"""Python to Python: messages from one process to others, through ipn and through pyzmq PUB/SUB over ipc://.

Nobody may lose any: the ipn network is lossless; ZeroMQ's publisher waits at its high-water mark instead of dropping
(see ``worker.py``, which is what the processes run).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from pairing import Figures, Measure
from peers import Bench, ipn_network, running

WORKER: Final = Path(__file__).with_name("worker.py")
GRACE_SECONDS: Final = 60.0


def messages(library: str, size: int, receivers: int) -> Measure:
    """Measure ``library`` (a row of ``worker.LIBRARIES``). Figures: rate (messages/s delivered, summed), lost (%)."""

    def measure(bench: Bench) -> Figures:
        with _address(bench, library) as address, ExitStack() as stack:
            started = [
                stack.enter_context(
                    running(
                        bench.scratch,
                        f"{library}-{role}",
                        [sys.executable, str(WORKER), library, role, address, *map(str, arguments)],
                    )
                )
                for role, *arguments in [
                    ("send", size, bench.seconds, receivers),
                    *[("receive",)] * receivers,
                ]
            ]
            sent, *reports = [process.finish(bench.seconds + GRACE_SECONDS) for process in started]
        received = sum(report["received"] for report in reports)
        meant = sent["sent"] * receivers
        seconds = max(report["seconds"] for report in reports)
        return {"rate": received / seconds, "lost": 100 * (meant - received) / meant}

    return measure


def _address(bench: Bench, library: str) -> AbstractContextManager[str]:
    return _network(bench) if library.startswith("ipn") else _endpoint(bench)


@contextmanager
def _network(bench: Bench) -> Iterator[str]:
    with ipn_network(lossless=True)(bench) as switch:
        yield switch.address


@contextmanager
def _endpoint(bench: Bench) -> Iterator[str]:
    yield f"ipc://{bench.scratch}/zmq.{time.monotonic_ns()}"
