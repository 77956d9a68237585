"""Calls on AF_IPN sockets for programs in Python: the C library's, as Python's own socket module knows no such family.

For programs that run under ``ipnctl run``: each call gives its result, or minus the number of its error.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Any

AF_IPN, SOCK_RAW, BROADCAST = 34, 3, 1
LENGTH = 110
"""sizeof(struct sockaddr_un)."""

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """Call a function of the C library."""
    result = int(getattr(_libc, name)(*arguments))
    return result if result >= 0 else -ctypes.get_errno()


def address(path: str, family: int = AF_IPN) -> bytes:
    """Return a struct sockaddr_un with another family."""
    return struct.pack("=H108s", family, os.fsencode(path))


def new(flags: int = 0, policy: int = BROADCAST) -> int:
    """Return a new socket."""
    return call("socket", AF_IPN, SOCK_RAW | flags, policy)


def bind(fd: int, path: str) -> int:
    """Call bind(2)."""
    return call("bind", fd, address(path), LENGTH)


def connect(fd: int, path: str) -> int:
    """Call connect(2)."""
    return call("connect", fd, address(path), LENGTH)


def member(path: str, flags: int = 0) -> int:
    """Return a socket that is connected to a network, which must work."""
    fd = new(flags)
    assert (found := connect(fd, path)) == 0, found
    return fd


def name(fd: int) -> str | int:
    """Return the path that getsockname(2) gives."""
    room, size = ctypes.create_string_buffer(LENGTH), ctypes.c_int(LENGTH)
    found = call("getsockname", fd, room, ctypes.byref(size))
    return found if found < 0 else os.fsdecode(room.raw[2 : size.value].split(b"\0")[0])


def messages(fd: int) -> socket.socket:
    """Return a socket object for exchanging messages, which owns ``fd``."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd)
