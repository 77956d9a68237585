"""Who asks the helper."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from ipnd.credentials import credentials_of


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
    found = credentials_of(sock)
    return Caller(found.pid, found.uid, found.groups | {found.gid}, found.command)
