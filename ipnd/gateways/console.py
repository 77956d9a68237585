"""The text console (being written)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any as Network

from ipnd.access import Peer
from ipnd.plane.plane import Plane


class ConsoleConnection:
    """A connection to the console."""

    def __init__(
        self, plane: Plane, sock: socket.socket, peer: Peer, network: Network,
        on_close: Callable[[ConsoleConnection], None],
    ) -> None:
        self._sock = sock

    def close(self) -> None:
        """Close it."""
        self._sock.close()
