"""Who may do what: the table of path permissions with IPN's meaning of the bits, and what a real ACL adds."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.access import (
    GROUP,
    GROUP_OBJ,
    MASK,
    OTHER,
    USER,
    USER_OBJ,
    AclEntry,
    FileAccess,
    Peer,
    Rights,
    decode_acl,
    rights,
)
from tests.peers import requires, requires_root

OWNER, GROUP_OF_FILE = 1000, 100
NOBODY = 0xFFFFFFFF
"""The id of entries that name nobody (ACL_UNDEFINED_ID)."""

owner = Peer(1, OWNER, 1)
owner_in_group = Peer(1, OWNER, GROUP_OF_FILE)
member = Peer(1, 2000, GROUP_OF_FILE)
supplementary = Peer(1, 2000, 5, frozenset({6, GROUP_OF_FILE}))
stranger = Peer(1, 2000, 5, frozenset({6, 7}))
root = Peer(1, 0, 0)


def bits(granted: Rights) -> str:
    """Return rights in the way of ``ls -l``."""
    return "".join(letter if has else "-" for letter, has in zip("rwx", granted, strict=True))


MODES = [
    # (who, mode of the socket file, what that gives)
    (owner, 0o700, "rwx"),
    (owner, 0o400, "r--"),
    (owner, 0o200, "-w-"),
    (owner, 0o100, "--x"),
    (owner, 0o077, "---"),
    (owner_in_group, 0o070, "---"),
    (member, 0o070, "rwx"),
    (member, 0o050, "r-x"),
    (member, 0o707, "---"),
    (supplementary, 0o070, "rwx"),
    (supplementary, 0o707, "---"),
    (stranger, 0o007, "rwx"),
    (stranger, 0o006, "rw-"),
    (stranger, 0o004, "r--"),
    (stranger, 0o770, "---"),
    (stranger, 0o777, "rwx"),
    (stranger, 0o7770, "---"),
    (root, 0o000, "rw-"),
    (root, 0o666, "rw-"),
    (root, 0o100, "rwx"),
    (root, 0o010, "rwx"),
    (root, 0o001, "rwx"),
]


@pytest.mark.parametrize("peer, mode, expected", MODES)
def test_the_first_of_owner_group_and_others_that_fits_decides(peer: Peer, mode: int, expected: str) -> None:
    assert bits(rights(peer, FileAccess(mode, OWNER, GROUP_OF_FILE))) == expected


def acl(**bits_of: int) -> tuple[AclEntry, ...]:
    """Return an ACL: ``user``, ``group``, ``mask``, ``other``, and ``u2000``, ``g6`` for named ones."""
    tags = {"user": USER_OBJ, "group": GROUP_OBJ, "mask": MASK, "other": OTHER}
    entries = []
    for name, value in bits_of.items():
        if name in tags:
            entries.append(AclEntry(tags[name], value, NOBODY))
        else:
            entries.append(AclEntry(USER if name[0] == "u" else GROUP, value, int(name[1:])))
    return tuple(entries)


ACLS = [
    # (who, the file's ACL, what that gives)
    (owner, acl(user=4, u1000=7, group=0, mask=7, other=0), "r--"),
    (owner, acl(user=7, group=0, mask=0, other=0), "rwx"),
    (stranger, acl(user=7, u2000=6, group=0, mask=7, other=0), "rw-"),
    (stranger, acl(user=7, u2000=7, group=7, mask=4, other=7), "r--"),
    (stranger, acl(user=7, u2000=0, group=7, mask=7, other=7), "---"),
    (stranger, acl(user=7, u2001=7, group=0, mask=7, other=4), "r--"),
    (stranger, acl(user=7, group=0, g6=6, mask=7, other=0), "rw-"),
    (stranger, acl(user=7, group=0, g6=6, mask=2, other=0), "-w-"),
    (stranger, acl(user=7, group=0, g6=0, mask=7, other=7), "---"),
    (stranger, acl(user=7, group=0, g6=4, g7=2, mask=7, other=0), "rw-"),
    (stranger, acl(user=7, group=0, g5=1, mask=7, other=0), "--x"),
    (stranger, acl(user=7, u2000=4, group=0, g6=7, mask=7, other=7), "r--"),
    (stranger, acl(user=7, group=7, g8=7, mask=7, other=1), "--x"),
    (stranger, acl(user=7, group=7, mask=0, other=6), "rw-"),
    (member, acl(user=7, group=6, mask=7, other=0), "rw-"),
    (member, acl(user=7, group=7, mask=5, other=0), "r-x"),
    (member, acl(user=7, group=0, mask=7, other=7), "---"),
    (supplementary, acl(user=7, group=4, g6=2, mask=7, other=0), "rw-"),
    (root, acl(user=6, group=0, mask=0, other=0), "rw-"),
    (root, acl(user=7, group=0, mask=0, other=0), "rwx"),
]


@pytest.mark.parametrize("peer, entries, expected", ACLS)
def test_an_acl_decides_as_acl5_says(peer: Peer, entries: tuple[AclEntry, ...], expected: str) -> None:
    # With an ACL the group bits of the mode are the mask: they alone give nobody anything.
    by_tag = {entry.tag: entry.bits for entry in entries}
    mode = by_tag[USER_OBJ] << 6 | by_tag[MASK] << 3 | by_tag[OTHER]
    assert bits(rights(peer, FileAccess(mode, OWNER, GROUP_OF_FILE, entries))) == expected


def test_root_may_manage_only_if_somebody_may_after_the_mask() -> None:
    # The kernel looks at the mode, whose group bits are the mask (capable_wrt_inode_uidgid, fs/namei.c).
    masked = acl(user=6, u2000=7, group=6, mask=6, other=0)
    assert bits(rights(root, FileAccess(0o660, OWNER, GROUP_OF_FILE, masked))) == "rw-"


@given(
    st.sampled_from([owner, owner_in_group, member, supplementary, stranger, root]),
    st.integers(0, 0o777),
)
def test_an_acl_that_says_no_more_than_the_mode_changes_nothing(peer: Peer, mode: int) -> None:
    minimal = acl(user=mode >> 6, group=mode >> 3 & 7, other=mode & 7)
    plain = rights(peer, FileAccess(mode, OWNER, GROUP_OF_FILE))
    assert rights(peer, FileAccess(mode, OWNER, GROUP_OF_FILE, minimal)) == plain


def test_rights_are_written_as_letters() -> None:
    assert str(Rights(True, True, True)) == "rwx"
    assert str(Rights(False, True, False)) == "w"
    assert str(Rights(False, False, False)) == "nothing"


# -- ACLs as the kernel has them ---------------------------------------------------------------------------


@pytest.fixture
def socket_file(short_directory: Path) -> Iterator[Path]:
    path = short_directory / "net"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        path.chmod(0o640)
        yield path


def set_acl(path: Path, entries: str) -> tuple[AclEntry, ...]:
    """Give ``path`` an ACL with setfacl(1) and return what ``decode_acl`` makes of the kernel's bytes."""
    subprocess.run(["setfacl", "-m", entries, str(path)], check=True)
    return decode_acl(os.getxattr(path, "system.posix_acl_access"))


@requires("setfacl")
def test_what_setfacl_sets_on_a_socket_file_is_decoded(socket_file: Path) -> None:
    entries = set_acl(socket_file, "u:1234:rw,g:77:r,m::rwx,o::x")
    assert entries == (
        AclEntry(USER_OBJ, 6, NOBODY),
        AclEntry(USER, 6, 1234),
        AclEntry(GROUP_OBJ, 4, NOBODY),
        AclEntry(GROUP, 4, 77),
        AclEntry(MASK, 7, NOBODY),
        AclEntry(OTHER, 1, NOBODY),
    )


@requires("setfacl", "setpriv")
@requires_root
@pytest.mark.parametrize(
    "entries",
    [
        "u:1234:r",
        "u:1234:w",
        "u:1234:rw,m::r",
        "u:1234:-,o::rw",
        "g:77:rw",
        "g:77:r,g:78:w",
        "g:77:-,o::rw",
        "u:1234:r,g:77:w",
        "g:79:rw,o::r",
        "g::rw,m::w,o::r",
    ],
)
def test_read_and_write_are_given_exactly_as_the_kernel_gives_them(short_directory: Path, entries: str) -> None:
    # A regular file: test(1) asks the kernel with faccessat(2), which judges all kinds of file alike.
    path = short_directory / "file"
    path.touch(mode=0o640)
    decoded = set_acl(path, entries)
    info = path.stat()
    ours = rights(
        Peer(1, 1234, 77, frozenset({77, 78})),
        FileAccess(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, decoded),
    )
    become = ["setpriv", "--reuid=1234", "--regid=77", "--groups=77,78", "test"]
    kernel = [subprocess.run([*become, flag, str(path)], check=False).returncode == 0 for flag in ("-r", "-w")]
    assert [ours.receive, ours.send] == kernel


@requires("setfacl")
@given(data=st.data())
def test_a_damaged_attribute_is_no_acl_or_entries_but_never_an_error(data: st.DataObject) -> None:
    sound = b"\x02\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + b"\x06\0" + b"\xff" * 4 for tag in (USER_OBJ, GROUP_OBJ, OTHER)
    )
    assert len(decode_acl(sound)) == 3
    cut = data.draw(st.integers(0, len(sound) - 1))
    assert len(decode_acl(sound[:cut])) < 3
    decode_acl(data.draw(st.binary(max_size=64)))


@pytest.mark.parametrize("attribute", [b"", b"\x02\0\0", b"\x01\0\0\0" + bytes(8), b"\x02\0\0\0" + bytes(7)])
def test_an_attribute_of_another_form_or_version_is_no_acl(attribute: bytes) -> None:
    assert decode_acl(attribute) == ()
