"""What the kernel knows of unix sockets, by their inodes (sock_diag(7)): whether one is there, and whose it is.

The file of a socket tells its owner; an abstract address tells nothing, and SO_PEERCRED of datagram sockets neither.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import Final

from .netlink import HEADER, NLM_F_REQUEST, NLMSG_ERROR, attributes, messages

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
REQUEST: Final = struct.Struct("=BBHIIIII")
"""``struct unix_diag_req``: family, protocol, padding, states, inode, what to show, cookie."""
ANSWER: Final = struct.Struct("=BBBBIII")
"""``struct unix_diag_msg``: family, type, state, padding, inode, cookie."""
ANY: Final = 0xFFFF_FFFF
"""Whatever the state, whatever the cookie."""
SHOW_PEER: Final = 0x04
SHOW_UID: Final = 0x40
PEER: Final = 2
UID: Final = 7
"""Attributes of an answer."""
NUMBER: Final = struct.Struct("=I")
ERROR: Final = struct.Struct("=i")
"""The number that an error message begins with."""
SECONDS: Final = 1.0
"""How long to wait for an answer, which the kernel has ready before it lets us go on."""


def owner_of_peer(sock: socket.socket) -> int | None:
    """Return the user that made the socket to which the unix socket ``sock`` is connected.

    None when the kernel does not tell: it is older than 5.3, lacks ``unix_diag``, or the other socket has gone.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(SECONDS)
        peer = _ask(diag, os.fstat(sock.fileno()).st_ino, SHOW_PEER, PEER)
        return None if peer is None else _ask(diag, peer, SHOW_UID, UID)
    return None


def is_there(inode: int) -> bool:
    """Return whether there is a unix socket with an inode number, of whatever process; also when that is not told."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(SECONDS)
        _send(diag, inode, 0)
        for kind, _, answer in messages(diag.recv(8192)):
            if kind == NLMSG_ERROR and len(answer) >= ERROR.size:
                return int(ERROR.unpack_from(answer)[0]) != -errno.ENOENT
    return True


def _ask(diag: socket.socket, inode: int, show: int, attribute: int) -> int | None:
    """Return a number that the kernel knows of the unix socket with an inode number."""
    _send(diag, inode, show)
    for kind, _, answer in messages(diag.recv(8192)):
        if kind == SOCK_DIAG_BY_FAMILY:
            known = dict(attributes(answer[ANSWER.size :]))
            if len(known.get(attribute, b"")) == NUMBER.size:
                return int(NUMBER.unpack(known[attribute])[0])
    return None


def _send(diag: socket.socket, inode: int, show: int) -> None:
    body = REQUEST.pack(socket.AF_UNIX, 0, 0, ANY, inode, show, ANY, ANY)
    diag.send(HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + body)
