"""An IP packet as the router handles it, of either version, and how a packet is refused. Pure.

Addresses are ``bytes`` in network order, four of them or sixteen: the length says the version, and they are keys of
dictionaries on the way of every packet. ``ipaddress`` is for what people type and read.
"""

from __future__ import annotations

from typing import Final

import attrs

ARP: Final = 0x0806
IPV4: Final = 0x0800
IPV6: Final = 0x86DD


class Discard(Exception):
    """The packet goes no further; it is counted under ``reason``, a few words in lower case."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@attrs.frozen
class Packet:
    """A checked packet: ``raw`` is exactly as long as its header says, without the padding of a short frame."""

    raw: bytes
    source: bytes
    destination: bytes
    protocol: int
    """What follows the header: the IPv4 protocol, or the IPv6 next header."""
    hops: int
    """TTL or hop limit, as it came."""
    payload: bytes
    fragment: bool = False
    """A part of a larger packet."""
    later: bool = False
    """Such a part, and not the first."""
    whole: bool = True
    """It must not be cut on its way: IPv4 with the flag DF, and any IPv6."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self.source) == 4 else 6


def ethertype(address: bytes) -> int:
    """Return the Ethernet type for packets to ``address``."""
    return IPV4 if len(address) == 4 else IPV6
