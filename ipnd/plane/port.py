"""A member of a network as the data plane sees it: its number, its rights, its counters, its link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipnd.access import Peer
    from ipnd.netdev.interface import Interface

    from .impaired import Inlet, Outlet
    from .links import Link
    from .routes import Route


class Port:
    """One member. ``anchor``: it keeps its network alive by itself, without a socket.

    ``rx`` counts what came from it, ``tx`` what it was given, ``dropped`` what it should have got. ``inlet`` and
    ``outlet``: what its frames pass on their way in and out while the port is impaired.
    """

    __slots__ = (
        "anchor",
        "blocked_ns",
        "blocked_since",
        "description",
        "dropped",
        "handle_oob",
        "inlet",
        "interface",
        "kind",
        "known",
        "link",
        "number",
        "outlet",
        "oversize",
        "peer",
        "reader",
        "route",
        "rx_bytes",
        "rx_frames",
        "session",
        "tentative",
        "tx_bytes",
        "tx_frames",
        "want_oob",
        "writer",
    )

    def __init__(self, number: int, kind: str, peer: Peer, *, reader: bool, writer: bool) -> None:
        self.number = number
        self.kind = kind
        self.peer = peer
        self.description = ""
        self.reader = reader
        self.writer = writer
        self.handle_oob = self.want_oob = False
        self.session: Any = None
        self.interface: Interface | None = None
        self.anchor = False
        self.link: Link | None = None
        self.inlet: Inlet | None = None
        self.outlet: Outlet | None = None
        self.route: Route | None = None
        self.known: dict[bytes, Route] = {}
        self.tentative: list[bytes] = []
        self.rx_frames = self.rx_bytes = self.tx_frames = self.tx_bytes = 0
        self.dropped = self.oversize = 0
        self.blocked_ns = self.blocked_since = 0

    def forget_routes(self) -> None:
        """Forget what was decided on this member's frames."""
        self.route = None
        self.known.clear()
        self.tentative.clear()

    def forget_tentative(self) -> None:
        """Forget the decisions that what was learned may have changed."""
        for key in self.tentative:
            self.known.pop(key, None)
        self.tentative.clear()

    @property
    def rights(self) -> str:
        """``r`` when it receives, ``w`` when it sends."""
        return "r" * self.reader + "w" * self.writer

    def blocked_ms(self, now_ns: int) -> int:
        """Milliseconds during which this port's full queue has held the senders of a lossless network."""
        running = now_ns - self.blocked_since if self.blocked_since else 0
        return (self.blocked_ns + running) // 1_000_000

    def show(self, now_ns: int) -> dict[str, Any]:
        """Return the port as ``net show --json`` prints it."""
        shown = {
            "port": self.number,
            "kind": self.kind,
            "description": self.description,
            "uid": self.peer.uid,
            "gid": self.peer.gid,
            "pid": self.peer.pid,
            "command": self.peer.command,
            "rights": self.rights,
            "queued": self.link.queued if self.link else 0,
            "rx_frames": self.rx_frames,
            "rx_bytes": self.rx_bytes,
            "tx_frames": self.tx_frames,
            "tx_bytes": self.tx_bytes,
            "dropped": self.dropped,
            "oversize": self.oversize,
            "blocked_ms": self.blocked_ms(now_ns),
        }
        if self.interface is not None:
            shown["interface"] = self.interface.show()
        if self.inlet is not None or self.outlet is not None:
            ways = (("in", self.inlet), ("out", self.outlet))
            shown["impairment"] = {direction: way.show() for direction, way in ways if way is not None}
        return shown
