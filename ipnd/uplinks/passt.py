"""An uplink to a program that somebody has started: passt, gvproxy, socket_vmnet, whatever serves QEMU's stream.

ipnd is the client, as QEMU with ``-netdev stream,server=off`` would be.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ipnd.attempting import AttemptingFixture, EndingStream, connect_as
from ipnd.gateways.place import check_path
from ipnd.identity import peer_of
from ipnd.plane.links import Link
from ipnd.supervisor import require_identity


class PasstUplink(AttemptingFixture):
    """A connection to the stream socket at ``address``."""

    group = "uplink"
    kind = "passt"
    LINKS: ClassVar[Mapping[str, type[Link]]] = {"passt": EndingStream}
    _first: socket.socket | None = None

    @classmethod
    def check(cls, address: str, options: Mapping[str, Any]) -> str:
        """EINVAL or ENAMETOOLONG unless the address can be a socket's path."""
        return check_path(super().check(address, options))

    def start(self) -> None:
        """Connect. What cannot be had now is waited for, and ``problem`` says so at once."""
        require_identity(self.peer)
        try:
            self._first = self._connect()
        except OSError as error:
            self.state, self.problem = "waiting", str(error.strerror)
        super().start()

    def _connect(self) -> socket.socket:
        return connect_as(self.peer, socket.SOCK_STREAM, self.address)

    async def attempt(self, up: Callable[[], None]) -> str:
        """Be a member as long as the other end is there."""
        sock, self._first = self._first or self._connect(), None
        other = peer_of(sock)
        return await self.serve("passt", sock, other.pid, other.command, up)

    def close(self) -> None:
        """Close the connection and try no more."""
        super().close()
        if self._first is not None:
            self._first.close()
            self._first = None
