"""A network: its name, options and policy, the ports on it, and when it ends.

It ends with its last socket (a bound or connected session, or a raw member), unless it is persistent. The
file behind its name is held by an O_PATH descriptor, so chmod, chown and rename are seen as they happen.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs

from ipn.abi import IPN_FLAG_LOSSLESS
from ipn.rendezvous import abstract_address

from . import access, fixtures
from .access import Peer
from .netdev import attach
from .netdev.interface import Interface
from .netdev.members import Interfaces
from .ownership import acting_as
from .plane import impaired
from .plane.hops import HopsLink
from .plane.links import Endpoint, Link
from .plane.lossless import LosslessDelivery
from .plane.lossy import LossyDelivery
from .plane.packet import PacketLink, ProgramLink
from .plane.plane import Plane
from .plane.port import Port
from .plane.stream import StreamLink
from .policies import registry
from .policies.base import Policy
from .policy_runner import PolicyRunner
from .refusals import Refusals

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger("ipnd.network")

BACKLOG: Final = 4096
ACL_ATTRIBUTE: Final = "system.posix_acl_access"

LINKS: Final[dict[str, type[Link]]] = {
    "stream": StreamLink,
    "packet": PacketLink,
    "program": ProgramLink,
    "hops": HopsLink,
    "raw": StreamLink,
    **attach.LINKS,
    **fixtures.LINKS,
}
"""Kind of member → the link that serves its data socket, or its interface."""


@attrs.define
class Options:
    """What a network is created with."""

    mtu: int
    maxports: int
    pool: int
    flags: int

    @property
    def lossless(self) -> bool:
        """Whether senders wait for slow receivers."""
        return bool(self.flags & IPN_FLAG_LOSSLESS)


class Network:
    """A network and its members. Owns ``listener`` (listening on its path) and ``name_fd`` (O_PATH)."""

    def __init__(
        self,
        plane: Plane,
        path: str,
        listener: socket.socket,
        name_fd: int,
        policy: type[Policy],
        options: Options,
        *,
        persistent: bool,
        on_end: Callable[[Network], None],
        on_change: Callable[[], None],
    ) -> None:
        self.created_as = path
        self.options = options
        self.persistent = persistent
        self.listener = listener
        self.name_fd = name_fd
        self.ports: dict[int, Port] = {}
        self.sockets = 0
        self.ended = False
        self.refusals = Refusals(self)
        self.plane = plane
        self._on_end = on_end
        self._on_change = on_change
        self._readers = self._writers = 0
        self._watchers: list[Callable[[dict[str, Any]], None]] = []
        self.sessions: set[Session] = set()
        self._leaving: set[Port] = set()
        self.interfaces = Interfaces(self)
        self.fixtures = fixtures.Fixtures(self)
        info = os.fstat(name_fd)
        self.key = (info.st_dev, info.st_ino)
        self.runner = PolicyRunner(self, policy)
        self.runner.hook("newnet")
        self.delivery = (LosslessDelivery if options.lossless else LossyDelivery)(
            plane,
            mtu=options.mtu + policy.headroom,
            pool=options.pool,
            rules=self.runner,
            leave=self.leave,
            half_closed=self._half_closed,
        )
        registry.take(policy)
        self.abstract = _listen_abstract(info, path)

    @property
    def policy(self) -> Policy:
        """The delivery policy."""
        return self.runner.policy

    # -- its name ----------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Where the socket file is now; where it was created when that cannot be told."""
        try:
            current = os.readlink(f"/proc/self/fd/{self.name_fd}")
        except OSError:
            return self.created_as
        return self.created_as if current.endswith(" (deleted)") or not current.startswith("/") else current

    def file_access(self) -> access.FileAccess:
        """Return what the socket file says about access at this moment."""
        info = os.fstat(self.name_fd)
        acl: tuple[access.AclEntry, ...] = ()
        with contextlib.suppress(OSError):
            acl = access.decode_acl(os.getxattr(f"/proc/self/fd/{self.name_fd}", ACL_ATTRIBUTE))
        return access.FileAccess(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, acl)

    def rights(self, peer: Peer) -> access.Rights:
        """Return what ``peer`` may do here, at this moment."""
        return access.rights(peer, self.file_access())

    def can_be_reached_by(self, peer: Peer) -> bool:
        """Return whether the path leads ``peer`` to the network: the directories' permissions count as well."""
        info = os.fstat(self.name_fd)
        if peer.uid in (0, os.geteuid(), info.st_uid):
            return True
        with contextlib.suppress(OSError), acting_as(peer.uid, peer.gid):
            there = os.stat(self.path)
            return (there.st_dev, there.st_ino) == self.key
        return False

    def require_manage(self, peer: Peer) -> None:
        """EPERM unless ``peer`` may manage the network. Its owner may when no file is left to give rights by."""
        info = os.fstat(self.name_fd)
        orphan = info.st_nlink == 0 and peer.uid in (0, info.st_uid)
        if not orphan and not self.rights(peer).manage:
            raise PermissionError(errno.EPERM, f"managing {self.path} needs its x permission, which {peer} has not")

    def matches(self, policy: int) -> None:
        """EPROTO unless a socket of this ``policy`` may join."""
        if policy not in (0, self.policy.number):
            text = f"{self.path} is a {self.policy.name} network; join with that policy or with IPN_ANY"
            raise OSError(errno.EPROTO, text)

    # -- members -----------------------------------------------------------------------------------------------------

    def join(
        self, kind: str, peer: Peer, sock_for: Callable[[], Any], *,
        wanted: int = -1, receive: bool = True, send: bool = True, description: str = "",
        interface: Interface | None = None, granted: access.Rights | None = None,
    ) -> Port:
        """Add a member as far as the socket file lets it, and return its port.

        ``sock_for`` makes or gives the daemon's end of its data socket, or the device of its ``interface``.
        ``granted``: its rights, when they were judged before. Errors: EACCES when neither direction is
        left, EADDRNOTAVAIL without a free port (or when the wanted one is taken).
        """
        granted = granted or self.rights(peer)
        receive, send = receive and granted.receive, send and granted.send
        if not receive and not send:
            text = f"{self.path} gives {peer} neither r nor w of what it asked for (it has: {granted})"
            raise PermissionError(errno.EACCES, text)
        number = self.runner.hook("newport", wanted)
        if not isinstance(number, int) or not 0 <= number < self.options.maxports or number in self.ports:
            if wanted >= 0:
                why = "taken" if wanted in self.ports else f"beyond the {self.options.maxports} ports of the network"
                raise OSError(errno.EADDRNOTAVAIL, f"port {wanted} of {self.path} is {why}")
            text = f"all {self.options.maxports} ports of {self.path} are in use (ipnctl net resize gives it more)"
            raise OSError(errno.EADDRNOTAVAIL, text)
        port = Port(number, kind, peer, reader=receive, writer=send)
        port.description = description
        port.interface = interface
        port.link = LINKS[kind](self.plane, sock_for(), self.delivery, port)
        self.delivery.admit(port.link)
        self.ports[number] = port
        self.announce({"event": "join", **port.show(time.monotonic_ns())})
        return port

    def joined(self, port: Port) -> None:
        """The member is complete: the others, and the policy, may know of it."""
        self.members_changed()
        self.runner.notice("postnewport", port.number)

    def join_visitor(
        self, kind: str, peer: Peer, endpoint: Endpoint, *, wanted: int = -1, description: str = ""
    ) -> Port | None:
        """Make somebody who speaks no control protocol a member; one who is turned away is logged, and closed.

        Such a member keeps the network alive, as a socket does.
        """
        try:
            port = self.join(kind, peer, lambda: endpoint, wanted=wanted, description=description)
        except OSError as refusal:
            endpoint.close()
            self.refusals.refuse(peer, refusal)
            return None
        self.anchor(port, True)
        self.joined(port)
        return port

    def leave(self, port: Port, why: str = "left") -> None:
        """Take a member out and close its data socket. Raw members take their socket with them."""
        if self.ports.get(port.number) is not port or port.link is None or port in self._leaving:
            return
        self._leaving.add(port)
        self.runner.notice("predelport", port.number)
        self.runner.settle()
        self._leaving.discard(port)
        del self.ports[port.number]
        impaired.forget(port)
        self.delivery.forget(port.link)
        if port.interface is not None:
            self.interfaces.let_go(port.interface, port.link)
        port.link.close()
        self.announce({"event": "leave", "why": why, **port.show(time.monotonic_ns())})
        port.link = None
        self.runner.notice("delport", port.number)
        self.members_changed()
        if port.session is not None:
            port.session.port_left()
        elif port.anchor:
            self.release_socket()

    def _half_closed(self, port: Port) -> None:
        """A member closed one direction of its data socket."""
        if port.link is not None and not port.link.reading:
            port.writer = False
        if not port.reader and not port.writer and port.session is None and port.interface is None:
            self.leave(port)  # a raw member that can do nothing any more; others leave when they close
        else:
            self.members_changed()

    def anchor(self, port: Port, anchor: bool) -> None:
        """Have a port keep the network alive, or not."""
        if anchor and not port.anchor:
            port.anchor = True
            self.take_socket()
        elif port.anchor and not anchor:
            port.anchor = False
            self.release_socket()

    def members_changed(self) -> None:
        """Who receives or sends has changed: decisions are made anew, and who asked is told of the numbers."""
        self.runner.invalidate()
        self.delivery.routes_changed()
        readers = sum(port.reader for port in self.ports.values())
        writers = sum(port.writer for port in self.ports.values())
        if (readers, writers) == (self._readers, self._writers):
            return
        self._readers, self._writers = readers, writers
        notice = {"event": "numnodes", "numreaders": readers, "numwriters": writers}
        for port in self.ports.values():
            if port.handle_oob and port.want_oob and port.session is not None:
                port.session.notify(notice)
        self.announce(notice)

    def notify_port(self, number: int, data: bytes) -> None:
        """Give a member that handles such an out-of-band message of the policy's own."""
        port = self.ports.get(number)
        if port is not None and port.handle_oob and port.session is not None:
            port.session.notify({"event": "oob", "hex": data.hex()})

    # -- managing ----------------------------------------------------------------------------------------------------

    def resize(self, maxports: int) -> None:
        """Change the number of ports. EADDRINUSE when one beyond is in use, EPERM when the policy refuses."""
        beyond = sorted(number for number in self.ports if number >= maxports)
        if beyond:
            text = f"port {beyond[0]} of {self.path} is in use, so it cannot shrink to {maxports}"
            raise OSError(errno.EADDRINUSE, text)
        self.runner.hook("resizenet", self.options.maxports, maxports)
        self.options.maxports = self.runner.maxports = maxports
        self.runner.invalidate()

    def set_policy(self, policy: type[Policy]) -> None:
        """Change the policy of the live network, if the new one takes every member on the port it has.

        ``OSError`` when it refuses; then nothing has changed.
        """
        old, new = self.runner, PolicyRunner(self, policy)
        new.hook("newnet")
        for number in sorted(self.ports):
            # The ports are all there already, and so taken: the new policy is asked for exactly these.
            if not new.takes_over(number):
                new.hook("delnet")
                text = f"the policy {policy.name} does not take the member on port {number} of {self.path}"
                raise OSError(errno.EADDRNOTAVAIL, text)
        self.runner = self.delivery.rules = new
        self.delivery.mtu = self.options.mtu + policy.headroom
        registry.take(policy)
        registry.release(type(old.policy))
        old.notice("delnet")
        self.members_changed()
        for number in sorted(self.ports):
            new.notice("postnewport", number)

    def policy_verb(self, peer: Peer, name: str, arguments: dict[str, Any]) -> Any:
        """Carry out a management request of the policy. EPERM when it needs x, which ``peer`` has not."""
        function, needs_manage = self.runner.verb(name)
        if needs_manage:
            self.require_manage(peer)
        result = self.runner.hook_function(name, function, arguments)
        if needs_manage:
            self.runner.invalidate()
            self.configuration_changed()
        return result

    def configuration_changed(self) -> None:
        """What is kept with a persistent network is another now."""
        if self.persistent and not self.ended:
            self._on_change()

    def show(self, *, ports: bool = True) -> dict[str, Any]:
        """Return the network as ``net show --json`` prints it."""
        now = time.monotonic_ns()
        info = self.file_access()
        shown: dict[str, Any] = {
            "path": self.path,
            "policy": self.policy.name,
            "mtu": self.options.mtu,
            "maxports": self.options.maxports,
            "pool": self.options.pool,
            "lossless": self.options.lossless,
            "mode": f"{info.mode:04o}",
            "uid": info.uid,
            "gid": info.gid,
            "persistent": self.persistent,
            "readers": self._readers,
            "writers": self._writers,
            "members": len(self.ports),
            "refused": self.refusals.count,
            "pending": self.delivery.pending,
            "drops": dict(self.runner.drops),
            "missing": [saved.name for saved in self.interfaces.unrestored],
            "fixtures": self.fixtures.show(),
            "policy_state": self.runner.hook("show"),
        }
        if ports:
            shown["ports"] = [self.ports[number].show(now) for number in sorted(self.ports)]
        return shown

    def watch(self, watcher: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Tell ``watcher`` of joins, leaves, numbers and the end; return what stops it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def announce(self, event: dict[str, Any]) -> None:
        """Tell who watches the network of an event."""
        for watcher in list(self._watchers):
            watcher({**event, "path": self.created_as})

    # -- lifetime ----------------------------------------------------------------------------------------------------

    def take_socket(self) -> None:
        """One more socket keeps the network alive."""
        self.sockets += 1

    def release_socket(self) -> None:
        """One socket less; the last one ends the network unless it is persistent."""
        self.sockets -= 1
        if self.sockets == 0 and not self.persistent:
            self.end("its last socket has closed")

    def end(self, why: str, *, keep_file: bool = False) -> None:
        """End the network: every member's socket closes, the socket file goes."""
        if self.ended:
            return
        self.ended = True
        self.interfaces.kept = keep_file
        log.info("network %s ends: %s", self.path, why)
        if not keep_file:
            self._remove_file()
        self._on_end(self)
        self.runner.notice("delnet")
        registry.release(type(self.policy))
        self.fixtures.close()
        for port in list(self.ports.values()):
            self.leave(port, "network ended")
        self.announce({"event": "end", "why": why})
        for session in list(self.sessions):
            session.network_ended()
        self.listener.close()
        if self.abstract is not None:
            self.abstract.close()
        os.close(self.name_fd)
        self.name_fd = -1

    def _remove_file(self) -> None:
        """Remove the socket file, if it still is this network's, as its owner would."""
        path = self.path
        try:
            info = os.fstat(self.name_fd)
            with acting_as(info.st_uid, info.st_gid):
                there = os.stat(path, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == self.key:
                    os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("cannot remove the socket file %s: %s", path, error.strerror)


def _listen_abstract(info: os.stat_result, path: str) -> socket.socket | None:
    """Listen where members without w reach the network; None (and a log line) when somebody has taken the name."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(abstract_address(info))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        log.warning("members without w cannot reach %s: its abstract address is taken (%s)", path, error.strerror)
        return None
    sock.setblocking(False)
    return sock
