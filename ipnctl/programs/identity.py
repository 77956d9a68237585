"""Acting as the thread that made a call: with its umask, user, groups and capabilities, and in its network namespace.

Only the least of ours and its own: a supervisor that may more than the program must not lend it that, and what the
program may where it has made itself a user namespace is nothing here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from typing import Final

from .seccomp import status_of

CAPABILITY_VERSION: Final = 0x2008_0522
"""_LINUX_CAPABILITY_VERSION_3: two halves of 32 bits (capset(2))."""
CLONE_NEWNET: Final = 0x4000_0000

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    """``struct __user_cap_header_struct``; ``thread`` 0 is the caller."""

    _fields_ = (("version", ctypes.c_uint32), ("thread", ctypes.c_int))


class _Half(ctypes.Structure):
    """``struct __user_cap_data_struct``."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def acting_as(thread: int) -> Iterator[None]:
    """Act with a thread's umask, and with no more rights than it has."""
    status = status_of(thread)
    theirs = int(status["CapEff"], 16) if _is_shared(thread, "user") else 0
    before = _effective()
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
        _check(_libc.setns(theirs, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(ours, CLONE_NEWNET))
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


def _effective() -> int:
    """Return the capabilities that this thread has in effect."""
    halves = _capabilities()
    return int(halves[0].effective) | int(halves[1].effective) << 32


def _set_effective(wanted: int) -> None:
    """Put capabilities in effect that are permitted; only in this thread."""
    halves = _capabilities()
    if wanted == int(halves[0].effective) | int(halves[1].effective) << 32:
        return
    for number, half in enumerate(halves):
        half.effective = wanted >> 32 * number & half.permitted
    _check(_libc.capset(ctypes.byref(_Header(CAPABILITY_VERSION, 0)), halves))


def _capabilities() -> ctypes.Array[_Half]:
    halves = (_Half * 2)()
    _check(_libc.capget(ctypes.byref(_Header(CAPABILITY_VERSION, 0)), halves))
    return halves


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno() or errno.EPERM
        raise OSError(code, os.strerror(code))
