"""What is fixed to a network and brings members of its own: gateways, uplinks and cables.

A kind of fixture is a class in a module of its own and a row in ``fixtures``. It is added by somebody who may manage
the network, acts with that user's rights, and lives until it is removed or the network ends; with a persistent
network it is made again when the daemon starts.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs

from .access import Peer

if TYPE_CHECKING:
    from trio import CancelScope

    from .network import Network
    from .plane.links import Link
    from .plane.plane import Plane


class Host(Protocol):
    """What a fixture may ask of the daemon."""

    @property
    def plane(self) -> Plane:
        """The data plane's loop."""

    def network_at(self, path: str) -> Network | None:
        """Return the network whose path it is (as it is now, or as it was created)."""

    def networks_changed(self, function: Callable[[], None]) -> Callable[[], None]:
        """Call ``function`` whenever a network has come or gone; return what stops that."""

    def spawn(self, function: Callable[[], Awaitable[None]]) -> CancelScope:
        """Run a task; cancelling the scope ends it."""


@attrs.frozen
class SavedFixture:
    """A fixture as the state file has it. ``uid`` and ``gid``: who added it."""

    kind: str
    address: str
    options: dict[str, Any]
    uid: int
    gid: int

    @classmethod
    def checked(cls, entry: Mapping[str, Any]) -> SavedFixture:
        """Return the fixture that an entry of the state file describes; ValueError or TypeError if it is none."""
        saved = cls(**entry)
        expected = {"kind": str, "address": str, "options": dict, "uid": int, "gid": int}
        for name, kind in expected.items():
            if type(getattr(saved, name)) is not kind:
                raise ValueError(f"{name} of a fixture is {getattr(saved, name)!r}")
        return saved


class Fixture:
    """One fixture of ``network``, at ``address``, for ``peer``.

    ``group``: what it is to people (``gateway``, ``uplink``, ``cable``); ``kind``: its name in requests. ``LINKS``: the
    kinds of member it brings and the links that serve them. ``state`` is ``up``, or what it waits for; ``problem`` says
    why in a sentence; ``counts`` are things that went wrong, by name.
    """

    group: ClassVar[str]
    kind: ClassVar[str]
    LINKS: ClassVar[Mapping[str, type[Link]]] = {}

    def __init__(self, host: Host, network: Network, peer: Peer, address: str, options: Mapping[str, Any]) -> None:
        self.host = host
        self.network = network
        self.peer = peer
        self.address = self.check(address, options)
        self.options = dict(options)
        self.state = "up"
        self.problem = ""
        self.counts: dict[str, int] = {}

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """Return the address as it is kept. EINVAL when it, or an option, makes no sense; touches nothing."""
        refuse_unknown(cls.kind, options, ())
        return address

    def start(self) -> None:
        """Begin. Raises ``OSError`` when it cannot; then nothing is left behind."""
        raise NotImplementedError

    def start_again(self) -> None:
        """Begin after a restart of the daemon, when what it needs may come later. Raises as ``start``."""
        self.start()

    def close(self) -> None:
        """End: its members leave, and what it made is removed. May be called twice."""
        raise NotImplementedError

    def count(self, what: str, times: int = 1) -> bool:
        """Count something that went wrong; return whether it is the first time, which is worth a line in the log."""
        before = self.counts.get(what, 0)
        self.counts[what] = before + times
        return not before

    def show(self) -> dict[str, Any]:
        """Return the fixture as ``net show --json`` prints it."""
        return {
            "group": self.group,
            "kind": self.kind,
            "address": self.address,
            "options": self.options,
            "uid": self.peer.uid,
            "state": self.state,
            "problem": self.problem,
            "counts": dict(self.counts),
        }

    def saved(self) -> SavedFixture:
        """Return what must be known to make it again."""
        return SavedFixture(self.kind, self.address, self.options, self.peer.uid, self.peer.gid)


def refuse_unknown(kind: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """EINVAL for an option that the kind does not have."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise OSError(errno.EINVAL, f"a fixture of the kind {kind} has no option {unknown[0]!r}")
