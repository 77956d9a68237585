"""The numbers of a processor's system calls that matter to AF_IPN programs (linux/audit.h, unistd.h). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs


@attrs.frozen
class Machine:
    """A kind of machine: ``audit``, how seccomp calls it; ``calls``, name → number of a system call.

    ``highest``: calls of this number and above are those of another ABI of the same machine (x32).
    """

    audit: int
    calls: Mapping[str, int]
    seccomp: int
    pidfd_getfd: int = 438
    highest: int = 0x4000_0000


MACHINES: Final[Mapping[str, Machine]] = {
    "x86_64": Machine(
        audit=0xC000_003E,
        seccomp=317,
        calls={
            "write": 1,
            "ioctl": 16,
            "socket": 41,
            "connect": 42,
            "accept": 43,
            "sendto": 44,
            "recvmsg": 47,
            "shutdown": 48,
            "bind": 49,
            "listen": 50,
            "getsockname": 51,
            "getpeername": 52,
            "socketpair": 53,
            "setsockopt": 54,
            "getsockopt": 55,
            "accept4": 288,
        },
    ),
    "aarch64": Machine(
        audit=0xC000_00B7,
        seccomp=277,
        calls={
            "write": 64,
            "ioctl": 29,
            "socket": 198,
            "connect": 203,
            "accept": 202,
            "sendto": 206,
            "recvmsg": 212,
            "shutdown": 210,
            "bind": 200,
            "listen": 201,
            "getsockname": 204,
            "getpeername": 205,
            "socketpair": 199,
            "setsockopt": 208,
            "getsockopt": 209,
            "accept4": 242,
        },
    ),
}
"""What ``uname -m`` says → the machine."""
