"""The host's interface behind a port: what it is called, whether it is up, and how long it stays on the network.

Its state is followed through a netlink socket that whoever attached it has opened in the interface's own network
namespace, which need not be the daemon's.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from ipn.netlink import link, link_changes

if TYPE_CHECKING:
    from ipnd.plane.plane import Plane

log = logging.getLogger("ipnd.netdev")

CHANGES: Final = 64 * 1024
"""Bytes read of the changes at once."""
READS: Final = 16
"""Reads in one go: a namespace in which interfaces change all the time must not keep the plane."""
IFF_UP: Final = 0x1
IFF_RUNNING: Final = 0x40


class Lifetime(Enum):
    """How long an interface stays: as long as the socket that attached it, its network, or until it is detached."""

    SOCKET = "socket"
    NETWORK = "network"
    PERSISTENT = "persistent"


class Interface:
    """An interface on a network. Owns ``watch`` and ``lock`` (which keeps others from grabbing it).

    ``up`` and ``running`` are None when they cannot be told: it has moved to another network namespace.
    ``on_change`` hears of every change, ``on_gone`` of its leaving the namespace: it was deleted, or moved.
    """

    def __init__(
        self,
        plane: Plane,
        name: str,
        watch: socket.socket,
        lock: socket.socket | None,
        lifetime: Lifetime,
    ) -> None:
        now = link(watch, name=name)
        self.name = name
        self.index = now.index
        self.up: bool | None = now.up
        self.running: bool | None = now.running
        self.mtu = now.mtu
        self.mac = now.mac
        self.lifetime = lifetime
        self._plane = plane
        self._watch: socket.socket | None = watch
        self._lock = lock
        self.on_change: Callable[[], None] = _nothing
        self.on_gone: Callable[[], None] = _nothing
        watch.setblocking(False)
        plane.register(watch.fileno(), select.EPOLLIN, self._changed)

    def __str__(self) -> str:
        return self.name if self.name.isprintable() else ascii(self.name)

    def show(self) -> dict[str, Any]:
        """Return the interface as ``net show --json`` prints it."""
        return {
            "name": self.name,
            "index": self.index,
            "up": self.up,
            "running": self.running,
            "mtu": self.mtu,
            "mac": self.mac,
            "lifetime": self.lifetime.value,
        }

    def moved(self, name: str) -> None:
        """Note that the interface is in another namespace, where its state cannot be followed."""
        self.name, self.up, self.running = name, None, None
        self._stop_watching()

    def look(self) -> None:
        """Find out how it is now: after a change that nobody may have told of."""
        if self._watch is None:
            return
        try:
            now = link(self._watch, index=self.index)
        except OSError:
            return
        self._take(now.name, now.up, now.running, now.mtu, now.mac)

    def _changed(self, mask: int) -> None:
        """Take in what the kernel tells of the namespace's interfaces."""
        assert self._watch is not None
        gone = False
        for _ in range(READS):
            try:
                data = self._watch.recv(CHANGES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                self.look()  # ENOBUFS: more was told than we could hear
                break
            for change in link_changes(data):
                if change.index != self.index:
                    continue
                gone = change.deleted
                if not gone:
                    up, running = bool(change.flags & IFF_UP), bool(change.flags & IFF_RUNNING)
                    self._take(change.name, up, running, change.mtu, change.mac)
        if gone:
            self.on_gone()

    def _take(self, name: str, up: bool, running: bool, mtu: int, mac: str) -> None:
        now = (name, up, running, mtu, mac)
        if now != (self.name, self.up, self.running, self.mtu, self.mac):
            self.name, self.up, self.running, self.mtu, self.mac = now
            self.on_change()

    def close(self) -> None:
        """Close the descriptors."""
        self._stop_watching()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._plane.unregister(self._watch.fileno())
            self._watch.close()
            self._watch = None


def _nothing() -> None:
    """What hears of an interface that is on no network yet."""
