"""Who may do what on a network: r = receive, w = send, x = manage, judged on the socket file. Pure.

The rules are those of path permissions (path_resolution(7), acl(5)) with IPN's meaning of the bits. User 0
always has r and w, and x if any x bit is set.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import attrs

READ, WRITE, MANAGE = 4, 2, 1

ACL_HEADER: Final = struct.Struct("<I")
ACL_ENTRY: Final = struct.Struct("<HHI")
ACL_VERSION: Final = 2
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


@attrs.frozen
class Peer:
    """A process as the kernel vouches for it; ``command`` is its name at that time, or empty."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    command: str = ""

    def __str__(self) -> str:
        return f"{self.command or 'process'}[{self.pid}] of user {self.uid}"


class Rights(NamedTuple):
    """What a peer may do on a network."""

    receive: bool
    send: bool
    manage: bool

    def __str__(self) -> str:
        return "r" * self.receive + "w" * self.send + "x" * self.manage or "nothing"

    @classmethod
    def from_bits(cls, bits: int) -> Rights:
        """Return the rights that the permission bits ``rwx`` stand for."""
        return cls(bool(bits & READ), bool(bits & WRITE), bool(bits & MANAGE))


class AclEntry(NamedTuple):
    """One line of a POSIX ACL: its tag, its permission bits, the uid or gid it names."""

    tag: int
    bits: int
    who: int


@attrs.frozen
class FileAccess:
    """What a socket file says about access: mode bits, owner, group, and its ACL when it has one."""

    mode: int
    uid: int
    gid: int
    acl: tuple[AclEntry, ...] = ()


def decode_acl(data: bytes) -> tuple[AclEntry, ...]:
    """Return the entries of a ``system.posix_acl_access`` (linux/posix_acl_xattr.h), none for anything else."""
    if len(data) < ACL_HEADER.size or ACL_HEADER.unpack_from(data)[0] != ACL_VERSION:
        return ()
    body = data[ACL_HEADER.size :]
    if len(body) % ACL_ENTRY.size:
        return ()
    return tuple(AclEntry(*fields) for fields in ACL_ENTRY.iter_unpack(body))


def rights(peer: Peer, file: FileAccess) -> Rights:
    """Return what ``peer`` may do on the network whose socket file has the access ``file``."""
    if peer.uid == 0:
        return Rights(True, True, bool(file.mode & 0o111))
    groups = peer.groups | {peer.gid}
    if file.acl:
        return Rights.from_bits(_acl_bits(peer.uid, groups, file))
    if peer.uid == file.uid:
        return Rights.from_bits(file.mode >> 6)
    if file.gid in groups:
        return Rights.from_bits(file.mode >> 3)
    return Rights.from_bits(file.mode)


def _acl_bits(uid: int, groups: frozenset[int] | set[int], file: FileAccess) -> int:
    """Apply the access check algorithm of acl(5); several groups that match give what any of them gives per bit."""
    by_tag: dict[int, int] = {entry.tag: entry.bits for entry in file.acl}
    mask = by_tag.get(MASK, 7)
    if uid == file.uid:
        return by_tag.get(USER_OBJ, 0)
    for entry in file.acl:
        if entry.tag == USER and entry.who == uid:
            return entry.bits & mask
    matching = [e.bits for e in file.acl if e.tag == GROUP and e.who in groups]
    if file.gid in groups:
        matching.append(by_tag.get(GROUP_OBJ, 0))
    if matching:
        bits = 0
        for granted in matching:
            bits |= granted
        return bits & mask
    return by_tag.get(OTHER, 0)
