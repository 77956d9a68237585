"""What a program's calls on its AF_IPN sockets do: a function each, and a table of them by name.

Each gets the ``Caller``, whose arguments it reads, and the socket. It returns the call's value; an ``OSError`` is the
call's error. What it reads of the program's memory is bounded.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

from ipn import abi
from ipn.interfaces import REQUESTS

from .filter import SO_DOMAIN, SO_PROTOCOL, SO_TYPE, SOL_SOCKET
from .sockets import ProgramSocket

SUN_PATH: Final = 108
"""Bytes of the path in a sockaddr_un (unix(7))."""
FAMILY: Final = struct.Struct("=H")
INT: Final = struct.Struct("=i")
MAX_OPTION: Final = 16 * 1024
"""Longest value of an option, in bytes; the daemon takes no more."""
OLD_REQUESTS: Final = {number & 0xFF: number for number in REQUESTS if number >> 8 & 0xFF == ord("I")}
"""A request's number → the request as it was proposed; later its size was that of a struct ifreq, not of an int."""


class Caller(Protocol):
    """The thread that made a call."""

    @property
    def families(self) -> tuple[int, ...]:
        """The address families that are AF_IPN to the program."""

    def integer(self, number: int) -> int:
        """Return an argument as a C int."""

    def pointer(self, number: int) -> int:
        """Return an argument as an address, or an unsigned long."""

    def read(self, address: int, size: int) -> bytes:
        """Return memory. EFAULT."""

    def write(self, address: int, data: bytes) -> None:
        """Have memory changed when the call is answered, which is EFAULT where that cannot be."""

    def as_itself(self) -> AbstractContextManager[None]:
        """Act as who made the call."""

    def in_its_network(self) -> AbstractContextManager[None]:
        """Be in the network namespace of who made the call. EPERM."""

    def whole_path(self, path: str) -> str:
        """Return where a path of the program's is."""


# -- addresses -------------------------------------------------------------------------------------------------------


def _network(caller: Caller) -> str:
    """Return the path in the address that a call names (arguments 1 and 2)."""
    address, size = caller.pointer(1), caller.integer(2)
    if not FAMILY.size < size <= FAMILY.size + SUN_PATH + 1:
        raise OSError(errno.EINVAL, f"an address of {size} bytes is none of a network")
    data = caller.read(address, size)
    (family,) = FAMILY.unpack_from(data)
    path = data[FAMILY.size :].split(b"\0")[0]
    if family not in (*caller.families, socket.AF_UNIX):
        raise OSError(errno.EAFNOSUPPORT, f"the address is of the family {family}")
    if not path:
        raise OSError(errno.EINVAL, "the address has no path")
    return caller.whole_path(os.fsdecode(path))


def _bind(caller: Caller, sock: ProgramSocket) -> int:
    path = _network(caller)
    with caller.as_itself():
        sock.bind(path)
    return 0


def _connect(caller: Caller, sock: ProgramSocket) -> int:
    path = _network(caller) if caller.pointer(1) else None
    with caller.as_itself():
        sock.connect(path)
    return 0


def _name(caller: Caller, sock: ProgramSocket) -> int:
    """Give the network's address, cut to the room for it, and its length before that."""
    where, room_at = caller.pointer(1), caller.pointer(2)
    path = os.fsencode(sock.getsockname())
    (room,) = INT.unpack(caller.read(room_at, INT.size))
    if room < 0:
        raise OSError(errno.EINVAL, "the room for an address is negative")
    data = FAMILY.pack(sock.called) + path + b"\0"
    caller.write(where, data[:room])
    caller.write(room_at, INT.pack(len(data)))
    return 0


# -- options ---------------------------------------------------------------------------------------------------------


def _setsockopt(caller: Caller, sock: ProgramSocket) -> int:
    size = caller.integer(4)
    if not 0 <= size <= MAX_OPTION:
        raise OSError(errno.EINVAL, f"an option has at most {MAX_OPTION} bytes")
    sock.setsockopt(caller.integer(1), caller.integer(2), caller.read(caller.pointer(3), size))
    return 0


def _getsockopt(caller: Caller, sock: ProgramSocket) -> int:
    level, option = caller.integer(1), caller.integer(2)
    where, room_at = caller.pointer(3), caller.pointer(4)
    (room,) = INT.unpack(caller.read(room_at, INT.size))
    if room < 0:
        raise OSError(errno.EINVAL, "the room for an option is negative")
    value = _kind(sock, option) if level == SOL_SOCKET else sock.getsockopt(level, option, min(room, MAX_OPTION))
    data = INT.pack(value) if isinstance(value, int) else value
    caller.write(where, data[:room])
    caller.write(room_at, INT.pack(min(room, len(data))))
    return 0


def _kind(sock: ProgramSocket, option: int) -> int:
    """Return what tells an AF_IPN socket from another: the kernel takes it for a unix one."""
    return {SO_TYPE: abi.SOCK_RAW, SO_DOMAIN: sock.called, SO_PROTOCOL: sock.proto}[option]


def _ioctl(caller: Caller, sock: ProgramSocket) -> int:
    request, argument = caller.pointer(1) & 0xFFFF_FFFF, caller.pointer(2)
    if request >> 8 & 0xFF == ord("I"):
        request = OLD_REQUESTS.get(request & 0xFF, request)
    if request not in REQUESTS or request == abi.IPN_SETPERSIST:
        value = sock.ioctl(request, caller.integer(2))
        return value if isinstance(value, int) else 0
    wanted = caller.read(argument, abi.IFREQ.size)
    with caller.in_its_network(), caller.as_itself():
        value = sock.ioctl(request, wanted)
    if isinstance(value, bytes):
        caller.write(argument, value)
    return 0


# -- the rest --------------------------------------------------------------------------------------------------------


def _shutdown(caller: Caller, sock: ProgramSocket) -> int:
    sock.shutdown(caller.integer(1))
    return 0


def _refuse(caller: Caller, sock: ProgramSocket) -> int:
    raise OSError(errno.EOPNOTSUPP, "a network has no servers: members connect, nobody listens")


CALLS: Final[Mapping[str, Callable[[Caller, ProgramSocket], int]]] = {
    "bind": _bind,
    "connect": _connect,
    "getsockname": _name,
    "getpeername": _name,
    "setsockopt": _setsockopt,
    "getsockopt": _getsockopt,
    "ioctl": _ioctl,
    "shutdown": _shutdown,
    "listen": _refuse,
    "accept": _refuse,
    "accept4": _refuse,
}
"""Calls whose first argument is the socket, and whose answer is there at once."""
