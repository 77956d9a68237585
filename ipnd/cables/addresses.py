"""Internet addresses of cables: finding them, and UDP sockets of our own to reach them from.

A socket is bound as the user who asked for the cable, so that a root daemon lends nobody a port below 1024. The
don't-fragment bit stays off: what the path does not take whole, it takes in fragments.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, Final

import attrs
import trio

from ipnd.access import Peer
from ipnd.ownership import acting_as
from ipnd.plane.links import SEND_BUFFER

from .url import ip_of

RECEIVE_BUFFER: Final = 4 * 1024 * 1024
"""Bytes that may wait in the kernel: nobody holds back who sends datagrams."""
SO_RCVBUFFORCE: Final = 33
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_DONT: Final = 0
"""Numbers of socket(7), ip(7) and ipv6(7) that the standard library does not name."""


@attrs.frozen
class Address:
    """Where datagrams go, or come from: ``sockaddr`` begins with the host, as digits, and the port."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.sockaddr[0]} port {self.sockaddr[1]}"


def numeric(host: str, port: int) -> Address:
    """Return the address that ``host``, which is no name, is. ENODEV when its zone is no interface of ours."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror as error:
        raise OSError(errno.ENODEV, f"{host} cannot be an address here: {error.strerror}") from None
    return Address(found[0][0], found[0][4])


async def look_up(host: str, port: int, local: str = "") -> Address:
    """Return the first address of ``host`` that can be reached from ``local``; EHOSTUNREACH when it has none."""
    family = numeric(local, 0).family if local else socket.AF_UNSPEC
    try:
        found = await trio.socket.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
    except socket.gaierror as error:
        raise OSError(errno.EHOSTUNREACH, f"cannot find the address of {host}: {error.strerror}") from None
    return Address(found[0][0], found[0][4])


def any_address(family: int, local: str, port: int) -> Address:
    """Return what a socket is bound to: ``local``, "" being any address of the family."""
    return numeric(local or ("::" if family == socket.AF_INET6 else "0.0.0.0"), port)


def open_udp(local: Address, peer: Peer) -> socket.socket:
    """Return a socket bound for ``peer``. Errors: EADDRINUSE, EADDRNOTAVAIL, EACCES, with a sentence."""
    sock = socket.socket(local.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        _prepare(sock, local.family)
        with acting_as(peer.uid, peer.gid):
            sock.bind(local.sockaddr)
    except OSError as error:
        sock.close()
        why = REASONS.get(error.errno or 0, error.strerror)
        raise OSError(error.errno, f"cannot take datagrams at {local}: {why}") from None
    return sock


REASONS: Final = {
    errno.EADDRINUSE: "another program, or a device of the kernel, has that port",
    errno.EADDRNOTAVAIL: "that is no address of this machine",
    errno.EACCES: "that port is not for you (ports below 1024 are root's)",
}


def _prepare(sock: socket.socket, family: int) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:  # without CAP_NET_ADMIN: as much as net.core.rmem_max allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)


def refuse_ourselves(local: Address, remote: Address) -> None:
    """EINVAL when datagrams from ``local`` to ``remote`` would come back to the very socket."""
    if local.sockaddr[1] != remote.sockaddr[1]:
        return
    bound = ip_of(str(local.sockaddr[0]))
    if bound is not None and (local.sockaddr[0] == remote.sockaddr[0] or (bound.is_unspecified and _is_ours(remote))):
        text = f"{remote} is this machine: the cable would end where it begins (for two ends here, give each a local=)"
        raise OSError(errno.EINVAL, text)


def _is_ours(remote: Address) -> bool:
    """Return whether an address is one of this machine's: then it is also where we would send from."""
    address = ip_of(str(remote.sockaddr[0]))
    if address is not None and (address.is_loopback or address.is_unspecified):
        return True
    with socket.socket(remote.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(remote.sockaddr)
        except OSError:
            return False
        return bool(probe.getsockname()[0] == remote.sockaddr[0])
