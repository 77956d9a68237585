"""ICMP of both versions (RFC 792, RFC 4443): echoes and the errors a router reports, and when it must not. Pure."""

from __future__ import annotations

from typing import Final

import attrs

from . import ipv4, ipv6
from .checksum import checksum, right
from .packet import Packet

V4: Final = 1
_ECHO: Final = {4: (8, 0), 6: (128, 129)}
_V4_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_QUOTED: Final = {4: 548, 6: 1232}
"""An error is at most 576 (RFC 1812, 4.3.2.3) or 1280 (RFC 4443, 2.4) octets, with its 28 or 48 of headers."""


@attrs.frozen
class Trouble:
    """A kind of error: the type and code of ICMP and of ICMPv6."""

    v4: tuple[int, int]
    v6: tuple[int, int]


NO_ROUTE: Final = Trouble((3, 0), (1, 0))
NO_HOST: Final = Trouble((3, 1), (1, 3))
NO_PROTOCOL: Final = Trouble((3, 2), (4, 1))
NO_PORT: Final = Trouble((3, 3), (1, 4))
TOO_BIG: Final = Trouble((3, 4), (2, 0))
EXPIRED: Final = Trouble((11, 0), (3, 0))
BEYOND_SCOPE: Final = Trouble((3, 13), (1, 2))


@attrs.define
class Allowance:
    """How many errors may be sent: ``burst`` at once and ``rate`` per second (RFC 1812, 4.3.2.8; RFC 4443, 2.4)."""

    rate: float
    burst: float
    _left: float = attrs.field(init=False)
    _since: float = attrs.field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._left = self.burst

    def take(self, now: float) -> bool:
        """Tell whether one more may be sent ``now``, and count it."""
        self._left = min(self.burst, self._left + max(0.0, now - self._since) * self.rate)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def is_icmp(packet: Packet) -> bool:
    """Tell whether the packet holds ICMP of its version."""
    return packet.protocol == (V4 if packet.version == 4 else ipv6.ICMP)


def reportable(packet: Packet) -> bool:
    """Tell whether an error may be sent about ``packet`` (RFC 1812, 4.3.2.7; RFC 4443, 2.4): not about errors."""
    if packet.later or not packet.payload:
        return False
    if not is_icmp(packet):
        return True
    if packet.version == 4:
        return packet.payload[0] not in _V4_ERRORS
    return packet.payload[0] >= 128 and packet.payload[0] != 137


def sound(packet: Packet) -> bool:
    """Tell whether the ICMP message in ``packet`` is complete and its checksum right."""
    message = packet.payload
    if packet.version == 6:
        message = ipv6.pseudo(packet.source, packet.destination, ipv6.ICMP, len(message)) + message
    return len(packet.payload) >= 8 and right(message)


def is_echo(packet: Packet) -> bool:
    """Tell whether the ICMP message in ``packet`` asks for an echo."""
    return packet.payload[0] == _ECHO[packet.version][0] and packet.payload[1] == 0


def echo(packet: Packet) -> bytes:
    """Return the answer to an echo request, from the address it was sent to."""
    message = bytes([_ECHO[packet.version][1], 0, 0, 0]) + packet.payload[4:]
    return _wrapped(packet.destination, packet.source, message)


def error(trouble: Trouble, source: bytes, packet: Packet, mtu: int = 0) -> bytes:
    """Return the packet that tells the sender of ``packet`` of its ``trouble``; ``mtu`` is for ``TOO_BIG``."""
    kind, code = trouble.v4 if packet.version == 4 else trouble.v6
    message = bytes([kind, code, 0, 0]) + mtu.to_bytes(4, "big") + packet.raw[: _QUOTED[packet.version]]
    return _wrapped(source, packet.source, message)


def _wrapped(source: bytes, destination: bytes, message: bytes) -> bytes:
    if len(source) == 4:
        message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
        return ipv4.encode(source, destination, V4, message, flags=0)
    return ipv6.encode(source, destination, ipv6.ICMP, ipv6.sealed(source, destination, message))
