"""Who connected a socket, as the kernel vouches for it: SO_PEERCRED, SO_PEERGROUPS (unix(7)). Standard library only."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import struct
from typing import Final, NamedTuple

from ipn.rendezvous import UCRED

SO_PEERGROUPS: Final = 59
MAX_GROUPS: Final = 256
"""Groups read in one call, as many as Python's ``getsockopt`` has room for; a user with more is looked up."""


class Credentials(NamedTuple):
    """A process when it connected: ``groups`` are the supplementary ones, ``command`` its name, or empty."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    command: str


def credentials_of(sock: socket.socket) -> Credentials:
    """Return the credentials of the process that connected ``sock``."""
    pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return Credentials(pid, uid, gid, _groups(sock, uid, gid), command_of(pid))


def _groups(sock: socket.socket, uid: int, gid: int) -> frozenset[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * MAX_GROUPS)
        return frozenset(struct.unpack(f"={len(raw) // 4}I", raw))
    except OSError:
        return groups_of(uid, gid)  # more groups than fit (ERANGE), or a kernel before 4.13


def groups_of(uid: int, gid: int) -> frozenset[int]:
    """Return the groups of a user as the user database has them."""
    with contextlib.suppress(KeyError, OSError):
        return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    return frozenset({gid})


def command_of(pid: int) -> str:
    """Return the process's name; anybody can put anything there, so that it must not forge lines of the log."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
        return "".join(character if character.isprintable() else "?" for character in comm.read().rstrip("\n"))
    return ""
