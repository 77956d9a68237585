"""The composition root: one nursery, the plane's task, the doors, the networks, signals, and the order of the end.

Shutdown: stop accepting, give queues a moment to drain, close every member, save the persistent networks, remove the
socket files of the others and the control socket.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import trio

from ipn.autostart import ALREADY_RUNS
from ipn.rendezvous import short_address

from . import state, systemd
from .access import Peer
from .connection import Connection
from .errors import PeerFault
from .gateways.door import Door
from .netdev.attach import take_device
from .netdev.interface import Lifetime
from .netdev.saved import SavedInterface
from .network import Network, Options
from .plane.links import Link
from .plane.plane import EventHandler, Plane
from .policies.registry import load_entry_points, policy_class

log = logging.getLogger("ipnd")

BACKLOG: Final = 4096
DRAIN_SECONDS: Final = 1.0
"""At most so long do members get at the end to take what is queued for them."""
IDLE_SECONDS: Final = 0.2
"""A daemon started by a program leaves so long after its last network and client have gone."""
FIRST_CLIENT_SECONDS: Final = 10.0
"""… or when nobody came at all for so long."""


@attrs.frozen
class Settings:
    """How a daemon is started."""

    control: str
    state: Path
    leave_when_idle: bool = False
    ready_fd: int = -1


class AlreadyRuns(Exception):
    """Another ipnd serves the control socket."""


class Daemon:
    """The daemon. ``run`` serves until SIGTERM, SIGINT, or (when so started) until idle."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.networks: dict[tuple[int, int], Network] = {}
        self.plane = Plane()
        self.plane.on_fault = self._on_fault
        self.clients = 0
        self._doors: dict[tuple[int, int] | None, list[Door]] = {}
        self._unrestored: list[state.SavedNetwork] = []
        self._nursery: trio.Nursery | None = None
        self._ending = self._restoring = False
        self._last_activity = trio.Event()
        self._on_networks: list[Callable[[], None]] = []

    async def run(self) -> None:
        """Serve. Raises ``AlreadyRuns``, or ``OSError`` when the control socket cannot be had."""
        _raise_descriptor_limit()
        for failure in load_entry_points():
            log.error(failure)
        with _lock_of(self.settings.control), _control_listener(self.settings.control) as listener:
            gc.freeze()
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._restore()
                self._doors[None] = [Door(self.plane, listener, self.settings.control, self._serve_control, None)]
                nursery.start_soon(self.plane.run)
                with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    nursery.start_soon(self._leave_on_signal, signals)
                    if self.settings.leave_when_idle:
                        nursery.start_soon(self._leave_when_idle)
                    self._say_ready()
                    await trio.sleep_forever()
        self.plane.close()

    def _say_ready(self) -> None:
        systemd.notify("READY=1\nSTATUS=serving " + self.settings.control)
        print("ready", file=sys.stderr, flush=True)
        if self.settings.ready_fd >= 0:
            os.write(self.settings.ready_fd, b"ready\n")
            os.close(self.settings.ready_fd)

    # -- networks ----------------------------------------------------------------------------------------------------

    def add_network(
        self, path: str, listener: socket.socket, name_fd: int, policy: int, options: Options, *, persistent: bool
    ) -> Network:
        """Take over a network whose socket file has been created. EEXIST when the daemon has it already."""
        chosen = policy_class(policy)
        info = os.fstat(name_fd)
        if (info.st_dev, info.st_ino) in self.networks:
            raise FileExistsError(errno.EEXIST, f"this ipnd already has the network {path}")
        listener.listen(BACKLOG)
        network = Network(
            self.plane,
            path,
            listener,
            name_fd,
            chosen,
            options,
            persistent=persistent,
            on_end=self._ended,
            on_change=self.save,
        )
        self.networks[network.key] = network
        self._tell_of_networks()

        def on_control(sock: socket.socket, peer: Peer) -> None:
            self._serve(sock, peer, network)

        def on_raw(sock: socket.socket, peer: Peer) -> None:
            network.join_visitor("raw", peer, sock)

        sockets = [network.listener] + ([network.abstract] if network.abstract is not None else [])
        self._doors[network.key] = [Door(self.plane, sock, path, on_control, on_raw) for sock in sockets]
        log.info("network %s: %s, mtu %d%s", path, network.policy.name, options.mtu, ", persistent" * persistent)
        if persistent:
            self.save()
        return network

    def _ended(self, network: Network) -> None:
        for door in self._doors.pop(network.key, []):
            door.close()
        self.networks.pop(network.key, None)
        self._tell_of_networks()
        if network.persistent and not self._ending:
            self.save()
        self._last_activity.set()

    def save(self) -> None:
        """Write the persistent networks to the state file, except while they are read from it."""
        if self._restoring:
            return
        saved = [state.SavedNetwork.of(network) for network in self.networks.values() if network.persistent]
        try:
            state.save(self.settings.state, saved + self._unrestored)
        except OSError as error:
            log.error("cannot write the state file %s: %s", self.settings.state, error.strerror)

    def _restore(self) -> None:
        self._restoring = True
        restored = []
        for saved in state.load(self.settings.state):
            try:
                policy_class(saved.policy)
                listener, name_fd = state.recreate(saved)
                network = self.add_network(saved.path, listener, name_fd, saved.policy, saved.options, persistent=True)
                network.runner.restore(saved.policy_state)
                for interface in saved.interfaces:
                    self._restore_interface(network, interface)
                restored.append((network, saved))
            except OSError as error:
                log.error("the persistent network %s cannot be made again: %s", saved.path, error.strerror)
                self._unrestored.append(saved)
        for network, saved in restored:  # cables need all the networks to be there
            for fixture in saved.fixtures:
                network.fixtures.restore(self, fixture)
        self._restoring = False

    def _restore_interface(self, network: Network, saved: SavedInterface) -> None:
        """Put an interface on its network again; one that cannot be had is kept for the next start."""
        try:
            device = saved.open()
            port = network.interfaces.attach(
                take_device(device.kind, device.fds), saved.peer, Lifetime(saved.lifetime),
                wanted=saved.port, description=saved.description, granted=saved.rights,
            )
            network.joined(port)
        except OSError as error:
            log.error("the interface %s of %s cannot be had again: %s", saved.name, network.path, error.strerror)
            network.interfaces.unrestored.append(saved)

    # -- what fixtures ask (Host) ------------------------------------------------------------------------------------

    def network_at(self, path: str) -> Network | None:
        """Return the network whose path it is, as it is now or as it was created."""
        there = [network for network in self.networks.values() if path in (network.path, network.created_as)]
        return next((network for network in there if network.path == path), there[0] if there else None)

    def networks_changed(self, function: Callable[[], None]) -> Callable[[], None]:
        """Call ``function`` whenever a network has come or gone; return what stops that."""
        self._on_networks.append(function)
        return lambda: self._on_networks.remove(function)

    def _tell_of_networks(self) -> None:
        for function in list(self._on_networks):
            self.plane.later(function)

    def spawn(self, function: Callable[[], Awaitable[None]]) -> trio.CancelScope:
        """Run a task; cancelling the scope ends it."""
        assert self._nursery is not None
        scope = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                await function()

        self._nursery.start_soon(scoped)
        return scope

    # -- clients -----------------------------------------------------------------------------------------------------

    def _serve_control(self, sock: socket.socket, peer: Peer) -> None:
        self._serve(sock, peer, None)

    def _serve(self, sock: socket.socket, peer: Peer, network: Network | None) -> None:
        assert self._nursery is not None
        self.clients += 1
        self._nursery.start_soon(self._run_connection, Connection(self, sock, peer, network))

    async def _run_connection(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self.clients -= 1
            self._last_activity.set()

    def _on_fault(self, handler: EventHandler, error: Exception) -> None:
        """Decide who ends for an exception in the plane: the member, or (our own bug) the daemon."""
        link = getattr(handler, "__self__", None)
        if not isinstance(link, Link):
            raise error
        network = next((n for n in self.networks.values() if n.delivery is link.delivery), None)
        if network is None:
            raise error
        if not isinstance(error, PeerFault):
            raise error
        log.warning("%s on port %d of %s is put out: it %s", link.port.peer, link.port.number, network.path, error)
        network.leave(link.port, str(error))

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _leave_on_signal(self, signals: object) -> None:
        async for number in signals:  # type: ignore[attr-defined]
            log.info("ending on %s", signal.Signals(number).name)
            await self._leave()

    async def _leave_when_idle(self) -> None:
        with trio.move_on_after(FIRST_CLIENT_SECONDS):
            while not self.networks:
                await self._activity()
        while True:
            while self.networks or self.clients:
                await self._activity()
            await trio.sleep(IDLE_SECONDS)
            if not self.networks and not self.clients:
                log.info("ending: no network is left")
                await self._leave()

    async def _activity(self) -> None:
        self._last_activity = trio.Event()
        await self._last_activity.wait()

    async def _leave(self) -> None:
        assert self._nursery is not None
        systemd.notify("STOPPING=1")
        self._ending = True
        for doors in self._doors.values():
            for door in doors:
                door.close()
        with trio.move_on_after(DRAIN_SECONDS):
            # Polled, since it happens once: an event would burden every flush of the daemon's life.
            while any(p.link and p.link.queue for n in self.networks.values() for p in n.ports.values()):  # noqa: ASYNC110
                await trio.sleep(0.01)
        self.save()
        for network in list(self.networks.values()):
            network.end("ipnd ends", keep_file=network.persistent)
        self._nursery.cancel_scope.cancel()


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system permits: each member takes two, each network three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _lock_of(control: str) -> Iterator[None]:
    """Hold the lock that says an ipnd serves ``control``; ``AlreadyRuns`` when another one does."""
    directory = os.path.dirname(control)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _check_directory(directory)
    fd = os.open(f"{control}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRuns(f"another ipnd already serves {control}") from None
        yield
    finally:
        os.close(fd)


def _check_directory(directory: str) -> None:
    """EPERM when the control socket's directory is one that another user could have prepared for us."""
    info = os.stat(directory)
    if info.st_uid not in (0, os.geteuid()) and not info.st_mode & stat.S_ISVTX:
        text = f"{directory} belongs to user {info.st_uid}; the control socket needs a directory of your own"
        raise PermissionError(errno.EPERM, text, directory)


@contextlib.contextmanager
def _control_listener(control: str) -> Iterator[socket.socket]:
    """Give the control socket: the one the service manager passed, or a new one at ``control``, removed at the end."""
    listener = systemd.activated_listener()
    own = listener is None
    if listener is None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(control).st_mode):
                raise FileExistsError(errno.EEXIST, f"{control} is in the way: it is not a socket", control)
            os.unlink(control)
        # A system daemon serves all users, each judged by its credentials; a user's is reached by that user.
        os.fchmod(listener.fileno(), 0o666 if os.geteuid() == 0 else 0o600)
        umask = os.umask(0)
        try:
            with short_address(control) as address:
                listener.bind(address)
        finally:
            os.umask(umask)
        listener.listen(BACKLOG)
    try:
        yield listener
    finally:
        listener.close()
        if own:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(control)


def serve(settings: Settings) -> int:
    """Run a daemon; return the exit status of ``ipnd``."""
    # trio's receiver takes over for the daemon's life; a second signal while it ends must not cut that short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a first bind starts us, wherever it comes from
    try:
        trio.run(Daemon(settings).run)
    except AlreadyRuns as error:
        print(f"ipnd: {error}", file=sys.stderr)
        return ALREADY_RUNS
    except (OSError, ValueError) as error:
        print(f"ipnd: {error}", file=sys.stderr)
        return 1
    return 0


