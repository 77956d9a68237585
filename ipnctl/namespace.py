"""Moving this process into a fresh network namespace, as ``unshare -n`` or, without privilege, ``unshare -rn`` does.

Who has CAP_SYS_ADMIN gets just the network namespace and keeps all its rights on files; who has not gets a user
namespace around it, in which it is root (user_namespaces(7)). unshare(2) comes through ctypes: Python has it from
3.12 on only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

from ipn.libc import call
from ipn.netdev import SIOCSIFFLAGS
from ipn.netlink import IFF_UP, IFREQ, SIOCGIFFLAGS

CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
"""unshare(2), linux/sched.h."""
IFNAMSIZ: Final = 16

OBSTACLES: Final = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
    ("/proc/sys/user/max_user_namespaces", "0", "10000"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
)
"""What keeps users from making user namespaces: the file of the setting, the value that does, one that does not."""


def enter_new_network(hostname: str = "") -> None:
    """Move this process, which must have one thread only, into a fresh network namespace whose loopback is up.

    ``hostname``: with a host name of its own. Errors: EPERM when the caller may make no such namespaces; its text
    says which setting forbids it.
    """
    wanted = CLONE_NEWNET | (CLONE_NEWUTS if hostname else 0)
    try:
        try:
            _unshare(wanted)
        except OSError:
            _unshare_as_root_inside(wanted)
        _set_up("lo")
    except OSError as error:
        raise _refusal(error) from None
    if hostname:
        socket.sethostname(hostname)


def _unshare(flags: int) -> None:
    call("unshare", flags)


def _unshare_as_root_inside(flags: int) -> None:
    """Make a user namespace, too, in which the caller is root, and nobody else exists."""
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path("/proc/self", name).write_text(text)


def _set_up(interface: str) -> None:
    name = interface.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (flags,) = struct.unpack_from("=H", fcntl.ioctl(sock, SIOCGIFFLAGS, IFREQ.pack(name, b"")), IFNAMSIZ)
        fcntl.ioctl(sock, SIOCSIFFLAGS, IFREQ.pack(name, struct.pack("=H", flags | IFF_UP)))


def _refusal(error: OSError) -> PermissionError:
    """Return ``error`` with the reason and what to do about it."""
    what = "you may not make a network namespace"
    for file, forbidding, allowing in OBSTACLES:
        name = file.removeprefix("/proc/sys/").replace("/", ".")
        if _read(file) == forbidding:
            text = f"{what}: {name} is {forbidding}; run it as root, or have root run: sysctl -w {name}={allowing}"
            return PermissionError(errno.EPERM, text)
    reason = "the kernel, or the container that this is in, forbids it to users"
    return PermissionError(errno.EPERM, f"{what} ({error.strerror}): {reason}; run it as root")


def _read(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""
