"""Acting as the thread that made a call: with its umask, user, groups and capabilities, and in its network namespace.

Only the least of ours and its own: a supervisor that may more than the program must not lend it that, and what the
program may where it has made itself a user namespace is nothing here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from ipn.capabilities import capabilities, set_capabilities
from ipn.libc import call

from .seccomp import status_of

CLONE_NEWNET: Final = 0x4000_0000


@contextlib.contextmanager
def acting_as(thread: int) -> Iterator[None]:
    """Act with a thread's umask, and with no more rights than it has."""
    status = status_of(thread)
    theirs = int(status["CapEff"], 16) if _is_shared(thread, "user") else 0
    before = capabilities().effective
    umask = os.umask(int(status["Umask"], 8))
    try:
        restore = _become(status)
        try:
            _set_effective(before & theirs)
            yield
        finally:
            restore()
            _set_effective(before)
    finally:
        os.umask(umask)


@contextlib.contextmanager
def in_network_of(thread: int) -> Iterator[None]:
    """Be in the thread's network namespace. EPERM where that is another than ours and we may not enter it."""
    if _is_shared(thread, "net"):
        yield
        return
    ours, theirs = (os.open(f"/proc/{name}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for name in ("thread-self", thread))
    try:
        call("setns", theirs, CLONE_NEWNET)
        try:
            yield
        finally:
            call("setns", ours, CLONE_NEWNET)
    finally:
        os.close(ours)
        os.close(theirs)


def _is_shared(thread: int, kind: str) -> bool:
    return os.stat(f"/proc/{thread}/ns/{kind}").st_ino == os.stat(f"/proc/thread-self/ns/{kind}").st_ino


def _become(status: dict[str, str]) -> Callable[[], None]:
    """Take on the effective user and groups in /proc/PID/status, if we can and they differ; return what undoes it."""
    user, group = int(status["Uid"].split()[1]), int(status["Gid"].split()[1])
    groups = [int(number) for number in status["Groups"].split()]
    ours = os.geteuid(), os.getegid(), os.getgroups()
    if ours[0] != 0 or (user, group, sorted(groups)) == (*ours[:2], sorted(ours[2])):
        return lambda: None

    def restore() -> None:
        os.seteuid(ours[0])
        os.setegid(ours[1])
        os.setgroups(ours[2])

    try:
        os.setgroups(groups)
        os.setegid(group)
        os.seteuid(user)
    except BaseException:
        restore()
        raise
    return restore


def _set_effective(wanted: int) -> None:
    """Put capabilities in effect that are permitted; only in this thread."""
    have = capabilities()
    if wanted != have.effective:
        set_capabilities(have._replace(effective=wanted & have.permitted))
