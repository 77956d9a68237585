"""Closing interfaces aside: the kernel takes some 20 ms to end a TAP, and the data plane must not wait for it."""

from __future__ import annotations

import os
import threading
from typing import Final

import trio

_closing: Final[set[threading.Thread]] = set()


def close_aside(fd: int) -> None:
    """Close a descriptor in a thread of its own."""
    thread = threading.Thread(target=_close, args=(fd,), name="closing an interface")
    _closing.add(thread)
    thread.start()


def _close(fd: int) -> None:
    try:
        os.close(fd)
    finally:
        _closing.discard(threading.current_thread())


async def all_closed() -> None:
    """Return when what is being closed is closed: who asked for the end of an interface may rely on it."""
    for thread in list(_closing):
        await trio.to_thread.run_sync(thread.join)
