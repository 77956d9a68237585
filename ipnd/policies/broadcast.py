"""IPN_BROADCAST: everybody but the sender receives each message, as on a hub."""

from __future__ import annotations

from collections.abc import Collection

from ipn.abi import IPN_BROADCAST

from .base import Policy


class Broadcast(Policy):
    """Deliver to all readers but the source."""

    number = IPN_BROADCAST
    name = "broadcast"

    def receivers(self, source: int, readers: Collection[int]) -> Collection[int]:
        """Return all readers but the source."""
        return [port for port in readers if port != source]
