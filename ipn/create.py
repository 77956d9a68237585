"""``bind``: creating a network's socket file and handing it to the daemon, or joining the network already there.

The caller creates the socket file, so the kernel applies the caller's umask, the directory's permissions and
quotas; the daemon only receives the listening descriptor and one that names the file (O_PATH).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from .abi import DEFAULT_FLAGS, DEFAULT_MODE, DEFAULT_MSGPOOLSIZE, DEFAULT_MTU, DEFAULT_NUMNODES
from .channel import ControlChannel
from .control import Message
from .rendezvous import connect_either_way, open_daemon, open_network, short_address, stat_socket

BACKLOG: Final = 4096
LOCK_SECONDS: Final = 2.0
"""Longest wait for others who create in the same directory; beyond, somebody holds the lock who has no business to."""
LOCK_PAUSE: Final = 0.002
ATTEMPTS: Final = 100
"""How often to start over when networks at the path end and others are created under our eyes."""


class AlreadyThere(FileExistsError):
    """A network lives where a new one was wanted. EEXIST."""


class Creation(NamedTuple):
    """How a network that does not exist yet is to be created; an existing one keeps what it has."""

    mtu: int = DEFAULT_MTU
    maxports: int = DEFAULT_NUMNODES
    pool: int = DEFAULT_MSGPOOLSIZE
    flags: int = DEFAULT_FLAGS
    mode: int = DEFAULT_MODE
    """Mode of the socket file, less the umask."""
    exact_mode: int | None = None
    """Mode of the socket file whatever the umask, or None."""
    gid: int | None = None
    """Group of the socket file, or None for the one the kernel gives it."""
    persistent: bool = False
    exclusive: bool = False
    """Whether a network that exists already is an error (EEXIST) instead of being joined."""


def create_network(path: str, policy: int, creation: Creation) -> tuple[ControlChannel, Message]:
    """Create the network at ``path``, or join it for management; return the connection and the network's options.

    A stale socket file that the caller owns is made anew. Errors as ``Socket.bind``.
    """
    path = _resolved(path)
    for _ in range(ATTEMPTS):
        if os.path.exists(path):
            try:
                channel, info = _join(path, policy)
                if creation.exclusive:
                    channel.close()
                    raise AlreadyThere(errno.EEXIST, f"a network already lives at {path}", path)
                return channel, info
            except (FileNotFoundError, ConnectionResetError):
                continue  # it ended between the two looks
            except (ConnectionRefusedError, PermissionError) as error:
                if creation.exclusive and error.errno == errno.EPERM:
                    raise AlreadyThere(errno.EEXIST, f"a network already lives at {path}", path) from None
                refusal = error
        else:
            refusal = None
        try:
            return _create(path, policy, creation, refusal)
        except AlreadyThere:
            raise
        except FileExistsError:
            continue  # somebody else was quicker: join theirs
    raise ConnectionRefusedError(errno.ECONNREFUSED, f"the network at {path} keeps coming and going", path)


def _resolved(path: str) -> str:
    """Return where a symbolic link at ``path`` points: bind(2) follows none. ECONNREFUSED when that is nowhere."""
    if not os.path.islink(path):
        return path
    if not os.path.exists(path):
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"{path} is a symbolic link that points nowhere", path)
    return os.path.realpath(path)


def _join(path: str, policy: int) -> tuple[ControlChannel, Message]:
    channel = open_network(path)
    try:
        info, _ = channel.request("bind", policy=policy)
    except BaseException:
        channel.close()
        raise
    return channel, info


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Keep everybody else from looking for a stale file, removing it, binding and listening in ``directory``.

    Without the lock one could remove, as stale, the file that another has just made anew. A directory that the caller
    may not read cannot be locked: then it is done without. What else is wrong with it, bind(2) will say.
    """
    try:
        fd = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(LOCK_PAUSE)
        yield
    finally:
        os.close(fd)


def _remove_if_stale(path: str, refusal: OSError) -> None:
    """Remove the socket file at ``path`` that nobody serves, if it is the caller's; raise ``refusal`` otherwise.

    The owner of a file without w cannot knock at it; that nobody answers at its abstract address must do.
    """
    try:
        info = stat_socket(path)
    except FileNotFoundError:
        return
    if info.st_uid != os.geteuid():
        if isinstance(refusal, PermissionError):
            raise refusal
        raise ConnectionRefusedError(
            errno.ECONNREFUSED,
            f"no network is behind {path}, and it belongs to user {info.st_uid}, who alone may bind it anew",
            path,
        )
    try:
        connect_either_way(path, info).close()
    except ConnectionRefusedError:
        pass
    except PermissionError:
        if refusal.errno != errno.EACCES:
            raise refusal from None
    else:
        try:
            open_network(path).close()
        except OSError:
            raise refusal from None
        raise FileExistsError(errno.EEXIST, "somebody has made it anew", path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _create(
    path: str, policy: int, creation: Creation, refusal: OSError | None
) -> tuple[ControlChannel, Message]:
    if not path or "\0" in path:
        raise OSError(errno.EINVAL, "a network's address is the path of a file")
    channel = open_daemon(autostart=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name_fd = -1
    try:
        # The mode of a unix socket's file is that of the unbound socket, less the umask (unix(7), bind).
        os.fchmod(listener.fileno(), creation.mode if creation.exact_mode is None else creation.exact_mode)
        with _alone_in(os.path.dirname(path)), short_address(path) as address:
            if refusal is not None:
                _remove_if_stale(path, refusal)
            try:
                listener.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise FileExistsError(errno.EEXIST, "exists", path) from None
                raise OSError(error.errno, f"cannot create {path}: {error.strerror}", path) from None
            name_fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            _settle(path, name_fd, creation)
            listener.listen(BACKLOG)
        channel.path = path
        info, _ = channel.request(
            "create",
            fds=(listener.fileno(), name_fd),
            path=os.path.abspath(path),
            policy=policy,
            persistent=creation.persistent,
            mtu=creation.mtu,
            maxports=creation.maxports,
            pool=creation.pool,
            flags=creation.flags,
        )
    except BaseException:
        _remove_own(path, name_fd)
        channel.close()
        raise
    finally:
        listener.close()
        if name_fd >= 0:
            os.close(name_fd)
    return channel, info


def _settle(path: str, name_fd: int, creation: Creation) -> None:
    """Give the new socket file its group and exact mode, before anybody can connect to it."""
    name = f"/proc/self/fd/{name_fd}"
    try:
        if creation.gid is not None:
            os.chown(name, -1, creation.gid)
        if creation.exact_mode is not None:
            os.chmod(name, creation.exact_mode)
    except OSError as error:
        raise OSError(error.errno, f"cannot set mode and group of {path}: {error.strerror}", path) from None


def _remove_own(path: str, name_fd: int) -> None:
    """Remove the socket file that ``name_fd`` names, if it still is at ``path``; nothing when there is none."""
    if name_fd < 0:
        return
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(name_fd)):
            os.unlink(path)
