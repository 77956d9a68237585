"""The part of a socket that is about interfaces of the host: putting a TAP or a grabbed one on the network.

The caller opens the device with its own privilege or has the helper open it (``helper``), and hands its descriptors to
the daemon; from then on the node is the interface, and what the network sends to it goes there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from . import abi
from .control import Message
from .helper import obtain_grab, obtain_tap
from .netdev import Device, close_device, tap_mtu
from .options import as_int
from .rendezvous import open_daemon, open_network

if TYPE_CHECKING:
    from .channel import ControlChannel


class InterfaceCalls:
    """The calls about interfaces; ``Socket`` has them, and the attributes that they share with its others."""

    proto: int
    _path: str | None
    _bound: bool
    _mtu: int
    _port: int
    _channel: ControlChannel | None
    _transport: Any
    _interface: Message
    _shutdown: dict[str, bool]

    def _check_open(self) -> None:
        raise NotImplementedError

    def _not_connected(self) -> OSError:
        raise NotImplementedError

    def _node_settings(self) -> Message:
        raise NotImplementedError

    def attach_tap(
        self,
        name: str = "",
        *,
        mac: str | None = None,
        up: bool = False,
        addresses: Sequence[str] = (),
        lifetime: str = "socket",
    ) -> str:
        """Make a TAP interface and connect the socket as it: frames of the network go there, and the reverse.

        ``name``: empty for ``ipn%d``; an existing TAP of the caller's is taken. ``mac``: None for a random one. Its MTU
        is the network's less the Ethernet header (an existing one keeps its own if the caller may not change it).
        ``up`` and ``addresses`` (``10.0.0.1/24``) are conveniences. ``lifetime``: it leaves with the "socket", with the
        "network", or is "persistent". Return its name.

        Errors: ENOTCONN unless bound, EISCONN when connected, EPERM with neither CAP_NET_ADMIN nor a helper that
        grants it, EINVAL for a bad name, MAC or address, EBUSY for a TAP in use, and those of ``connect``.
        """
        self._check_bound()
        exists = any(name == known for _, known in socket.if_nameindex())
        try:
            device = obtain_tap(name, mac=mac, mtu=tap_mtu(self._mtu), up=up, addresses=addresses)
        except PermissionError:
            if not exists:
                raise
            device = obtain_tap(name, mac=mac, up=up, addresses=addresses)
        self.attach_device(device, lifetime=lifetime)
        return str(self._interface["name"])

    def attach_grab(self, name: str, *, lifetime: str = "socket") -> str:
        """Grab the existing interface ``name`` and connect the socket as it; return its name.

        Errors: as ``attach_tap`` (CAP_NET_RAW); EINVAL for the loopback or an unknown one, EBUSY when grabbed already.
        """
        self._check_bound()
        self.attach_device(obtain_grab(name), lifetime=lifetime)
        return str(self._interface["name"])

    def attach_device(
        self, device: Device, path: str | os.PathLike[str] | None = None, *, lifetime: str = "socket"
    ) -> None:
        """Connect the socket as an interface that the caller has opened (``ipn.netdev``); its descriptors are closed.

        The socket is bound, or ``path`` names the network: that needs no more rights than ``connect``.
        """
        try:
            self._check_open()
            if path is not None and self._channel is None:
                self.open(path)
            if self._channel is None:
                raise self._not_connected()
            settings = {"kind": device.kind, "policy": self.proto, "lifetime": lifetime, **self._node_settings()}
            info, _ = self._channel.request("attach", fds=device.fds, **settings)
        finally:
            close_device(device)
        self._taken(info)

    def open(self, path: str | os.PathLike[str]) -> None:
        """Find the network at ``path`` without joining it yet; ``mtu`` is known from then on. Errors as ``connect``."""
        self._check_open()
        if self._channel is not None:
            raise OSError(errno.EISCONN, f"the socket is already on {self._path}", self._path)
        name = os.fspath(path)
        channel = open_network(name)
        try:
            self._mtu = int(channel.request("show")[0]["mtu"])
        except BaseException:
            channel.close()
            raise
        self._path, self._channel = name, channel

    def manage(self, path: str | os.PathLike[str]) -> None:
        """Bind to the network at ``path``, which must exist: unlike ``bind``, this makes none.

        Errors: EPERM without *x* on it, ENOENT or ECONNREFUSED when no network is there, EISCONN.
        """
        self.open(path)
        assert self._channel is not None
        self._channel.request("bind", policy=self.proto)
        self._bound = True

    def join_interface(self, name: str = "", *, index: int = 0) -> str:
        """Take over a persistent interface of the bound network that no socket controls; return its name.

        Errors: ENOTCONN, EISCONN, EADDRNOTAVAIL unknown or in use, EPERM when it is on another network.
        """
        self._check_bound()
        assert self._channel is not None
        self._taken(self._channel.request("join_interface", name=name, index=index)[0])
        return str(self._interface["name"])

    def set_persistent(self, on: bool) -> None:
        """Have the socket's interface stay on the network when the socket is closed, or not. ENODEV when it is none."""
        self._check_open()
        if self._channel is None:
            raise self._not_connected()
        if not self._interface:
            raise OSError(errno.ENODEV, "the node is no interface: only those can be persistent", self._path)
        self._channel.request("keep", lifetime="persistent" if on else "socket")

    def set_mac(self, mac: str) -> None:
        """Set the MAC address of the socket's TAP. EADDRNOTAVAIL when it has none, EINVAL for what is no address."""
        self._check_open()
        if self._channel is None or not self._interface:
            text = "only the MAC address of a TAP can be set, by the socket that controls it"
            raise OSError(errno.EADDRNOTAVAIL, text, self._path)
        self._channel.request("set_mac", mac=mac)

    @property
    def interface(self) -> Message | None:
        """The interface that this node is, as ``net show --json`` had it when it was attached; None for other nodes."""
        return dict(self._interface) if self._interface else None

    def _taken(self, info: Message) -> None:
        self._interface = info["interface"]
        self._mtu, self.proto, self._port = int(info["mtu"]), int(info["policy"]), int(info["port"])
        self._shutdown = {"read": "r" not in info["rights"], "write": "w" not in info["rights"]}

    def _check_bound(self) -> None:
        self._check_open()
        if self._transport is not None or self._interface:
            raise OSError(errno.EISCONN, f"the socket is already connected to {self._path}", self._path)
        if not self._bound:
            text = "bind the socket to a network first: interfaces are put on it by its managers"
            raise OSError(errno.ENOTCONN, text)


# -- the specification's requests about interfaces -----------------------------------------------------------


def _request(argument: int | bytes) -> abi.IfReq:
    if isinstance(argument, int):
        raise OSError(errno.EFAULT, "this request takes a struct ifreq: bytes, as ipn.ifreq makes them")
    return abi.IfReq.unpack(argument)


def _connect_netdev(sock: InterfaceCalls, argument: int | bytes) -> bytes:
    ifr = _request(argument)
    kind = ifr.flags & (abi.IPN_NODEFLAG_TAP | abi.IPN_NODEFLAG_GRAB)
    if kind == abi.IPN_NODEFLAG_TAP:
        return abi.ifreq(sock.attach_tap(ifr.name), flags=kind)
    if kind == abi.IPN_NODEFLAG_GRAB:
        return abi.ifreq(sock.attach_grab(ifr.name), flags=kind)
    raise OSError(errno.EINVAL, "IPN_CONN_NETDEV: ifr_flags must be IPN_NODEFLAG_TAP or IPN_NODEFLAG_GRAB")


def _join_netdev(sock: InterfaceCalls, argument: int | bytes) -> bytes:
    ifr = _request(argument)
    return abi.ifreq(sock.join_interface(ifr.name, index=0 if ifr.name else ifr.ifindex))


def _set_persist(sock: InterfaceCalls, argument: int | bytes) -> int:
    sock.set_persistent(bool(as_int(argument)))
    return 0


def _keep_netdev(lifetime: str) -> Callable[[InterfaceCalls, int | bytes], int]:
    def keep(sock: InterfaceCalls, argument: int | bytes) -> int:
        ifr = _request(argument)
        with contextlib.closing(open_daemon()) as daemon:
            daemon.request("keep", lifetime=lifetime, name=ifr.name, index=0 if ifr.name else ifr.ifindex)
        return 0

    return keep


def _set_hwaddr(sock: InterfaceCalls, argument: int | bytes) -> int:
    sock.set_mac(_request(argument).mac)
    return 0


REQUESTS: Final[dict[int, Callable[[InterfaceCalls, int | bytes], int | bytes]]] = {
    abi.IPN_CONN_NETDEV: _connect_netdev,
    abi.IPN_JOIN_NETDEV: _join_netdev,
    abi.IPN_SETPERSIST: _set_persist,
    abi.IPN_SETPERSIST_NETDEV: _keep_netdev("persistent"),
    abi.IPN_CLRPERSIST_NETDEV: _keep_netdev("socket"),
    abi.SIOCSIFHWADDR: _set_hwaddr,
}
