"""How long a whole run of ``ipnctl`` takes, from its start to its end."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from typing import Final

from pairing import Figures, Measure, MeasureError
from peers import IPNCTL, Bench

FEWEST: Final = 3
"""Runs that are measured at least."""


def launches(*arguments: str) -> Measure:
    """Measure ``ipnctl`` with ``arguments``, again and again. Figures: wall, cpu (s, medians)."""
    command = [*IPNCTL, *arguments]

    def measure(bench: Bench) -> Figures:
        _run(command)  # what the first one brings into the page cache is not measured
        end = time.monotonic() + bench.seconds
        walls: list[float] = []
        cpus: list[float] = []
        while len(walls) < FEWEST or time.monotonic() < end:
            start, used = time.monotonic(), _cpu()
            _run(command)
            walls.append(time.monotonic() - start)
            cpus.append(_cpu() - used)
        return {"wall": statistics.median(walls), "cpu": statistics.median(cpus)}

    return measure


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasureError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")


def _cpu() -> float:
    """Return the CPU time of all children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
