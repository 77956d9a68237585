"""The host's interfaces that are members of one network: putting them there, how long they stay, finding them.

An interface is followed through its watch: what it is called, whether it is up. It leaves when it is deleted, or goes
to another namespace (a TAP goes on there).
"""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING

from ipnd.access import Peer, Rights
from ipnd.plane.links import Link
from ipnd.plane.port import Port

from .attach import Handed
from .interface import Interface, Lifetime
from .tap import TapLink

if TYPE_CHECKING:
    from ipnd.network import Network
    from ipnd.session import Session

    from .saved import SavedInterface

log = logging.getLogger("ipnd.netdev")


class Interfaces:
    """The interfaces on ``network``. ``kept``: the network ends only to be made again, and TAPs stay for that.

    ``unrestored``: those that could not be had again at the last start.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self.kept = False
        self.unrestored: list[SavedInterface] = []

    def attach(
        self, handed: Handed, peer: Peer, lifetime: Lifetime, *,
        wanted: int = -1, receive: bool = True, send: bool = True, description: str = "",
        granted: Rights | None = None, session: Session | None = None,
    ) -> Port:
        """Make an interface of the host a member; ``handed`` belongs to the network from now on. Errors as ``join``."""
        try:
            interface = Interface(self._network.plane, handed.name, handed.watch, handed.lock, lifetime)
        except BaseException:
            handed.close()
            raise
        try:
            port = self._network.join(
                handed.kind, peer, lambda: handed.endpoint, wanted=wanted, receive=receive, send=send,
                description=description, interface=interface, granted=granted,
            )
        except BaseException:
            interface.close()
            handed.endpoint.close()
            raise
        port.session = session
        interface.on_change = lambda: self._changed(port)
        interface.on_gone = lambda: self._gone(port)
        if session is None or lifetime is not Lifetime.SOCKET:
            self.keep(port, lifetime)
        self.forget_unrestored(interface.name)
        log.info("%s: %s joins by port %d, put there by %s", self._network.path, interface, port.number, peer)
        return port

    def keep(self, port: Port, lifetime: Lifetime) -> None:
        """Set how long an interface stays; one that should end with its socket goes at once when it has none."""
        assert port.interface is not None
        port.interface.lifetime = lifetime
        if isinstance(port.link, TapLink):
            port.link.sock.set_persistent(lifetime is Lifetime.PERSISTENT and self._network.persistent)
        self._network.configuration_changed()
        if port.session is None:
            self._network.anchor(port, lifetime is Lifetime.PERSISTENT)
            if lifetime is Lifetime.SOCKET:
                self._network.leave(port, "detached")

    def forget_unrestored(self, name: str) -> bool:
        """Forget an interface that could not be had again at the last start; return whether there was one."""
        left = [saved for saved in self.unrestored if saved.name != name]
        found = len(left) < len(self.unrestored)
        if found:
            self.unrestored = left
            self._network.configuration_changed()
        return found

    def find(self, name: str = "", index: int = 0) -> Port | None:
        """Return the port of an interface by its name, or by its index; None when there is none.

        Interfaces of several network namespaces may be called the same: those that no socket controls come first.
        ENOTUNIQ when that leaves more than one.
        """
        found = self._all(name, index)
        free = [port for port in found if port.session is None] or found
        if len(free) > 1:
            on = ", ".join(str(port.number) for port in free)
            where = f"{self._network.path}, on the ports {on}"
            text = f"{len(free)} interfaces are called {name or index} on {where}; name the port"
            raise OSError(errno.ENOTUNIQ, text)
        return free[0] if free else None

    def _all(self, name: str, index: int) -> list[Port]:
        found = []
        for port in self._network.ports.values():
            interface = port.interface
            if interface is not None and (interface.name == name if name else interface.index == index):
                found.append(port)
        return found

    def _changed(self, port: Port) -> None:
        assert port.interface is not None
        shown = port.interface.show()
        state = {None: "in another namespace", True: "up", False: "down"}[port.interface.up]
        log.info("%s: the interface on port %d is %s, and %s", self._network.path, port.number, port.interface, state)
        self._network.announce({"event": "interface", "port": port.number, "interface": shown})
        self._network.configuration_changed()

    def _gone(self, port: Port) -> None:
        """The interface has left its namespace: a TAP is still ours when it was only moved."""
        interface = port.interface
        if interface is None:
            return
        name = port.link.sock.name if isinstance(port.link, TapLink) else None
        if name is not None:
            interface.moved(name)
            self._changed(port)
            return
        log.warning("%s: the interface %s on port %d is gone", self._network.path, interface, port.number)
        self._network.leave(port, "its interface is gone")

    def let_go(self, interface: Interface, link: Link) -> None:
        """Close what belongs to the interface of a member that has left; a TAP that is not kept ends."""
        interface.close()
        if isinstance(link, TapLink) and not self.kept:
            with contextlib.suppress(OSError):
                link.sock.set_persistent(False)
        if not self.kept:
            self._network.configuration_changed()
