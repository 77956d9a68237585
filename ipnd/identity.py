"""Who is at the other end of a socket, read once when it is accepted, or comes with a datagram."""

from __future__ import annotations

import socket
from typing import Final

import attrs

from .access import Peer
from .credentials import command_of, credentials_of, groups_of

MAX_PID: Final = 1 << 22
"""PID_MAX_LIMIT of 64-bit kernels."""
GENERATIONS: Final = 64
"""How far back to look for an ancestor."""


def peer_of(sock: socket.socket) -> Peer:
    """Return the identity of the process that connected ``sock``."""
    return Peer(*credentials_of(sock))


def sender(pid: int, uid: int, gid: int) -> Peer:
    """Return the identity of a process whose credentials came with a datagram (SCM_CREDENTIALS, unix(7))."""
    return Peer(pid, uid, gid, groups_of(uid, gid), command_of(pid))


def for_descendant(peer: Peer, pid: int) -> Peer:
    """Return ``peer`` as the process ``pid`` that it says to speak for; as itself if it is no ancestor of that one."""
    ancestor = pid
    for _ in range(GENERATIONS):
        if ancestor <= 1:
            break
        ancestor = _parent_of(ancestor)
        if ancestor == peer.pid:
            return attrs.evolve(peer, pid=pid, command=command_of(pid))
    return peer


def _parent_of(pid: int) -> int:
    """Return a process's parent (proc(5), field 4 of stat); 0 when it has none or is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
