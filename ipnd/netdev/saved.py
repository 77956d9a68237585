"""Interfaces of persistent networks over restarts of the daemon: what is kept of them, and opening them again.

A persistent TAP is still there, with its addresses: the kernel keeps it, and lets its owner open it again. After
a restart of the machine it is made anew. A grabbed interface is grabbed again.
"""

from __future__ import annotations

import socket
from typing import Any

import attrs

from ipn.helper import obtain_grab, obtain_tap
from ipn.netdev import Device, open_tap
from ipnd.access import Peer, Rights
from ipnd.plane.port import Port

from .interface import Lifetime


@attrs.frozen
class SavedInterface:
    """An interface as the state file has it. ``uid`` and ``gid``: who attached it."""

    kind: str
    name: str
    mac: str
    mtu: int
    up: bool
    lifetime: str
    port: int
    description: str
    receive: bool
    send: bool
    uid: int
    gid: int

    @classmethod
    def of(cls, port: Port) -> SavedInterface | None:
        """Return what is kept of the interface on ``port``; None when it does not outlive the daemon."""
        interface = port.interface
        if interface is None or interface.lifetime is Lifetime.SOCKET:
            return None
        if port.kind == "tap" and interface.lifetime is not Lifetime.PERSISTENT:
            return None
        return cls(
            kind=port.kind,
            name=interface.name,
            mac=interface.mac,
            mtu=interface.mtu,
            up=bool(interface.up),
            lifetime=interface.lifetime.value,
            port=port.number,
            description=port.description,
            receive=port.reader,
            send=port.writer,
            uid=port.peer.uid,
            gid=port.peer.gid,
        )

    @classmethod
    def checked(cls, entry: dict[str, Any]) -> SavedInterface:
        """Return the interface that an entry of the state file describes; ValueError or TypeError if it is none."""
        saved = cls(**entry)
        for field in attrs.fields(cls):
            value = getattr(saved, field.name)
            expected = {"int": int, "bool": bool, "str": str}[str(field.type)]
            if type(value) is not expected:
                raise ValueError(f"{field.name} of an interface is {value!r}")
        Lifetime(saved.lifetime)
        return saved

    @property
    def peer(self) -> Peer:
        """Whoever attached it."""
        return Peer(pid=0, uid=self.uid, gid=self.gid)

    @property
    def rights(self) -> Rights:
        """What was judged when it was attached."""
        return Rights(self.receive, self.send, False)

    def open(self) -> Device:
        """Open it again, with the daemon's own privilege or through the helper; ``OSError`` when neither can."""
        if self.kind == "grab":
            return obtain_grab(self.name)
        if any(self.name == name for _, name in socket.if_nameindex()):
            return open_tap(self.name)
        return obtain_tap(self.name, mac=self.mac, mtu=self.mtu, up=self.up)
