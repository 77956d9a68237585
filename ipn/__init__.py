"""ipn: AF_IPN, Inter Process Networking, for programs.

A network is a path in the file system; members join with ``connect``, manage with ``bind``, and exchange whole
messages. The short way::

    with ipn.bind("/tmp/sockipn") as net:      # create it, or join it for management
        net.connect()                          # and exchange messages on it
        net.send(b"hello")

    with ipn.connect("/tmp/sockipn") as net:   # join
        for message in net: ...

``ipn.socket`` gives the specification's calls one by one; ``ipn.aio`` is the same for trio.
"""

from __future__ import annotations

import errno
import importlib
import os
from types import ModuleType

from .abi import *  # noqa: F403
from .abi import (
    AF_IPN,
    DEFAULT_MODE,
    DEFAULT_MSGPOOLSIZE,
    DEFAULT_MTU,
    DEFAULT_NUMNODES,
    IPN_ANY,
    IPN_FLAG_LOSSLESS,
    IPN_PORTNO_ANY,
    IPN_SO_DESCR,
    IPN_SO_FLAGS,
    IPN_SO_HANDLE_OOB,
    IPN_SO_MODE,
    IPN_SO_MSGPOOLSIZE,
    IPN_SO_MTU,
    IPN_SO_NUMNODES,
    IPN_SO_PORT,
    IPN_SO_WANT_OOB_NUMNODES,
    SOCK_RAW,
    policy_number,
)
from .abi import NumNodes as NumNodes
from .rendezvous import registered_policies
from .socket import MSG_OOB as MSG_OOB
from .socket import SHUT_RD as SHUT_RD
from .socket import SHUT_RDWR as SHUT_RDWR
from .socket import SHUT_WR as SHUT_WR
from .socket import Socket as Socket

__version__ = "0.1.0"

StrPath = str | os.PathLike[str]


def __getattr__(name: str) -> ModuleType:
    """Import ``ipn.aio`` when it is first asked for: only it needs trio."""
    if name == "aio":
        return importlib.import_module("ipn.aio")
    raise AttributeError(f"module 'ipn' has no attribute {name!r}")


def socket(family: int = AF_IPN, type: int = SOCK_RAW, proto: int = IPN_ANY) -> Socket:
    """Return an unbound AF_IPN socket.

    Errors: EPROTOTYPE unless ``type`` is SOCK_RAW, EPROTONOSUPPORT for a policy that nobody has registered,
    EAFNOSUPPORT for another family.
    """
    return Socket(family, type, proto)


def connect(
    path: StrPath,
    policy: int | str = IPN_ANY,
    *,
    port: int = IPN_PORTNO_ANY,
    descr: str | bytes = b"",
    receive: bool = True,
    send: bool = True,
    oob: bool = False,
    packet: bool = False,
    timeout: float | None = None,
) -> Socket:
    """Join the network at ``path`` and return the connected socket.

    ``receive`` / ``send``: which directions to use (as far as the file's mode permits). ``oob``: also receive the
    notices of how many readers and writers there are. ``packet``: use a SEQPACKET data socket, for programs
    that hand the descriptor to something that wants the kernel to keep message boundaries.
    ``timeout``: seconds, as ``settimeout``. Errors as ``Socket.connect``.
    """
    net = Socket(AF_IPN, SOCK_RAW, _policy(policy))
    try:
        _prepare_node(net, port, descr, receive, send, oob, packet, timeout)
        net.connect(path)
    except BaseException:
        net.close()
        raise
    return net


def bind(
    path: StrPath,
    policy: int | str = IPN_ANY,
    *,
    mtu: int = DEFAULT_MTU,
    ports: int = DEFAULT_NUMNODES,
    pool: int = DEFAULT_MSGPOOLSIZE,
    lossless: bool = False,
    mode: int = DEFAULT_MODE,
    persistent: bool = False,
    port: int = IPN_PORTNO_ANY,
    descr: str | bytes = b"",
    receive: bool = True,
    send: bool = True,
    oob: bool = False,
    packet: bool = False,
    timeout: float | None = None,
) -> Socket:
    """Create the network at ``path``, or join it for management when it exists; return the bound socket.

    ``mtu`` (bytes), ``ports``, ``pool`` (messages), ``lossless`` and ``mode`` (less the umask) describe a network
    created now; an existing one keeps its own. ``net.connect()`` then exchanges messages, for which
    the other arguments are, as in ``ipn.connect``. Errors as ``Socket.bind``.
    """
    net = Socket(AF_IPN, SOCK_RAW, _policy(policy))
    try:
        net.setsockopt(0, IPN_SO_MTU, mtu)
        net.setsockopt(0, IPN_SO_NUMNODES, ports)
        net.setsockopt(0, IPN_SO_MSGPOOLSIZE, pool)
        net.setsockopt(0, IPN_SO_FLAGS, IPN_FLAG_LOSSLESS if lossless else 0)
        net.setsockopt(0, IPN_SO_MODE, mode)
        _prepare_node(net, port, descr, receive, send, oob, packet, timeout)
        net.bind(path, persistent=persistent)
    except BaseException:
        net.close()
        raise
    return net


def _policy(policy: int | str) -> int:
    """Return a policy's number; names that are not built in are looked up with the running daemon. EPROTONOSUPPORT."""
    try:
        return policy_number(policy)
    except ValueError as error:
        number = registered_policies().get(str(policy))
        if number is None:
            raise OSError(errno.EPROTONOSUPPORT, str(error)) from None
        return number


def _prepare_node(
    net: Socket,
    port: int,
    descr: str | bytes,
    receive: bool,
    send: bool,
    oob: bool,
    packet: bool,
    timeout: float | None,
) -> None:
    net.setsockopt(0, IPN_SO_PORT, port)
    net.setsockopt(0, IPN_SO_DESCR, descr)
    if not receive:
        net.shutdown(SHUT_RD)
    if not send:
        net.shutdown(SHUT_WR)
    if oob:
        net.setsockopt(0, IPN_SO_HANDLE_OOB, 1)
        net.setsockopt(0, IPN_SO_WANT_OOB_NUMNODES, 1)
    net.set_packet(packet)
    net.settimeout(timeout)
