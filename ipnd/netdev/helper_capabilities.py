"""Giving up every privilege but two, for good (capabilities(7)): CAP_NET_ADMIN makes TAPs, CAP_NET_RAW grabs."""

from __future__ import annotations

import errno
from typing import Final

from ipn.capabilities import Capabilities, capabilities, set_capabilities
from ipn.libc import prctl

CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
KEPT: Final = {CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_NET_RAW: "CAP_NET_RAW"}

PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


def missing_capabilities() -> list[str]:
    """Return the names of those of the two capabilities that this process has not."""
    permitted = capabilities().permitted
    return [name for number, name in KEPT.items() if not permitted >> number & 1]


def keep_only_two() -> None:
    """Keep the two capabilities, if they are there, and give up all others; no program run later gets more.

    ``OSError`` when the kernel does not do it.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _shrink_bounding_set()
    kept = sum(1 << number for number in KEPT) & capabilities().permitted
    set_capabilities(Capabilities(kept, kept, 0))


def _shrink_bounding_set() -> None:
    """Take all but the two out of what a program run by root could get. What is gone already needs no privilege."""
    for number in range(64):
        try:
            there = prctl(PR_CAPBSET_READ, number)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # beyond the last capability of this kernel
            raise
        if there and number not in KEPT:
            prctl(PR_CAPBSET_DROP, number)
