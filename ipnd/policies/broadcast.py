"""IPN_BROADCAST: everybody but the sender receives each message, as on a hub."""

from __future__ import annotations

from ipn.abi import IPN_BROADCAST

from .base import Decision, Policy


class Broadcast(Policy):
    """Deliver to all readers but the source; the content is nobody's business."""

    number = IPN_BROADCAST
    name = "broadcast"
    key_bytes = 0

    def decide(self, source: int, head: bytes) -> Decision:
        """Answer with all readers but the source."""
        return [port for port in self.net.readers() if port != source]
