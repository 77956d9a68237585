"""Who is at the other end of a socket, read once when it is accepted: SO_PEERCRED and SO_PEERGROUPS (unix(7))."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import struct
from typing import Final

from .access import Peer

UCRED: Final = struct.Struct("=iII")
SO_PEERGROUPS: Final = 59
MAX_GROUPS: Final = 256
"""Groups read in one call, as many as Python's ``getsockopt`` has room for; a user with more is looked up."""


def peer_of(sock: socket.socket) -> Peer:
    """Return the identity of the process that connected ``sock``."""
    pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return Peer(pid, uid, gid, _groups(sock, uid, gid), _command(pid))


def _groups(sock: socket.socket, uid: int, gid: int) -> frozenset[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * MAX_GROUPS)
        return frozenset(struct.unpack(f"={len(raw) // 4}I", raw))
    except OSError:
        # More groups than fit (ERANGE), or a kernel before 4.13: ask the user database.
        with contextlib.suppress(KeyError, OSError):
            return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
        return frozenset()


def _command(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
        return comm.read().strip()
    return ""
