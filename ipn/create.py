"""``bind``: creating a network's socket file and handing it to the daemon, or joining the network already there.

The caller creates the socket file, so the kernel applies the caller's umask, the directory's permissions and
quotas; the daemon only receives the listening descriptor and one that names the file (O_PATH).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from typing import Final

from .channel import ControlChannel
from .control import Message
from .rendezvous import connect_either_way, open_daemon, open_network, short_address, stat_socket

BACKLOG: Final = 4096
STALE_PROBES: Final = 3
"""How often a socket file must refuse before it counts as stale: its creator may be between bind and listen."""
STALE_PAUSE: Final = 0.02
ATTEMPTS: Final = 100
"""How often to start over when networks at the path end and others are created under our eyes."""


def create_network(
    path: str, policy: int, options: Message, *, persistent: bool
) -> tuple[ControlChannel, Message]:
    """Create the network at ``path``, or join it for management; return the connection and the network's options.

    ``options``: mtu, maxports, pool, flags, mode. A stale socket file that the caller owns is made anew.
    Errors as ``Socket.bind``.
    """
    path = _resolved(path)
    for _ in range(ATTEMPTS):
        if os.path.exists(path):
            try:
                return _join(path, policy)
            except (ConnectionRefusedError, PermissionError) as refusal:
                _remove_if_stale(path, refusal)
            except (FileNotFoundError, ConnectionResetError):
                continue  # it ended between the two looks
        try:
            return _create(path, policy, options, persistent=persistent)
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
    for attempt in range(STALE_PROBES):
        try:
            channel = open_network(path)
            break
        except ConnectionRefusedError:
            stat_socket(path)
            if attempt == STALE_PROBES - 1:
                raise
            time.sleep(STALE_PAUSE)
    try:
        info, _ = channel.request("bind", policy=policy)
    except BaseException:
        channel.close()
        raise
    return channel, info


def _remove_if_stale(path: str, refusal: OSError) -> None:
    """Remove the socket file at ``path`` that nobody serves, if it is the caller's; raise ``refusal`` otherwise.

    The owner of a file without w cannot knock at it; that nobody answers at its abstract address must do.
    """
    info = stat_socket(path)
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
        raise refusal
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _create(path: str, policy: int, options: Message, *, persistent: bool) -> tuple[ControlChannel, Message]:
    if not path or "\0" in path:
        raise OSError(errno.EINVAL, "a network's address is the path of a file")
    channel = open_daemon(autostart=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    created = False
    name_fd = -1
    try:
        # The mode of a unix socket's file is that of the unbound socket, less the umask (unix(7), bind).
        os.fchmod(listener.fileno(), int(options["mode"]))
        with short_address(path) as address:
            try:
                listener.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise FileExistsError(errno.EEXIST, "exists", path) from None
                raise OSError(error.errno, f"cannot create {path}: {error.strerror}", path) from None
        created = True
        listener.listen(BACKLOG)
        name_fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        channel.path = path
        info, _ = channel.request(
            "create",
            fds=(listener.fileno(), name_fd),
            path=os.path.abspath(path),
            policy=policy,
            persistent=persistent,
            **{field: options[field] for field in ("mtu", "maxports", "pool", "flags")},
        )
    except BaseException:
        if created:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        channel.close()
        raise
    finally:
        listener.close()
        if name_fd >= 0:
            os.close(name_fd)
    return channel, info
