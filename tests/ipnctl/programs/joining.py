"""Waiting for programs to join a network that one of them is about to make."""

from __future__ import annotations

from ipn import admin
from tests.waiting import eventually

SECONDS = 20.0


def wait_for_members(path: str, *, readers: int | None = None, writers: int | None = None) -> None:
    """Wait until the network is there and so many members receive, or send."""

    def joined() -> bool:
        try:
            shown = admin.show_network(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return readers in (None, shown["readers"]) and writers in (None, shown["writers"])

    eventually(joined, SECONDS, f"{path} never had {readers} readers and {writers} writers")
