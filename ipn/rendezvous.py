"""How a program finds the daemon behind a network's path, and makes sure that it is the right one.

A network is reached through its socket file or, by members who lack the *w* bit that ``connect(2)``
wants, through the abstract address ``\\0ipn/<st_dev hex>/<st_ino>``. Abstract names can be taken by anybody,
so the other end must be root or the owner of the file (``SO_PEERCRED``, unix(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .autostart import autostart_allowed, start_daemon
from .channel import ControlChannel

UCRED: Final = struct.Struct("=iII")
"""``struct ucred``: pid, uid, gid (unix(7))."""
SUN_PATH_MAX: Final = 107
"""Longest path a ``sockaddr_un`` takes, without its closing NUL."""

SUN_NAME_MAX: Final = SUN_PATH_MAX - len("/proc/self/fd/1234567/")
"""Longest file name of a socket in a directory whose path is too long."""


def control_path() -> str:
    """Return where the daemon's control socket is for this process: ``$IPND_SOCKET``, else by convention."""
    if explicit := os.environ.get("IPND_SOCKET"):
        return os.path.abspath(explicit)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "ipnd", "control")
    if os.geteuid() == 0:
        return "/run/ipnd/control"
    return f"/tmp/ipnd-{os.geteuid()}/control"


def abstract_address(info: os.stat_result) -> bytes:
    """Return the abstract socket address of the network whose socket file has the status ``info``."""
    return b"\0ipn/%x/%d" % (info.st_dev, info.st_ino)


@contextlib.contextmanager
def short_address(path: str) -> Iterator[str]:
    """Give an address for ``path`` that fits a ``sockaddr_un``, through a descriptor of its directory if need be."""
    if len(os.fsencode(path)) <= SUN_PATH_MAX:
        yield path
        return
    directory, name = os.path.split(path)
    if len(os.fsencode(name)) > SUN_NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, f"the name {name} is too long for a socket", path)
    fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def peer_uid(sock: socket.socket) -> int:
    """Return the uid of the process at the other end of a unix socket."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    return int(UCRED.unpack(credentials)[1])


def open_network(path: str) -> ControlChannel:
    """Return a greeted control connection to the daemon of the network at ``path``.

    Errors: those of ``stat(2)`` (ENOENT, EACCES of a directory); ECONNREFUSED when ``path`` is no socket, has
    no network behind it, or is answered by somebody who is neither root nor the file's owner; EACCES when
    the socket's mode keeps the caller out.
    """
    info = stat_socket(path)
    sock = connect_either_way(path, info)
    try:
        uid = peer_uid(sock)
        if uid not in (0, info.st_uid):
            raise ConnectionRefusedError(
                errno.ECONNREFUSED,
                f"{path} is answered by user {uid}, who is neither root nor its owner (user {info.st_uid})",
                path,
            )
        channel = ControlChannel(sock, path)
        channel.greet()
    except BaseException:
        sock.close()
        raise
    return channel


def stat_socket(path: str) -> os.stat_result:
    """Return the status of the socket file at ``path``; ECONNREFUSED when it is something else."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"there is no network at {path}; bind creates one", path) from None
    if not stat.S_ISSOCK(info.st_mode):
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"{path} is not a socket, so no network is there", path)
    return info


def connect_either_way(path: str, info: os.stat_result) -> socket.socket:
    """Return a connection to whoever serves the socket file at ``path``, or its abstract address if w is missing.

    ECONNREFUSED when nobody does, EACCES when that cannot be told.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_address(path) as address:
            sock.connect(address)
    except PermissionError:
        try:
            sock.connect(abstract_address(info))
        except OSError:
            sock.close()
            text = f"permission denied on {path}, and no ipnd answers at its abstract address"
            raise PermissionError(errno.EACCES, text, path) from None
    except ConnectionRefusedError:
        sock.close()
        text = f"no network is behind {path}: its ipnd has ended (bind makes a new one)"
        raise ConnectionRefusedError(errno.ECONNREFUSED, text, path) from None
    except OSError as error:
        sock.close()
        if error.errno != errno.EPROTOTYPE:
            raise
        text = f"{path} is a socket of another kind, so no network is there"
        raise ConnectionRefusedError(errno.ECONNREFUSED, text, path) from None
    return sock


def open_daemon(*, autostart: bool = False) -> ControlChannel:
    """Return a greeted control connection to the daemon itself.

    With ``autostart`` a per-user ipnd is started when none runs, unless ``IPN_AUTOSTART=0``. Errors:
    ECONNREFUSED when no daemon runs (and none may be started), EACCES when it cannot be reached.
    """
    path = control_path()
    for attempt in range(3):
        try:
            return _greet_daemon(path)
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError) as error:
            # A daemon that is just leaving may reset us: then the next round starts a new one.
            if not autostart or not autostart_allowed() or attempt == 2:
                text = f"no ipnd answers at {path} ({error.strerror}); start one with: ipnd"
                raise ConnectionRefusedError(errno.ECONNREFUSED, text, path) from None
        start_daemon(path)
    raise AssertionError("unreachable")


def registered_policies() -> dict[str, int]:
    """Return name → number of the policies that the running daemon has; empty when none runs."""
    try:
        channel = open_daemon()
    except OSError:
        return {}
    try:
        return {str(policy["name"]): int(policy["number"]) for policy in channel.request("policies")[0]}
    finally:
        channel.close()


def _greet_daemon(path: str) -> ControlChannel:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_address(path) as address:
            sock.connect(address)
        trusted = {0, os.geteuid()}
        if "IPND_SOCKET" in os.environ:
            trusted.add(Path(path).stat().st_uid)
        if (uid := peer_uid(sock)) not in trusted:
            raise PermissionError(errno.EACCES, f"the daemon at {path} runs as user {uid}, who is not trusted", path)
        channel = ControlChannel(sock, path)
        channel.greet()
    except BaseException:
        sock.close()
        raise
    return channel
