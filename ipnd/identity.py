"""Who is at the other end of a socket, read once when it is accepted, or comes with a datagram."""

from __future__ import annotations

import socket

from .access import Peer
from .credentials import command_of, credentials_of, groups_of


def peer_of(sock: socket.socket) -> Peer:
    """Return the identity of the process that connected ``sock``."""
    return Peer(*credentials_of(sock))


def sender(pid: int, uid: int, gid: int) -> Peer:
    """Return the identity of a process whose credentials came with a datagram (SCM_CREDENTIALS, unix(7))."""
    return Peer(pid, uid, gid, groups_of(uid, gid), command_of(pid))
