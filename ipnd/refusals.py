"""Who was turned away from a network: counted, and logged without flooding the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from .access import Peer

if TYPE_CHECKING:
    from .network import Network

log = logging.getLogger("ipnd")

LOGGED_EVERY_NS: Final = 1_000_000_000
"""At most one line a second and network, with the number left out."""


class Refusals:
    """Those of ``network``. ``count``: all since it was made."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._last = self._silent = 0
        self.count = 0

    def refuse(self, who: Peer | str, why: OSError | str) -> None:
        """Count somebody turned away, and say so unless that was just done for another."""
        self.count += 1
        now = time.monotonic_ns()
        if self._last and now - self._last < LOGGED_EVERY_NS:
            self._silent += 1
            return
        more = f" ({self._silent} more refusals before it)" if self._silent else ""
        text = why.strerror if isinstance(why, OSError) else why
        log.warning("%s is turned away from %s: %s%s", who, self._network.path, text, more)
        self._last, self._silent = now, 0
