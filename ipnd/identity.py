"""Who is at the other end of a socket, read once when it is accepted."""

from __future__ import annotations

import socket

from .access import Peer
from .credentials import credentials_of


def peer_of(sock: socket.socket) -> Peer:
    """Return the identity of the process that connected ``sock``."""
    return Peer(*credentials_of(sock))
