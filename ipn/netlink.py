"""The kernel's word on network interfaces: how one is, what changes, adding an address or a route (rtnetlink(7)).

A *watch* is a netlink socket that the kernel tells of every change of an interface in the network namespace where
it was made; ``link_changes`` reads what it brings, ``link`` asks how an interface is now. Both go on working when
the process itself is in another namespace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from .ifnames import NAME_MAX, format_mac

RTMGRP_LINK: Final = 1
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_NEWADDR: Final = 20
RTM_NEWROUTE: Final = 24
NLMSG_ERROR: Final = 2
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_ACK_TLVS: Final = 0x200
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLMSGERR_ATTR_MSG: Final = 1
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_F_NODAD: Final = 0x02
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RT_TABLE_MAIN: Final = 254
RTPROT_STATIC: Final = 4
RTN_UNICAST: Final = 1

IFF_UP: Final = 0x1
IFF_RUNNING: Final = 0x40
ARPHRD_ETHER: Final = 1
ARPHRD_LOOPBACK: Final = 772

SIOCGIFNAME: Final = 0x8910
SIOCGIFFLAGS: Final = 0x8913
SIOCGIFMTU: Final = 0x8921
SIOCGIFHWADDR: Final = 0x8927
SIOCGIFINDEX: Final = 0x8933

IFREQ: Final = struct.Struct("16s24s")
"""``struct ifreq`` (netdevice(7)): the interface's name, and what the request makes of the rest."""

HEADER: Final = struct.Struct("=IHHII")
"""``struct nlmsghdr``: length, type, flags, sequence, port."""
LINK_INFO: Final = struct.Struct("=BxHiII")
"""``struct ifinfomsg``: family, kind of hardware, index, flags, change mask."""
ATTRIBUTE: Final = struct.Struct("=HH")
"""``struct rtattr``: length, type."""
ATTRIBUTE_TYPE: Final = 0x3FFF
"""What of an attribute's type is its number; the two bits above are flags."""

WATCH_BUFFER: Final = 1 << 20
"""Bytes of changes that a watch holds for a reader that is busy elsewhere, if the caller may ask for so many."""
ACK_TIMEOUT: Final = 5.0
"""Seconds to wait for the kernel's acknowledgement; it comes before sendto(2) returns."""


class LinkChange(NamedTuple):
    """An interface was made, changed (then everything here is how it is now) or deleted, here or by a move away."""

    index: int  # type: ignore[assignment]  # in the place of tuple.index, which nobody misses
    name: str
    flags: int
    mtu: int
    mac: str
    deleted: bool

    @property
    def up(self) -> bool:
        """Whether the administrator set it up."""
        return bool(self.flags & IFF_UP)

    @property
    def running(self) -> bool:
        """Whether it can carry frames: its other end is there."""
        return bool(self.flags & IFF_RUNNING)


class Link(NamedTuple):
    """How an interface is. ``mtu`` in bytes without Ethernet header; ``mac`` is empty where there is none."""

    name: str
    index: int  # type: ignore[assignment]  # in the place of tuple.index, which nobody misses
    up: bool
    running: bool
    mtu: int
    mac: str


def watch_links() -> socket.socket:
    """Return a non-blocking socket that the kernel tells of every interface's changes in this network namespace.

    Read it with ``recv(65536)`` and give that to ``link_changes``. ENOBUFS from ``recv`` means that changes were
    lost: ask ``link`` anew. Needs no privilege.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WATCH_BUFFER)
        sock.bind((0, RTMGRP_LINK))
    except BaseException:
        sock.close()
        raise
    return sock


def link_changes(data: bytes) -> Iterator[LinkChange]:
    """Give the changes in ``data``, what one ``recv`` of a watch brought. Anything else in it is passed over."""
    for kind, _, body in messages(data):
        if kind not in (RTM_NEWLINK, RTM_DELLINK) or len(body) < LINK_INFO.size:
            continue
        family, _, index, flags, _ = LINK_INFO.unpack_from(body)
        if family != socket.AF_UNSPEC:
            continue  # a bridge's word on one of its ports: "deleted" there means that the port left the bridge
        known = dict(attributes(body[LINK_INFO.size :]))
        name = os.fsdecode(known.get(IFLA_IFNAME, b"").split(b"\0")[0])
        mtu = int.from_bytes(known.get(IFLA_MTU, b"")[:4], sys.byteorder)
        yield LinkChange(index, name, flags, mtu, format_mac(known.get(IFLA_ADDRESS, b"")), kind == RTM_DELLINK)


def link(sock: socket.socket, *, name: str = "", index: int = 0) -> Link:
    """Return how the interface with this name, or else this index, is now, in the namespace where ``sock`` was made.

    Any socket will do, a watch for one. ENODEV when there is no such interface.
    """
    try:
        fd = sock.fileno()
        if not name:
            reply = fcntl.ioctl(fd, SIOCGIFNAME, IFREQ.pack(b"", struct.pack("=i", index)))
            name = os.fsdecode(reply[:16].split(b"\0")[0])
        (number,) = struct.unpack_from("=i", _ask(fd, SIOCGIFINDEX, name))
        (flags,) = struct.unpack_from("=H", _ask(fd, SIOCGIFFLAGS, name))
        (mtu,) = struct.unpack_from("=i", _ask(fd, SIOCGIFMTU, name))
        kind, mac = struct.unpack_from("=H6s", _ask(fd, SIOCGIFHWADDR, name))
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENXIO):
            raise
        what = f"named {name}" if name else f"with the index {index}"
        raise OSError(errno.ENODEV, f"there is no interface {what}") from None
    has_mac = kind in (ARPHRD_ETHER, ARPHRD_LOOPBACK)
    return Link(name, number, bool(flags & IFF_UP), bool(flags & IFF_RUNNING), mtu, format_mac(mac) if has_mac else "")


def add_address(index: int, address: str) -> None:
    """Give the interface an address with the length of its network's prefix: ``10.0.0.1/24`` or ``fd00::1/64``.

    One that it has already is fine. An IPv6 address can be used at once, without the second that the search
    for a duplicate takes. EINVAL for what is no address; the kernel's errors: EPERM without CAP_NET_ADMIN, ENODEV.
    """
    try:
        interface = ipaddress.ip_interface(address)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"{address!r} is no address like 10.0.0.1/24: {error}") from None
    family, flags = (socket.AF_INET, 0) if interface.version == 4 else (socket.AF_INET6, IFA_F_NODAD)
    message = struct.pack("=BBBBi", family, interface.network.prefixlen, flags, 0, index)
    message += _attribute(IFA_LOCAL, interface.packed) + _attribute(IFA_ADDRESS, interface.packed)
    with contextlib.suppress(FileExistsError):
        _tell(RTM_NEWADDR, message, f"cannot give interface {index} the address {address}")


def add_route(index: int, gateway: str, destination: str | None = None) -> None:
    """Send what goes to ``destination`` (``10.8.0.0/16``; None: whatever has no other route) to ``gateway``.

    ``gateway`` must be reachable through the interface. EINVAL for what is no address; the kernel's errors: EEXIST,
    ENETUNREACH when the interface is down or has no address near the gateway, EPERM without CAP_NET_ADMIN.
    """
    try:
        via = ipaddress.ip_address(gateway)
        to = ipaddress.ip_network(destination or ("0.0.0.0/0" if via.version == 4 else "::/0"))
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no route to {destination or 'everywhere'} by {gateway!r}: {error}") from None
    if via.version != to.version:
        raise OSError(errno.EINVAL, f"{gateway} and {destination} are of two versions of IP")
    family = socket.AF_INET if via.version == 4 else socket.AF_INET6
    message = struct.pack("=BBBBBBBBI", family, to.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    if to.prefixlen:
        message += _attribute(RTA_DST, to.network_address.packed)
    message += _attribute(RTA_OIF, struct.pack("=i", index)) + _attribute(RTA_GATEWAY, via.packed)
    _tell(RTM_NEWROUTE, message, f"cannot add the route to {to} by {gateway} through interface {index}")


def _ask(fd: int, request: int, name: str) -> bytes:
    reply: bytes = fcntl.ioctl(fd, request, IFREQ.pack(os.fsencode(name)[:NAME_MAX], b""))
    return reply[16:]


def _tell(kind: int, body: bytes, failure: str) -> None:
    """Ask the kernel for a change and wait until it is made; its refusal becomes an ``OSError`` that starts so."""
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(ACK_TIMEOUT)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            with contextlib.suppress(OSError):
                sock.setsockopt(SOL_NETLINK, option, 1)
        sock.sendto(HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body, (0, 0))
        for answer, reply_flags, rest in messages(sock.recv(65536)):
            if answer == NLMSG_ERROR and len(rest) >= 4:
                _raise_refusal(rest, reply_flags, failure)


def _raise_refusal(body: bytes, flags: int, failure: str) -> None:
    """Raise what a ``struct nlmsgerr`` says, if it is not the acknowledgement of success."""
    number = -struct.unpack_from("=i", body)[0]
    if number == 0:
        return
    said = dict(attributes(body[4 + HEADER.size :])) if flags & NLM_F_ACK_TLVS else {}
    words = said.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace").rstrip(".")
    raise OSError(number, f"{failure}: {words or os.strerror(number)}")


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Give type, flags and body of each whole netlink message in ``data``."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, _, _ = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            return
        yield kind, flags, data[offset + HEADER.size : offset + length]
        offset += _aligned(length)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give type and value of each whole attribute in ``data``."""
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if not ATTRIBUTE.size <= length <= len(data) - offset:
            return
        yield kind & ATTRIBUTE_TYPE, data[offset + ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _attribute(kind: int, value: bytes) -> bytes:
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
