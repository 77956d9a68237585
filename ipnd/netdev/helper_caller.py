"""Who asks the helper: SO_PEERCRED and SO_PEERGROUPS (unix(7)), with the standard library only."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Final

from ipn.rendezvous import UCRED

SO_PEERGROUPS: Final = 59
MAX_GROUPS: Final = 256
"""Groups read in one call, as many as Python's ``getsockopt`` has room for; a user with more is looked up."""


@dataclass(frozen=True)
class Caller:
    """A process as the kernel vouches for it, with all its groups; ``command`` is its name at that time, or empty."""

    pid: int
    uid: int
    groups: frozenset[int]
    command: str

    def __str__(self) -> str:
        return f"user {self.uid} pid {self.pid} ({self.command or 'gone'})"


def caller_of(sock: socket.socket) -> Caller:
    """Return the identity of the process that connected ``sock``, as it was then."""
    pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return Caller(pid, uid, _groups(sock, uid, gid) | {gid}, _command(pid))


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
    """Return the process's name; anybody can put anything there, so that it must not forge lines of the log."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
        return "".join(character if character.isprintable() else "?" for character in comm.read().rstrip("\n"))
    return ""
