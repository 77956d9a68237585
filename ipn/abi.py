"""The published numbers of AF_IPN: families, policies, options, flags, ioctls and their defaults.

Pure: constants and two ``struct`` layouts, nothing else. Values are those of the 2007 proposal
(``include/net/af_ipn.h`` of the patch); programs compiled against it rely on them.
"""

from __future__ import annotations

import struct
import sys
from typing import Final, NamedTuple

AF_IPN: Final = 34
PF_IPN: Final = AF_IPN
SOCK_RAW: Final = 3

# Policies ("protocols" of the socket call).
IPN_ANY: Final = 0
IPN_BROADCAST: Final = 1
IPN_HUB: Final = IPN_BROADCAST
IPN_VDESWITCH: Final = 2
IPN_VDESWITCH_L3: Final = 3
IPN_MAX_PROTO: Final = 255
"""Highest policy number a network may have (the patch had room for 4)."""

POLICY_NAMES: Final[dict[str, int]] = {
    "any": IPN_ANY,
    "broadcast": IPN_BROADCAST,
    "vdeswitch": IPN_VDESWITCH,
    "l3switch": IPN_VDESWITCH_L3,
}
"""Names of the policies every ipnd knows or reserves; ``hub`` is accepted as an alias."""

# Node options.
IPN_SO_PORT: Final = 0
IPN_SO_DESCR: Final = 1
IPN_SO_CHANGE_NUMNODES: Final = 2
IPN_SO_HANDLE_OOB: Final = 3
IPN_SO_WANT_OOB_NUMNODES: Final = 4
# Network options: the PREBIND flag marks them.
IPN_SO_PREBIND: Final = 0x80
IPN_SO_MTU: Final = 0x80
IPN_SO_NUMNODES: Final = 0x81
IPN_SO_MSGPOOLSIZE: Final = 0x82
IPN_SO_FLAGS: Final = 0x83
IPN_SO_MODE: Final = 0x84

IPN_PORTNO_ANY: Final = -1
IPN_DESCRLEN: Final = 128

IPN_FLAG_LOSSLESS: Final = 1
IPN_FLAG_TERMINATED: Final = 0x1000

IPN_NODEFLAG_BOUND: Final = 0x1
IPN_NODEFLAG_INUSE: Final = 0x2
IPN_NODEFLAG_PERSIST: Final = 0x4
IPN_NODEFLAG_TAP: Final = 0x10
IPN_NODEFLAG_GRAB: Final = 0x20
IPN_NODEFLAG_OOB_NUMNODES: Final = 0x40

IPN_OOB_NUMNODE_TAG: Final = 0


def _iow(kind: str, number: int, size: int) -> int:
    """Return the ioctl request number of ``_IOW(kind, number, …)`` (asm-generic/ioctl.h)."""
    return (1 << 30) | (size << 16) | (ord(kind) << 8) | number


IPN_SETPERSIST_NETDEV: Final = _iow("I", 200, 4)
IPN_CLRPERSIST_NETDEV: Final = _iow("I", 201, 4)
IPN_CONN_NETDEV: Final = _iow("I", 202, 4)
IPN_JOIN_NETDEV: Final = _iow("I", 203, 4)
IPN_SETPERSIST: Final = _iow("I", 204, 4)

# The structure that most of them take (netdevice(7)): a name, then a union of flags, index, address …
IFREQ: Final = struct.Struct("@16s24s")
IFNAMSIZ: Final = 16
SIOCSIFHWADDR: Final = 0x8924

# Defaults of a new network (the patch's STD_BIND_PARMS; its mode 0x777 was a typo for 0o777).
DEFAULT_MTU: Final = 1514
DEFAULT_NUMNODES: Final = 32
DEFAULT_MSGPOOLSIZE: Final = 8
DEFAULT_FLAGS: Final = 0
DEFAULT_MODE: Final = 0o777

MAX_MTU: Final = 16 * 1024 * 1024
"""Largest MTU, and largest length the stream framing may announce, in bytes."""
MAX_NUMNODES: Final = 65536
"""Most ports a network may have: ten times what a machine's descriptors allow, a bound against typos."""
MAX_MSGPOOLSIZE: Final = 1 << 20
"""Most messages a pool may hold."""

NUMNODE_OOB: Final = struct.Struct("@iiii")


class NumNodes(NamedTuple):
    """``struct numnode_oob``: the notice that the number of readers or writers changed."""

    level: int
    tag: int
    numreaders: int
    numwriters: int

    def pack(self) -> bytes:
        """Return the notice as the C structure, native byte order, 16 bytes."""
        return NUMNODE_OOB.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> NumNodes:
        """Return the notice held in the first 16 bytes of ``data``; ``struct.error`` when there are fewer."""
        return cls._make(NUMNODE_OOB.unpack_from(data))


class IfReq(NamedTuple):
    """``struct ifreq``: the name of an interface, and what the request needs besides."""

    name: str = ""
    union: bytes = b""

    def pack(self) -> bytes:
        """Return the C structure, native byte order, 40 bytes."""
        return IFREQ.pack(self.name.encode("utf-8", "surrogateescape")[: IFNAMSIZ - 1], self.union)

    @classmethod
    def unpack(cls, data: bytes) -> IfReq:
        """Return the request held in ``data``, whose end may be missing; ``struct.error`` when there is no name."""
        name, union = IFREQ.unpack(data.ljust(IFREQ.size, b"\0")[: IFREQ.size])
        return cls(name.split(b"\0")[0].decode("utf-8", "surrogateescape"), union)

    @property
    def flags(self) -> int:
        """``ifr_flags``."""
        return int.from_bytes(self.union[:2], sys.byteorder)

    @property
    def ifindex(self) -> int:
        """``ifr_ifindex``."""
        return int.from_bytes(self.union[:4], sys.byteorder, signed=True)

    @property
    def mac(self) -> str:
        """The Ethernet address in ``ifr_hwaddr``, like ``02:00:00:00:00:01``."""
        return self.union[2:8].hex(":")


def ifreq(name: str = "", *, flags: int = 0, index: int = 0, mac: str = "") -> bytes:
    """Return a ``struct ifreq`` for ``Socket.ioctl``, with one of flags, index and MAC address."""
    if mac:
        union = (1).to_bytes(2, sys.byteorder) + bytes.fromhex(mac.replace(":", ""))
    else:
        union = flags.to_bytes(2, sys.byteorder) if flags else index.to_bytes(4, sys.byteorder)
    return IfReq(name, union).pack()


def policy_number(policy: int | str) -> int:
    """Return the number of a policy given by number or name; ``ValueError`` for a name nobody knows."""
    if isinstance(policy, int):
        return policy
    name = "broadcast" if policy == "hub" else policy
    if name not in POLICY_NAMES:
        raise ValueError(f"unknown policy {policy!r}; known are {', '.join(POLICY_NAMES)}")
    return POLICY_NAMES[name]


def policy_name(number: int) -> str:
    """Return the name of a policy number, or the number as text when it has none."""
    return next((name for name, value in POLICY_NAMES.items() if value == number), str(number))
