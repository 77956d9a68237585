"""Managing networks: making persistent ones, looking at them, resizing, deleting, watching them.

Each call opens a control connection of its own: to the network's path or, when nobody answers there (the
socket file was deleted), to the daemon's control socket with the path in the request. Only ``create_network``
starts a daemon where none runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

from . import create
from .abi import (
    DEFAULT_MSGPOOLSIZE,
    DEFAULT_MTU,
    DEFAULT_NUMNODES,
    IPN_BROADCAST,
    IPN_FLAG_LOSSLESS,
    policy_number,
)
from .channel import ControlChannel
from .control import Message
from .create import Creation
from .rendezvous import control_path, open_daemon, open_network, short_address
from .socket import Socket

StrPath = str | os.PathLike[str]

GONE: Final = "its ipnd has closed the connection"
"""Why a network that was watched has ended, when nobody said it."""


# -- one network ------------------------------------------------------------------------------------------


def create_network(
    path: StrPath,
    policy: int | str = IPN_BROADCAST,
    *,
    mtu: int = DEFAULT_MTU,
    ports: int = DEFAULT_NUMNODES,
    pool: int = DEFAULT_MSGPOOLSIZE,
    lossless: bool = False,
    mode: int | None = None,
    gid: int | None = None,
    gateways: Sequence[tuple[str, StrPath]] = (),
) -> None:
    """Make a network at ``path`` that lives until ``delete_network``, with or without members.

    ``mtu`` in bytes, ``pool`` in messages. ``mode``: the socket file's exact mode (None: 0777 less the
    umask); ``gid``: its group (None: the one the kernel gives it); both are set before anybody can
    connect. ``gateways``: kinds and paths as for ``add_gateway``; without them all there is no network. Errors: those
    of ``add_gateway``; EEXIST when a network lives there, EPROTONOSUPPORT for a policy number that the daemon does
    not have (``ValueError`` for such a name), EPERM for a group that the caller is not in, and those of ``ipn.bind``.
    """
    number = _policy_number(policy, lambda: _ask_daemon("policies", autostart=True))
    creation = Creation(
        mtu=mtu,
        maxports=ports,
        pool=pool,
        flags=IPN_FLAG_LOSSLESS if lossless else 0,
        exact_mode=mode,
        gid=gid,
        persistent=True,
        exclusive=True,
    )
    with closing(create.create_network(os.fspath(path), number, creation)[0]) as channel:
        try:
            for kind, address in gateways:
                channel.request("add", kind=kind, address=os.path.abspath(address), options={})
        except BaseException:
            channel.request("delete")
            raise


def show_network(path: StrPath) -> Message:
    """Return the network at ``path`` and its ports, as ``ipnctl net show --json`` prints them.

    Errors: ENOENT or ECONNREFUSED when no network is there, EACCES when its mode gives the caller nothing.
    """
    return dict(_ask(path, "show"))


def delete_network(path: StrPath) -> None:
    """End the network at ``path``: its members are disconnected and its socket file is removed.

    Errors: ENOENT or ECONNREFUSED when no network is there, EPERM without *x* on it.
    """
    _ask(path, "delete")


def resize_network(path: StrPath, ports: int) -> None:
    """Change how many ports the network at ``path`` has.

    Errors: as ``delete_network``; EADDRINUSE when a port beyond the new number is in use.
    """
    _ask(path, "resize", maxports=ports)


def set_network(path: StrPath, *, policy: int | str | None = None, ports: int | None = None) -> None:
    """Change the delivery policy of the live network at ``path``, how many ports it has, or both.

    Errors: as ``resize_network``; EPROTONOSUPPORT for a policy number that its daemon does not have (``ValueError``
    for such a name), and whatever the new policy refuses with.
    """
    fields = {} if ports is None else {"maxports": ports}
    if policy is not None:
        fields["policy"] = _policy_number(policy, lambda: _ask(path, "policies"))
    _ask(path, "set", **fields)


def attach_tap(
    path: StrPath,
    name: str = "",
    *,
    mac: str | None = None,
    persist: bool = False,
    up: bool = False,
    addresses: Sequence[str] = (),
) -> str:
    """Make a TAP interface, put it on the network at ``path`` and return its name.

    It stays until ``detach`` or the end of the network or of its daemon; with ``persist`` it is kept over restarts of
    the daemon and keeps its network alive. The other arguments and the errors: as ``Socket.attach_tap``.
    """
    with _managed(path) as sock:
        lifetime = "persistent" if persist else "network"
        return sock.attach_tap(name, mac=mac, up=up, addresses=addresses, lifetime=lifetime)


def attach_grab(path: StrPath, name: str) -> str:
    """Grab the existing interface ``name`` for the network at ``path`` and return its name.

    It stays until ``detach`` or the end of the network; a persistent network has it again when its daemon restarts.
    Errors: as ``Socket.attach_grab``.
    """
    with _managed(path) as sock:
        return sock.attach_grab(name, lifetime="network")


def detach(path: StrPath, name: str, *, port: int | None = None) -> None:
    """Take the interface ``name`` off the network at ``path``: a TAP ends, a grabbed one is let go.

    ``port``: which one, where interfaces of several network namespaces are called so. Errors: EADDRNOTAVAIL when it is
    not on it, ENOTUNIQ when there are several, and as ``delete_network``.
    """
    _ask(path, "detach", name=name, **({} if port is None else {"port": port}))


@contextmanager
def _managed(path: StrPath) -> Iterator[Socket]:
    """Give a socket that manages the existing network at ``path``, and close it."""
    with closing(Socket()) as sock:
        sock.manage(path)
        yield sock


def add_gateway(path: StrPath, kind: str, address: StrPath) -> Message:
    """Let programs that know nothing of IPN onto the network at ``path``; return the gateway as ``show_network`` does.

    ``kind``: ``vde`` (``address`` is the directory of a VDE switch), ``dgram`` (a unix datagram socket, as QEMU's
    ``-netdev dgram`` has it, also for vfkit) or ``seqpacket`` (a unix SEQPACKET socket). Errors: as
    ``delete_network``; EADDRINUSE when somebody serves that address, EEXIST when something else is there.
    """
    return dict(_ask(path, "add", kind=kind, address=os.path.abspath(address), options={}))


def remove_gateway(path: StrPath, kind: str, address: StrPath) -> None:
    """Close a gateway of the network at ``path``; members that came through it leave.

    Errors: as ``delete_network``; ENOENT when there is none such.
    """
    _ask(path, "remove", kind=kind, address=os.path.abspath(address))


def add_fixture(path: StrPath, kind: str, address: str, **options: Any) -> Message:
    """Fix an uplink or a cable to the network at ``path``, and return it as ``show_network`` does.

    Options that are None are left out. Errors: as ``delete_network``; EEXIST when it is there already, EINVAL for
    what makes no sense, and those of the kind.
    """
    given = {name: value for name, value in options.items() if value is not None}
    return dict(_ask(path, "add", kind=kind, address=address, options=given))


def remove_fixture(path: StrPath, kind: str, address: str) -> None:
    """Take an uplink or a cable off the network at ``path``. Errors: as ``remove_gateway``."""
    _ask(path, "remove", kind=kind, address=address)


def impair(
    path: StrPath,
    port: int,
    direction: str = "both",
    *,
    delay_ms: float = 0,
    jitter_ms: float = 0,
    loss: float = 0,
    rate: int = 0,
    duplicate: float = 0,
    reorder: float = 0,
    seed: int | None = None,
) -> Message:
    """Make the line of a member worse until it leaves; return its impairment as ``show_network`` does.

    ``direction``: ``in``, what it sends, ``out``, what it is given, or ``both``. ``rate`` in bit/s, 0 for any;
    ``loss``, ``duplicate`` and ``reorder`` in per cent of the frames. Same seed and same frames, same losses; by
    default the seed is the number of the port. What is not given is not impaired; without anything, an impairment ends
    and what waits goes at once. Errors: as ``delete_network``; EADDRNOTAVAIL when nobody is on the port, EINVAL for
    what makes no sense.
    """
    settings: Message = {
        "delay_ms": delay_ms,
        "jitter_ms": jitter_ms,
        "loss": loss,
        "rate": rate,
        "duplicate": duplicate,
        "reorder": reorder,
    }
    if seed is not None:
        settings["seed"] = seed
    return dict(_ask(path, "impair", port=port, direction=direction, settings=settings))


def policy_verb(path: StrPath, verb: str, /, **arguments: Any) -> Any:
    """Have the policy of the network at ``path`` carry out a management request and return its answer.

    Which verbs there are and what they take, each policy says; arguments that are None are left out. Errors:
    EOPNOTSUPP when the policy has no such verb, EPERM for a change without *x*, those of the policy, and as
    ``show_network``.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    return _ask(path, "policy", verb=verb, arguments=given)


def monitor(path: StrPath) -> Generator[Message]:
    """Watch the network at ``path`` until it ends: yield what happens, as it happens.

    Each is an object with an ``event``: first ``network``, with what ``show_network`` gives; then ``join``
    and ``leave`` (with the port), ``numnodes`` (``numreaders``, ``numwriters``); last ``end`` (``why``).
    Errors, at the first step: as ``show_network``.
    """
    channel, state = _open_asking(path, "monitor")
    with closing(channel):
        yield {"event": "network", **state}
        end = {"event": "end", "why": GONE, "path": state["path"]}
        # The daemon says "end" before the members leave; told in the order of cause and effect it comes last.
        with suppress(EOFError, ConnectionError):
            while (notice := channel.wait_notice(None)) is not None:
                if notice.get("event") == "end":
                    end = notice
                else:
                    yield notice
        yield end


# -- the daemon -------------------------------------------------------------------------------------------


def list_networks() -> list[Message]:
    """Return the daemon's networks that the caller has any right on, without their ports, sorted by path.

    Empty when no daemon runs. Errors: EACCES when there is one that the caller may not ask, ECONNREFUSED when
    it does not answer.
    """
    try:
        return list(_ask_daemon("list"))
    except ConnectionRefusedError:
        if _somebody_listens(control_path()):
            raise
        return []


def policies() -> list[Message]:
    """Return the daemon's delivery policies, each with ``number`` and ``name``.

    Errors: ECONNREFUSED when no daemon runs, EACCES when the caller may not ask it.
    """
    return list(_ask_daemon("policies"))


def _policy_number(policy: int | str, known: Callable[[], list[Message]]) -> int:
    """Return the number of a policy given by number or name; ``known`` asks a daemon for what plug-ins have added.

    ``ValueError`` for a name that it does not know either.
    """
    with suppress(ValueError):
        return policy_number(policy)
    numbers = {str(row["name"]): int(row["number"]) for row in known()}
    if policy not in numbers:
        raise ValueError(f"unknown policy {policy!r}; this ipnd has {', '.join(numbers)}")
    return numbers[str(policy)]


def _ask_daemon(op: str, *, autostart: bool = False) -> Any:
    with closing(open_daemon(autostart=autostart)) as channel:
        return channel.request(op)[0]


def _somebody_listens(path: str) -> bool:
    """Tell a daemon that does not answer from one that is not there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with short_address(path) as address:
                probe.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


# -- asking -----------------------------------------------------------------------------------------------


def _ask(path: StrPath, op: str, **fields: Any) -> Any:
    channel, answer = _open_asking(path, op, **fields)
    channel.close()
    return answer


def _open_asking(path: StrPath, op: str, **fields: Any) -> tuple[ControlChannel, Any]:
    """Ask the network at ``path``, or the daemon where that leads nowhere; return connection and answer."""
    name = os.fspath(path)
    fields["path"] = os.path.abspath(name)
    try:
        channel = open_network(name)
    except (FileNotFoundError, ConnectionRefusedError) as unreachable:
        # Not for EACCES: a directory that keeps the caller out must not be bypassed.
        try:
            channel = open_daemon()
        except (FileNotFoundError, ConnectionRefusedError):
            raise unreachable from None
        channel.path = name
        return _asked_of_the_daemon(channel, unreachable, op, **fields)
    return _asked(channel, op, **fields)


def _asked_of_the_daemon(
    channel: ControlChannel, unreachable: OSError, op: str, **fields: Any
) -> tuple[ControlChannel, Any]:
    """Ask the daemon about a network whose path leads nowhere; where it knows none such, that is why it is missing."""
    try:
        return _asked(channel, op, **fields)
    except (FileNotFoundError, ConnectionRefusedError):
        raise unreachable from None


def _asked(channel: ControlChannel, op: str, **fields: Any) -> tuple[ControlChannel, Any]:
    try:
        return channel, channel.request(op, **fields)[0]
    except BaseException:
        channel.close()
        raise
