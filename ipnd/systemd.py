"""The two protocols of systemd that a service speaks: socket activation (sd_listen_fds(3)) and sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

LISTEN_FDS_START: Final = 3


def activated_listener(kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket | None:
    """Return the listening unix socket of a ``kind`` that the service manager passed, or None when it passed none.

    Raises ``ValueError`` when it passed anything else. The variables are removed, so that children do not see them.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count:
        return None
    if count != "1":
        raise ValueError(f"the service manager passed {count} sockets; one is wanted")
    os.set_inheritable(LISTEN_FDS_START, False)
    try:
        sock = socket.socket(fileno=LISTEN_FDS_START)
    except OSError as error:
        raise ValueError(f"the descriptor that the service manager passed is no socket: {error.strerror}") from None
    if sock.family != socket.AF_UNIX or sock.type != kind:
        raise ValueError(f"the socket that the service manager passed is not a unix socket of the type {kind.name}")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError("the socket that the service manager passed does not listen")
    return sock


def notify(state: str) -> None:
    """Tell the service manager ``state`` (``READY=1``, ``STOPPING=1``, …), if one listens at ``$NOTIFY_SOCKET``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(state.encode())
