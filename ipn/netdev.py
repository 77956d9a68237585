"""Opening an interface of the host to put it on a network, with the caller's own privilege.

A *TAP* is an interface whose other end is a descriptor: what the host sends there is read here, and the reverse
(Documentation/networking/tuntap.rst). A *GRAB* is a packet socket (packet(7)) that takes over what an existing
interface hears and sends through it. In both, each frame has a ``struct virtio_net_hdr`` of 10 bytes before it.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from .ifnames import DEFAULT_TAP_NAME, MAX_TAP_MTU, MIN_MTU
from .ifnames import check_name as check_name
from .ifnames import format_mac as format_mac
from .ifnames import parse_mac as parse_mac
from .ifnames import tap_mtu as tap_mtu
from .netlink import (
    ARPHRD_ETHER,
    ARPHRD_LOOPBACK,
    IFF_UP,
    IFREQ,
    SIOCGIFFLAGS,
    add_address,
    link,
    watch_links,
)
from .rendezvous import peer_uid

TUN_PATH: Final = "/dev/net/tun"

# ioctl requests on the descriptor of a TAP (linux/if_tun.h).
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
TUNSETOWNER: Final = 0x400454CC
TUNGETIFF: Final = 0x800454D2
TUNSETVNETHDRSZ: Final = 0x400454D8

# What TUNSETIFF takes as the flags of a TAP.
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000
IFF_PERSIST: Final = 0x0800
"""In the flags that TUNGETIFF returns: the TAP stays when its descriptor is closed."""

# What TUNSETOFFLOAD takes: the frames that the reader of the descriptor finishes itself.
TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_TSO_ECN: Final = 0x08
TUN_F_UFO: Final = 0x10
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40

VNET_HEADER_SIZE: Final = 10
"""``struct virtio_net_hdr`` before each frame, in both directions, of a TAP and of a GRAB."""

SIOCSIFFLAGS: Final = 0x8914
SIOCSIFMTU: Final = 0x8922
SIOCSIFHWADDR: Final = 0x8924
SIOCGIFTXQLEN: Final = 0x8942
SIOCSIFTXQLEN: Final = 0x8943

ETH_P_ALL: Final = 0x0003
SOL_PACKET: Final = 263
PACKET_ADD_MEMBERSHIP: Final = 1
PACKET_AUXDATA: Final = 8
PACKET_VNET_HDR: Final = 15
PACKET_FANOUT: Final = 18
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_FANOUT_HASH: Final = 0
PACKET_FANOUT_FLAG_UNIQUEID: Final = 0x2000
PACKET_FANOUT_FLAG_IGNORE_OUTGOING: Final = 0x4000
PACKET_MR_PROMISC: Final = 1
PACKET_MREQ: Final = struct.Struct("=iHH8s")
SO_ATTACH_FILTER: Final = 26
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33

SOCK_FILTER: Final = struct.Struct("=HBBI")
"""``struct sock_filter``: code, where to jump when true and when false, operand (networking/filter.rst)."""
NOT_OUTGOING: Final = b"".join(
    SOCK_FILTER.pack(*instruction)
    for instruction in (
        (0x20, 0, 0, 0xFFFFF004),  # load the packet's type
        (0x15, 0, 1, 4),  # PACKET_OUTGOING?
        (0x06, 0, 0, 0),  # then drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # else take all of it
    )
)

TX_QUEUE: Final = 1000
"""Frames that the host may have waiting for the reader of a TAP: what its own Ethernet devices have."""
GRAB_BUFFER: Final = 4 << 20
"""Bytes of frames that a GRAB holds while its reader is busy: some 30 ms of 1 Gbit/s."""
LOCK_BACKLOG: Final = 4096
"""How often somebody may ask who holds the lock of a GRAB (at most net.core.somaxconn). Nobody accepts, so each asking
stays in the queue; when that is full, it cannot be told who holds the lock, and it counts no more."""


class Device(NamedTuple):
    """An opened interface: ``kind`` is ``tap`` or ``grab``. Who has it owns the descriptors (``close_device``).

    ``fds`` of a TAP: the TAP, a watch. Of a GRAB: the packet socket, a watch, a lock that keeps others from grabbing
    the interface too. The watch is a ``netlink.watch_links`` socket of the interface's network namespace.
    """

    kind: str
    name: str
    index: int  # type: ignore[assignment]  # in the place of tuple.index, which nobody misses
    fds: tuple[int, ...]


class NoPrivilege(PermissionError):
    """The caller may not open such a device itself; one with the privilege could do it for them (EPERM, EACCES)."""


def close_device(device: Device) -> None:
    """Close the descriptors of ``device``; a TAP that is not persistent ends with them."""
    for fd in device.fds:
        os.close(fd)


def set_mac(fd: int, mac: str) -> None:
    """Give the TAP with the descriptor ``fd`` a MAC address. Whoever holds the descriptor may: no privilege is needed.

    EINVAL for what is none, EADDRNOTAVAIL when the kernel will not have it.
    """
    packed = parse_mac(mac)
    fcntl.ioctl(fd, SIOCSIFHWADDR, IFREQ.pack(b"", struct.pack("=H6s", ARPHRD_ETHER, packed)))


# -- TAP ---------------------------------------------------------------------------------------------------------


def open_tap(
    name: str = "",
    *,
    mac: str | None = None,
    mtu: int | None = None,
    up: bool = False,
    addresses: Sequence[str] = (),
    owner: int | None = None,
    exclusive: bool = False,
) -> Device:
    """Return a TAP in the caller's network namespace: a new one, or an existing persistent one of that name.

    ``name``: empty for ``ipn%d``. ``mac``: None keeps what the kernel chose (random). ``mtu``: that of the interface in
    bytes, without Ethernet header; None leaves it (1500 of a new one). ``addresses``: like ``10.0.0.1/24``.
    ``owner``: the uid that may open it again once it is persistent (None: the caller's of a new one, else as it is).
    ``exclusive``: only a new one.

    Errors: ``NoPrivilege`` without CAP_NET_ADMIN over the namespace (an existing one of the caller's needs none) or
    without access to /dev/net/tun, ENODEV without /dev/net/tun; EINVAL for a bad name, MAC address, MTU or address,
    or when the name is that of an interface which is no TAP; EBUSY when it is in use, or exists and must not.
    Then nothing is left behind.
    """
    check_name(name)
    if mac is not None:
        parse_mac(mac)
    if mtu is not None and not MIN_MTU <= mtu <= MAX_TAP_MTU:
        raise OSError(errno.EINVAL, f"a TAP has an MTU from {MIN_MTU} to {MAX_TAP_MTU} bytes, not {mtu}")
    with contextlib.ExitStack() as undo:
        watch = undo.enter_context(watch_links())
        tap = _open_tun()
        undo.callback(os.close, tap)
        real_name = _attach(tap, name or DEFAULT_TAP_NAME, exclusive)
        index = link(watch, name=real_name).index
        fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("=i", VNET_HEADER_SIZE))
        if owner is not None or not _is_persistent(tap):
            # Without an owner, anybody may open it once it is persistent.
            fcntl.ioctl(tap, TUNSETOWNER, os.geteuid() if owner is None else owner)
        if mac is not None:
            set_mac(tap, mac)
        _configure(watch, real_name, mtu, up, addresses)
        undo.pop_all()
        return Device("tap", real_name, index, (tap, watch.detach()))


def _open_tun() -> int:
    try:
        return os.open(TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise NoPrivilege(errno.EACCES, f"user {os.geteuid()} has no access to {TUN_PATH}") from error
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise
        text = f"there is no {TUN_PATH} here: the kernel's module tun is missing, or the device in this container"
        raise OSError(errno.ENODEV, text) from None


def _attach(tap: int, name: str, exclusive: bool) -> str:
    """Make the new descriptor of /dev/net/tun that of the TAP ``name`` and return how it is called."""
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (IFF_TUN_EXCL if exclusive else 0)
    try:
        reply = fcntl.ioctl(tap, TUNSETIFF, IFREQ.pack(name.encode(), struct.pack("=H", flags)))
    except PermissionError:
        text = f"making the TAP {name} needs CAP_NET_ADMIN, which user {os.geteuid()} has not"
        raise NoPrivilege(errno.EPERM, text) from None
    except OSError as error:
        words = {
            errno.EINVAL: f"there is an interface {name} which is no TAP with one queue",
            errno.EBUSY: f"the interface {name} {'exists already' if exclusive else 'is in use by another program'}",
        }
        if error.errno not in words or "%" in name:
            raise
        raise OSError(error.errno, words[error.errno]) from None
    return os.fsdecode(reply[:16].split(b"\0")[0])


def _is_persistent(tap: int) -> bool:
    flags = struct.unpack_from("=H", fcntl.ioctl(tap, TUNGETIFF, IFREQ.pack(b"", b"")), 16)[0]
    return bool(flags & IFF_PERSIST)


def _configure(sock: socket.socket, name: str, mtu: int | None, up: bool, addresses: Sequence[str]) -> None:
    """Make the interface ``name`` as it is wanted; what is so already needs no privilege."""
    fd = sock.fileno()
    queue = IFREQ.pack(name.encode(), struct.pack("=i", TX_QUEUE))
    with contextlib.suppress(OSError):
        if struct.unpack_from("=i", fcntl.ioctl(fd, SIOCGIFTXQLEN, queue), 16)[0] < TX_QUEUE:
            fcntl.ioctl(fd, SIOCSIFTXQLEN, queue)
    now = link(sock, name=name)
    try:
        if mtu is not None and mtu != now.mtu:
            fcntl.ioctl(fd, SIOCSIFMTU, IFREQ.pack(name.encode(), struct.pack("=i", mtu)))
        for address in addresses:
            add_address(now.index, address)
        if up and not now.up:
            flags = struct.unpack_from("=H", fcntl.ioctl(fd, SIOCGIFFLAGS, IFREQ.pack(name.encode(), b"")), 16)[0]
            fcntl.ioctl(fd, SIOCSIFFLAGS, IFREQ.pack(name.encode(), struct.pack("=H", flags | IFF_UP)))
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        text = f"changing the existing TAP {name} needs CAP_NET_ADMIN, which user {os.geteuid()} has not"
        raise PermissionError(errno.EPERM, text) from None


# -- GRAB --------------------------------------------------------------------------------------------------------


def open_grab(name: str) -> Device:
    """Return a packet socket that hears all that the Ethernet interface ``name`` hears, and sends through it.

    The interface is promiscuous while the socket is open; the host's own stack goes on using it. What the host itself
    sends is not heard. The socket cannot be bound to another interface. Each frame has a ``virtio_net_hdr`` before
    it, and a VLAN tag that the hardware took off comes as PACKET_AUXDATA.

    Errors: ``NoPrivilege`` without CAP_NET_RAW over the namespace; EINVAL for the loopback interface, one that is not
    Ethernet, or none of this name; EBUSY when it is grabbed already.
    """
    check_name(name, "grab")
    try:
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError:
        text = f"grabbing {name} needs CAP_NET_RAW, which user {os.geteuid()} has not"
        raise NoPrivilege(errno.EPERM, text) from None
    with contextlib.ExitStack() as undo:
        undo.enter_context(packet)
        watch = undo.enter_context(watch_links())
        index = _bind_silently(packet, name)
        lock = undo.enter_context(_lock(name, index))
        packet.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        packet.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        _ignore_outgoing(packet)
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            with contextlib.suppress(OSError):
                packet.setsockopt(socket.SOL_SOCKET, option, GRAB_BUFFER)
        membership = PACKET_MREQ.pack(index, PACKET_MR_PROMISC, 0, b"")
        packet.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
        packet.bind((name, ETH_P_ALL))
        _pin(packet, name)
        packet.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # ENETDOWN of an interface that is down is no news
        undo.pop_all()
        return Device("grab", name, index, (packet.detach(), watch.detach(), lock.detach()))


def _bind_silently(packet: socket.socket, name: str) -> int:
    """Bind to the interface for no protocol yet, so that nothing comes, and return its index when it may be grabbed."""
    try:
        packet.bind((name, 0))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        raise OSError(errno.EINVAL, f"there is no interface {name} to grab") from None
    real_name, _, _, hardware, _ = packet.getsockname()
    if hardware == ARPHRD_LOOPBACK:
        raise OSError(errno.EINVAL, f"{name} is the loopback interface, which cannot be grabbed")
    if hardware != ARPHRD_ETHER:
        raise OSError(
            errno.EINVAL, f"{name} is no Ethernet interface but of hardware type {hardware}; it cannot be grabbed"
        )
    if real_name != name:
        raise OSError(errno.EINVAL, f"{name} is only another name of the interface {real_name}; grab it by that one")
    return link(packet, name=name).index


def _ignore_outgoing(packet: socket.socket) -> None:
    """Hear nothing of what this host sends.

    PACKET_IGNORE_OUTGOING does not count in a fanout group, whose own flag came with Linux 6.2; hence the filter.
    """
    packet.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    program = array.array("B", NOT_OUTGOING)
    address, size = program.buffer_info()
    packet.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", size // SOCK_FILTER.size, address))


def _pin(packet: socket.socket, name: str) -> None:
    """Make the socket the only member of a fanout group: such a one cannot be bound to another interface."""
    group = (PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_UNIQUEID | PACKET_FANOUT_FLAG_IGNORE_OUTGOING) << 16
    try:
        packet.setsockopt(SOL_PACKET, PACKET_FANOUT, struct.pack("=I", group))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        text = f"{name} is down, and this kernel lets an interface be grabbed only when it is up"
        raise OSError(errno.ENETDOWN, text) from None


def _lock(name: str, index: int) -> socket.socket:
    """Return a socket that has the abstract address of this interface's lock; EBUSY when root or this user has it.

    Anybody can take an abstract address. One who may not grab must not keep others from it: then there is no lock.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(b"\0ipn/grab/%d" % index)
        sock.listen(LOCK_BACKLOG)
    except OSError as error:
        try:
            if error.errno != errno.EADDRINUSE:
                raise
            if _lock_holder(index) in (0, os.geteuid()):
                raise OSError(errno.EBUSY, f"the interface {name} is grabbed already") from None
        except BaseException:
            sock.close()
            raise
    return sock


def _lock_holder(index: int) -> int | None:
    """Return the uid of who listens on the lock's address, None when that cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asker:
        try:
            asker.connect(b"\0ipn/grab/%d" % index)
            return peer_uid(asker)
        except OSError:
            return None
