"""Persistent networks on disk: written atomically at each change, read once at start.

The file is JSON. What a write leaves behind is either the old list or the new one, also when the machine loses
power: written beside it, synced, renamed over it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

from ipn.create import BACKLOG
from ipn.rendezvous import connect_either_way, short_address

from .fixture import SavedFixture
from .netdev.saved import SavedInterface
from .network import ACL_ATTRIBUTE, Network, Options
from .ownership import acting_as

log = logging.getLogger("ipnd.state")

VERSION: Final = 1


@attrs.frozen
class SavedNetwork:
    """A persistent network as the state file has it."""

    path: str
    policy: int
    mtu: int
    maxports: int
    pool: int
    flags: int
    mode: int
    uid: int
    gid: int
    policy_state: dict[str, Any] = attrs.field(factory=dict)
    interfaces: list[SavedInterface] = attrs.field(factory=list)
    fixtures: list[SavedFixture] = attrs.field(factory=list)

    @classmethod
    def of(cls, network: Network) -> SavedNetwork:
        """Return what must be known of ``network`` to make it again."""
        file, options = network.file_access(), network.options
        return cls(
            path=network.path,
            policy=network.policy.number,
            mtu=options.mtu,
            maxports=options.maxports,
            pool=options.pool,
            flags=options.flags,
            mode=file.mode,
            uid=file.uid,
            gid=file.gid,
            policy_state=network.runner.hook("state"),
            interfaces=[saved for port in network.ports.values() if (saved := SavedInterface.of(port))]
            + network.interfaces.unrestored,
            fixtures=network.fixtures.saved(),
        )

    @property
    def options(self) -> Options:
        """The network's options."""
        return Options(mtu=self.mtu, maxports=self.maxports, pool=self.pool, flags=self.flags)


def save(path: Path, networks: list[SavedNetwork]) -> None:
    """Write the list to ``path``; OSError when that fails, and the old file stays."""
    content = {"version": VERSION, "networks": [attrs.asdict(network) for network in networks]}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path) -> list[SavedNetwork]:
    """Return the list in ``path``; empty when there is none. A file nobody can read is put aside, with a log line."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']} is not {VERSION}")
        return [_checked(entry) for entry in content["networks"]]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        aside = path.with_name(path.name + ".unreadable")
        log.error("the state file %s cannot be read (%s); it is kept as %s", path, error, aside)
        os.replace(path, aside)
        return []


def _checked(entry: dict[str, Any]) -> SavedNetwork:
    interfaces = [SavedInterface.checked(interface) for interface in entry.get("interfaces", [])]
    fixtures = [SavedFixture.checked(fixture) for fixture in entry.get("fixtures", [])]
    saved = SavedNetwork(**{**entry, "interfaces": interfaces, "fixtures": fixtures})
    for field in attrs.fields(SavedNetwork):
        value = getattr(saved, field.name)
        expected = {"path": str, "policy_state": dict, "interfaces": list, "fixtures": list}.get(field.name, int)
        if type(value) is not expected:
            raise ValueError(f"{field.name} is {value!r}")
    return saved


def recreate(saved: SavedNetwork) -> tuple[socket.socket, int]:
    """Make the socket file of a persistent network again; return its listener and an O_PATH descriptor of it.

    The stale file's owner, mode and ACL as they are now are kept. FileExistsError when something else is at the path
    or somebody serves it, other ``OSError`` when the owner could not create it.
    """
    mode, uid, gid, acl = saved.mode, saved.uid, saved.gid, b""
    with contextlib.suppress(FileNotFoundError):
        info = os.lstat(saved.path)
        if not stat.S_ISSOCK(info.st_mode) or _is_served(saved.path, info):
            raise FileExistsError(17, "something else is there", saved.path)
        if info.st_uid == saved.uid:
            mode, uid, gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
            with contextlib.suppress(OSError):
                acl = os.getxattr(saved.path, ACL_ATTRIBUTE)
    with acting_as(uid, gid):
        return _create(saved.path, mode, gid, acl)


def _create(path: str, mode: int, gid: int, acl: bytes) -> tuple[socket.socket, int]:
    """Create a listening socket file beside ``path`` and rename it there, so that nobody finds it half made."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = os.path.join(os.path.dirname(path), f".ipn-{os.getpid()}-{os.urandom(4).hex()}")
    name_fd = -1
    try:
        os.fchmod(listener.fileno(), mode)
        with short_address(temporary) as address:
            listener.bind(address)
        name_fd = os.open(temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        with contextlib.suppress(PermissionError):
            os.chown(temporary, -1, gid)  # only a member of the group may give it to the group
        os.chmod(temporary, mode)
        if acl:
            os.setxattr(temporary, ACL_ATTRIBUTE, acl)
        listener.listen(BACKLOG)
        os.replace(temporary, path)
    except BaseException:
        listener.close()
        if name_fd >= 0:
            os.close(name_fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return listener, name_fd


def _is_served(path: str, info: os.stat_result) -> bool:
    try:
        connect_either_way(path, info).close()
    except (ConnectionRefusedError, PermissionError):
        return False
    return True
