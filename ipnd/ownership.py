"""Acting as a network's owner where the daemon is root: files in directories that users control.

A root daemon that creates or removes a socket file under its own identity could be led elsewhere by a directory
swapped for a symbolic link. As the owner it can do no more than the owner could. Synchronous by design: the
identity is that of the whole process, and nothing else runs until it is restored.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Give the process the effective identity of ``uid`` for the duration, if it is root; else change nothing."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    own_groups, own_gid = os.getgroups(), os.getegid()
    try:
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        groups = [gid]
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_gid)
        os.setgroups(own_groups)
