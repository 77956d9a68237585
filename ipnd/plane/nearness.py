"""Staying near: in bulk traffic to one receiver the daemon moves to the processor that the receiver is on.

Nine tenths of the daemon's time in bulk traffic are the kernel's, copying frames and recycling memory. When sender,
daemon and receiver run on different processors, all of it travels between their caches twice; on the receiver's
processor once, and a frame costs a quarter less. The scheduler does not know that. So every ``PERIOD_NS`` the daemon
looks where the receiver is, and how long it had to wait for the processor itself (/proc/self/schedstat,
sched-stats.rst); when that is too long, the processor is too busy for two, and it keeps away for a while. When the
traffic ends it may run anywhere again.

Large frames that go to an interface are worked on by the host's stack in the daemon's own time: then near means to
stay where it is, rather than be moved about between the processors of the programs at both ends.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

PERIOD_NS: Final = 20_000_000
"""How often to look."""
MOST_WAITING: Final = 0.45
"""Part of the time that the daemon may wait for the processor it shares; a receiver in C takes about a fifth."""
BACK_OFF_NS: Final = 500_000_000
"""How long to keep away after it was too long; doubled each time, up to ``MOST_BACK_OFF_NS``."""
MOST_BACK_OFF_NS: Final = 60_000_000_000


class Nearness:
    """Decides which processors the daemon's process runs on; it never leaves those it was allowed at its start."""

    def __init__(self) -> None:
        self._allowed = os.sched_getaffinity(0)
        self._near = -1
        self._next = 0
        self._waited = 0
        self._back_off = BACK_OFF_NS
        self._useful = len(self._allowed) > 1

    @property
    def near(self) -> bool:
        """Whether the daemon has moved to a receiver's processor."""
        return self._near >= 0

    @property
    def next_ns(self) -> int:
        """When the current period is over."""
        return self._next

    def consider(self, now_ns: int, receiver_pid: int) -> bool:
        """Look after the placement, if a period is over; ``receiver_pid``: of bulk traffic's one receiver in it, or 0.

        Return whether a new period begins.
        """
        if now_ns < self._next or not self._useful:
            return False
        late = now_ns - self._next
        self._next = now_ns + PERIOD_NS
        if not receiver_pid:
            self.leave()
            return True
        with contextlib.suppress(OSError, ValueError, IndexError):
            waited = _waited_ns()
            if self._near >= 0 and late < PERIOD_NS and waited - self._waited > MOST_WAITING * (PERIOD_NS + late):
                self._keep_away(now_ns)
                return True
            self._waited = waited
            self._move_to(_processor_of(receiver_pid))
        return True

    def _move_to(self, processor: int) -> None:
        if processor != self._near and processor in self._allowed:
            os.sched_setaffinity(0, {processor})
            self._near = processor

    def _keep_away(self, now_ns: int) -> None:
        self.leave()
        self._next = now_ns + self._back_off
        self._back_off = min(2 * self._back_off, MOST_BACK_OFF_NS)

    def leave(self) -> None:
        """Run anywhere again."""
        if self._near >= 0:
            os.sched_setaffinity(0, self._allowed)
            self._near = -1


def _waited_ns() -> int:
    with open("/proc/self/schedstat", "rb", buffering=0) as file:
        return int(file.read().split()[1])


def _processor_of(pid: int) -> int:
    """Return the processor a process last ran on (proc(5), field 39 of stat)."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        return int(file.read().rpartition(b")")[2].split()[36])
