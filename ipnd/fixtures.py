"""The kinds of fixtures, and those of one network. A new kind is a module with a class, and a row here."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .access import Peer
from .cables.patch import PatchCable
from .cables.ssh import SshCable
from .cables.udp import UdpCable
from .cables.vxlan import VxlanCable
from .credentials import groups_of
from .fixture import Fixture, Host, SavedFixture
from .gateways.dgram import DatagramGateway
from .gateways.seqpacket import SeqpacketGateway
from .gateways.vde import VdeGateway
from .plane.links import Link
from .uplinks.passt import PasstUplink
from .uplinks.slirp import SlirpUplink

if TYPE_CHECKING:
    from .network import Network

log = logging.getLogger("ipnd.fixtures")

KINDS: Final[tuple[type[Fixture], ...]] = (
    VdeGateway,
    DatagramGateway,
    SeqpacketGateway,
    PatchCable,
    SshCable,
    PasstUplink,
    SlirpUplink,
    UdpCable,
    VxlanCable,
)

FIXTURES: Final[dict[str, type[Fixture]]] = {kind.kind: kind for kind in KINDS}
LINKS: Final[dict[str, type[Link]]] = {name: link for kind in KINDS for name, link in kind.LINKS.items()}
assert len(FIXTURES) == len(KINDS), "two kinds of fixtures have the same name"


class Fixtures:
    """The fixtures of ``network``. ``unrestored``: those that could not be made again at the last start."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._there: dict[tuple[str, str], Fixture] = {}
        self.unrestored: list[SavedFixture] = []

    def add(
        self, host: Host, peer: Peer, kind: str, address: str, options: Mapping[str, Any], *, again: bool = False
    ) -> Fixture:
        """Make a fixture and start it (``again``: it was there before the daemon was restarted).

        EINVAL for what makes no sense, EEXIST when it is there, and its own errors.
        """
        if kind not in FIXTURES:
            raise OSError(errno.EINVAL, f"add: 'kind' must be one of {', '.join(sorted(FIXTURES))}, not {kind!r}")
        fixture = FIXTURES[kind](host, self._network, peer, address, options)
        key = (kind, fixture.address)
        if key in self._there:
            raise FileExistsError(errno.EEXIST, f"{self._network.path} has the {kind} {fixture.address} already")
        (fixture.start_again if again else fixture.start)()
        self._there[key] = fixture
        self._forget(kind, fixture.address)
        log.info("%s: %s %s added by %s", self._network.path, kind, fixture.address, peer)
        self._network.announce({"event": "fixture", **fixture.show()})
        self._network.configuration_changed()
        return fixture

    def remove(self, kind: str, address: str) -> None:
        """End a fixture, or forget one that is missing. ENOENT when there is none such, EINVAL for no such kind."""
        if not self._end(kind, address):
            if kind not in FIXTURES:
                text = f"remove: 'kind' must be one of {', '.join(sorted(FIXTURES))}, not {kind!r}"
                raise OSError(errno.EINVAL, text)
            if not self._end(kind, FIXTURES[kind].check(address, {})):
                raise FileNotFoundError(errno.ENOENT, f"{self._network.path} has no {kind} {address}")
        self._network.configuration_changed()

    def _end(self, kind: str, address: str) -> bool:
        fixture = self._there.pop((kind, address), None)
        if fixture is None:
            return self._forget(kind, address)
        fixture.close()
        self._network.announce({"event": "fixture", **fixture.show(), "state": "removed"})
        return True

    def restore(self, host: Host, saved: SavedFixture) -> None:
        """Make a fixture again; one that cannot be had is logged and kept for the next start."""
        try:
            self.add(host, _who(saved), saved.kind, saved.address, saved.options, again=True)
        except OSError as error:
            log.error("%s: the %s %s cannot be had again: %s", self._network.path, saved.kind, saved.address, error)
            self.unrestored.append(saved)

    def close(self) -> None:
        """End all of them."""
        there, self._there = self._there, {}
        for fixture in there.values():
            fixture.close()

    def show(self) -> list[dict[str, Any]]:
        """Return them as ``net show --json`` prints them."""
        missing = [
            {"group": FIXTURES[s.kind].group if s.kind in FIXTURES else "", "kind": s.kind, "address": s.address,
             "options": s.options, "uid": s.uid, "state": "missing", "problem": "see the daemon's log", "counts": {}}
            for s in self.unrestored
        ]
        return [fixture.show() for fixture in self._there.values()] + missing

    def saved(self) -> list[SavedFixture]:
        """Return what must be known to make them again."""
        return [fixture.saved() for fixture in self._there.values()] + self.unrestored

    def _forget(self, kind: str, address: str) -> bool:
        left = [saved for saved in self.unrestored if (saved.kind, saved.address) != (kind, address)]
        found = len(left) < len(self.unrestored)
        self.unrestored = left
        return found


def _who(saved: SavedFixture) -> Peer:
    """Return who added it, with the groups that the user database gives now."""
    groups = groups_of(saved.uid, saved.gid)
    return Peer(pid=0, uid=saved.uid, gid=saved.gid, groups=groups, command="ipnd")
