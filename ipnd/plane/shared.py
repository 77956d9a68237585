"""Links that share one socket: members told apart by their address, with no descriptor of their own.

Whoever owns the socket reads it, tells whose each frame is, and calls ``take``. Writing goes frame by frame to the
address. No loop tells when such a socket takes more for one of its addresses, so a full one is tried again after a
moment.
"""

from __future__ import annotations

import time
from typing import Final

from .batch import Ends
from .links import Joint, VirtualLink
from .packet import MessageWriting

RETRY_NS: Final = 1_000_000
"""Nanoseconds after which a member whose queue in the kernel was full is tried again …"""
LONGEST_RETRY_NS: Final = 32_000_000
"""… and at most, since each time that it still takes nothing doubles them: one that is stuck for good costs little."""


MAX_WAITING: Final = 1024 * 1024
"""Bytes that one member's frames may wait for room on a lossless network; who cannot hold it back drops the rest."""


class Share(Joint):
    """A member's share of a socket: the endpoint of its link. Who can hold members back overrides ``hold``."""

    def put(self, message: memoryview) -> None:
        """Send one frame to the member. BlockingIOError when it takes none now."""
        raise NotImplementedError

    def hold(self, hold: bool) -> None:
        """The network takes nothing more from the member for now, or does again."""


class SharedLink(MessageWriting, VirtualLink):
    """A member behind a socket that others share. ``sock``: its ``Share``."""

    sock: Share
    _retrying = False
    _retry_ns = RETRY_NS
    _held = False

    def put(self, message: memoryview) -> None:
        """Send one frame to the member."""
        self.sock.put(message)

    def take(self, view: memoryview, ends: Ends, run_at: int = 0) -> None:
        """Hand on a run of frames that came from the member; ``run_at``: where it lies in the plane's scratch."""
        if not self.reading or self.sock.fileno() < 0:
            return
        if self.backlog is not None and len(self.backlog[0]) > MAX_WAITING:
            self.delivery.rules.drop("no room, and a sender that cannot be held back", len(ends))
            return
        self.run_at = run_at
        self.delivery.forward(self, view, ends)

    def wanted(self, read: bool, write: bool) -> None:
        """Hold the member back or not; try again soon what did not fit."""
        held = self.reading and not read
        if held != self._held:
            self._held = held
            self.sock.hold(held)
        if write and not self._retrying:
            self._retrying = True
            self.plane.call_at(time.monotonic_ns() + self._retry_ns, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        if self.sock.fileno() < 0 or not self.queue:
            return
        before = self.queue[0], self.queue[0].offset
        self.flush()
        self.delivery.bury()
        still = bool(self.queue) and (self.queue[0], self.queue[0].offset) == before
        self._retry_ns = min(2 * self._retry_ns, LONGEST_RETRY_NS) if still else RETRY_NS
        if self.queue and self.sock.fileno() >= 0:
            self.wanted(self.may_read(), True)

    def read(self) -> None:
        """Nothing is read here: whoever owns the socket brings the frames."""

    def drain(self) -> None:
        """Nothing of the member's lies here."""
        self.delivery.gone(self)
