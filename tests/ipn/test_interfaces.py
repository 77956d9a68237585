"""The specification's requests about interfaces, through ``Socket.ioctl`` and the methods with friendlier names.

Each test runs in a network namespace of its own, made for its process: the library opens devices where its caller is.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

import ipn
from ipn import admin
from ipn.netdev import open_tap
from tests.peers import NOBODY, as_user, requires, requires_root, skip_or_fail
from tests.running import RunningDaemon
from tests.waiting import eventually

CLONE_NEWNET: Final = 0x40000000
"""unshare(2), setns(2)."""


@pytest.fixture
def namespace() -> Iterator[None]:
    """Put this process into a fresh network namespace, and back at the end."""
    if os.geteuid() != 0:
        skip_or_fail("needs root")
    if not os.path.exists("/dev/net/tun"):
        skip_or_fail("needs /dev/net/tun")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    assert libc.unshare(CLONE_NEWNET) == 0
    try:
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)


@pytest.fixture
def path(ipnd: RunningDaemon, namespace: None) -> str:
    return ipnd.path("net")


@pytest.fixture
def bound(path: str) -> Iterator[ipn.Socket]:
    with closing(ipn.bind(path, "vdeswitch")) as sock:
        yield sock


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()} - {"lo"}


def ports(path: str) -> list[dict[str, Any]]:
    return list(admin.show_network(path)["ports"])


def tap(name: str = "") -> bytes:
    return ipn.ifreq(name, flags=ipn.IPN_NODEFLAG_TAP)


def grab(name: str) -> bytes:
    return ipn.ifreq(name, flags=ipn.IPN_NODEFLAG_GRAB)


def dummy(name: str) -> None:
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)


# -- IPN_CONN_NETDEV ---------------------------------------------------------------------------------------------------


def test_a_bound_socket_becomes_a_tap(bound: ipn.Socket, path: str) -> None:
    reply = bound.ioctl(ipn.IPN_CONN_NETDEV, tap("mytap0"))
    assert isinstance(reply, bytes)
    assert ipn.IfReq.unpack(reply).name == "mytap0"
    (port,) = ports(path)
    assert (port["kind"], port["interface"]["name"]) == ("tap", "mytap0")
    assert bound.port == port["port"]
    assert bound.interface is not None
    with pytest.raises(OSError, match="already connected") as refusal:
        bound.ioctl(ipn.IPN_CONN_NETDEV, tap())
    assert refusal.value.errno == errno.EISCONN
    with pytest.raises(OSError, match="already connected"):
        bound.connect()


def test_a_tap_without_a_name_is_called_ipn_and_a_number(bound: ipn.Socket, path: str) -> None:
    assert bound.attach_tap() == "ipn0"
    with closing(ipn.bind(path)) as other:
        assert other.attach_tap() == "ipn1"


def test_its_mac_address_is_random_or_given(bound: ipn.Socket, path: str) -> None:
    bound.attach_tap(mac="02:00:00:00:00:05")
    with closing(ipn.bind(path)) as one, closing(ipn.bind(path)) as other:
        one.attach_tap()
        other.attach_tap()
        given, first, second = (port["interface"]["mac"] for port in ports(path))
    assert given == "02:00:00:00:00:05"
    assert first != second


def test_messages_go_through_the_interface_not_through_the_socket(bound: ipn.Socket) -> None:
    bound.attach_tap()
    for call in (lambda: bound.send(b"x"), lambda: bound.recv(1)):
        with pytest.raises(OSError, match="through its interface ipn0") as refusal:
            call()
        assert refusal.value.errno == errno.EOPNOTSUPP


def test_an_unbound_or_connected_socket_cannot_become_an_interface(bound: ipn.Socket, path: str) -> None:
    with closing(ipn.socket()) as unbound:
        with pytest.raises(OSError, match="bind the socket") as refusal:
            unbound.ioctl(ipn.IPN_CONN_NETDEV, tap())
        assert refusal.value.errno == errno.ENOTCONN
    with ipn.connect(path) as member:
        with pytest.raises(OSError, match="already connected") as refusal:
            member.ioctl(ipn.IPN_CONN_NETDEV, tap())
        assert refusal.value.errno == errno.EISCONN
    assert interfaces() == set()


@pytest.mark.parametrize(
    ("request_", "number", "words"),
    [
        (grab("lo"), errno.EINVAL, "loopback"),
        (grab("none0"), errno.EINVAL, "no interface none0"),
        (ipn.ifreq("x"), errno.EINVAL, "ifr_flags"),
        (tap("a/b"), errno.EINVAL, "no interface's name"),
        (tap("lo"), errno.EINVAL, "no TAP"),
    ],
)
def test_what_cannot_be_attached_is_refused(bound: ipn.Socket, request_: bytes, number: int, words: str) -> None:
    with pytest.raises(OSError, match=words) as refusal:
        bound.ioctl(ipn.IPN_CONN_NETDEV, request_)
    assert refusal.value.errno == number
    bound.attach_tap()  # the socket is bound still


@requires("ip")
def test_an_interface_is_grabbed_once(bound: ipn.Socket, path: str) -> None:
    dummy("wire0")
    bound.ioctl(ipn.IPN_CONN_NETDEV, grab("wire0"))
    with closing(ipn.bind(path)) as other:
        with pytest.raises(OSError, match="grabbed already") as refusal:
            other.ioctl(ipn.IPN_CONN_NETDEV, grab("wire0"))
        assert refusal.value.errno == errno.EBUSY
    (port,) = ports(path)
    assert (port["kind"], port["interface"]["name"]) == ("grab", "wire0")


@requires_root
@pytest.mark.parametrize("kind", ["tap", "grab"])
def test_without_the_capability_and_without_a_helper_it_is_eperm_and_says_what_to_do(
    ipnd: RunningDaemon, bound: ipn.Socket, path: str, kind: str
) -> None:
    dummy("wire0")
    os.chmod(path, 0o777)
    script = (
        "import ipn, sys\n"
        "sock = ipn.bind(sys.argv[1])\n"
        "try: sock.attach_tap() if sys.argv[2] == 'tap' else sock.attach_grab('wire0')\n"
        "except OSError as error: print(error.errno, error.strerror)"
    )
    environment = {**ipnd.env, "IPN_HELPER": ipnd.path("no-helper"), "PYTHONPATH": str(Path(ipn.__file__).parents[1])}
    done = subprocess.run(
        [*as_user(NOBODY), sys.executable, "-c", script, path, kind], env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"{errno.EPERM} "), done
    assert "helper" in done.stdout
    assert interfaces() == {"wire0", "wire0p"}


def test_rights_on_the_file_are_those_of_the_interface(path: str) -> None:
    with closing(ipn.bind(path)) as sock:
        sock.shutdown(ipn.SHUT_RD)
        sock.attach_tap()
        (port,) = ports(path)
        assert port["rights"] == "w"


# -- how long it stays -------------------------------------------------------------------------------------------------


def test_the_interface_goes_with_its_socket(path: str) -> None:
    with closing(ipn.bind(path)) as keeper:
        assert keeper.rights == ""
        sock = ipn.bind(path)
        sock.attach_tap("gone0")
        assert interfaces() == {"gone0"}
        sock.close()
        eventually(lambda: interfaces() == set())
        assert ports(path) == []


def joined(sock: ipn.Socket, request: bytes) -> bytes:
    """Take over an interface once ipnd has noticed that its former socket is closed."""

    def attempt() -> bytes:
        try:
            reply = sock.ioctl(ipn.IPN_JOIN_NETDEV, request)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return b""
        assert isinstance(reply, bytes)
        return reply

    return eventually(attempt)


def test_a_persistent_interface_outlives_its_socket_and_keeps_the_network(path: str) -> None:
    sock = ipn.bind(path)
    sock.attach_tap("keep0")
    assert sock.ioctl(ipn.IPN_SETPERSIST, 1) == 0
    sock.close()
    (port,) = ports(path)
    assert port["interface"]["lifetime"] == "persistent"
    with closing(ipn.bind(path)) as again:
        joined(again, ipn.ifreq("keep0"))
        assert again.ioctl(ipn.IPN_SETPERSIST, 0) == 0
    eventually(lambda: interfaces() == set())
    eventually(lambda: not os.path.exists(path), message="the network outlived its last interface")


def test_persistence_is_for_interfaces(bound: ipn.Socket, path: str) -> None:
    for sock in (bound, ipn.connect(path)):
        with pytest.raises(OSError, match="no interface") as refusal:
            sock.ioctl(ipn.IPN_SETPERSIST, 1)
        assert refusal.value.errno == errno.ENODEV
    sock.close()


def test_joining_an_interface_takes_it_over(bound: ipn.Socket, path: str) -> None:
    admin.attach_tap(path, "keep0", persist=True)
    index = socket.if_nametoindex("keep0")
    reply = joined(bound, ipn.ifreq(index=index))
    assert ipn.IfReq.unpack(reply).name == "keep0"
    with closing(ipn.bind(path)) as other:
        for name in ("keep0", "none0"):  # in use, unknown
            with pytest.raises(OSError, match=name) as refusal:
                other.ioctl(ipn.IPN_JOIN_NETDEV, ipn.ifreq(name))
            assert refusal.value.errno == errno.EADDRNOTAVAIL


def test_an_interface_of_another_network_cannot_be_joined(ipnd: RunningDaemon, bound: ipn.Socket, path: str) -> None:
    with closing(ipn.bind(ipnd.path("other"))) as other:
        admin.attach_tap(path, "keep0", persist=True)
        with pytest.raises(OSError, match="another network") as refusal:
            other.ioctl(ipn.IPN_JOIN_NETDEV, ipn.ifreq("keep0"))
        assert refusal.value.errno == errno.EPERM


def test_an_administrator_sets_and_clears_persistence_by_name_on_an_unbound_socket(path: str) -> None:
    sock = ipn.bind(path)
    sock.attach_tap("keep0")
    with closing(ipn.socket()) as unbound:
        assert unbound.ioctl(ipn.IPN_SETPERSIST_NETDEV, ipn.ifreq("keep0")) == 0
        sock.close()
        assert interfaces() == {"keep0"}
        with pytest.raises(OSError, match="none0") as refusal:
            unbound.ioctl(ipn.IPN_CLRPERSIST_NETDEV, ipn.ifreq("none0"))
        assert refusal.value.errno == errno.EADDRNOTAVAIL
        index = socket.if_nametoindex("keep0")
        assert unbound.ioctl(ipn.IPN_CLRPERSIST_NETDEV, ipn.ifreq(index=index)) == 0
    eventually(lambda: interfaces() == set())
    eventually(lambda: not os.path.exists(path), message="the network outlived its last interface")


def test_clearing_persistence_leaves_an_interface_to_the_socket_that_has_it(bound: ipn.Socket, path: str) -> None:
    bound.attach_tap("keep0")
    bound.set_persistent(True)
    with closing(ipn.socket()) as unbound:
        unbound.ioctl(ipn.IPN_CLRPERSIST_NETDEV, ipn.ifreq("keep0"))
    (port,) = ports(path)
    assert port["interface"]["lifetime"] == "socket"


@requires_root
def test_who_may_not_manage_the_network_may_not_change_persistence(
    ipnd: RunningDaemon, bound: ipn.Socket, path: str
) -> None:
    bound.attach_tap("keep0")
    os.chmod(path, 0o666)
    script = (
        "import ipn\n"
        "try: ipn.socket().ioctl(ipn.IPN_SETPERSIST_NETDEV, ipn.ifreq('keep0'))\n"
        "except OSError as error: print(error.errno)"
    )
    environment = {**ipnd.env, "PYTHONPATH": str(Path(ipn.__file__).parents[1])}
    command = [*as_user(NOBODY), sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{errno.EPERM}\n", done


@requires_root
def test_a_plain_member_cannot_make_its_interface_outlive_it(ipnd: RunningDaemon, bound: ipn.Socket, path: str) -> None:
    os.chmod(path, 0o666)
    with closing(ipn.socket()) as member:
        member.attach_device(open_tap("mine0"), path)
        with pytest.raises(OSError, match="needs its x permission") as refusal:
            member.set_persistent(True)
        assert refusal.value.errno == errno.EPERM
        member.set_persistent(False)
    eventually(lambda: ports(path) == [])


# -- SIOCSIFHWADDR -----------------------------------------------------------------------------------------------------


@requires("ip")
def test_the_mac_address_of_a_tap_can_be_set(bound: ipn.Socket, path: str) -> None:
    bound.attach_tap("mytap0")
    assert bound.ioctl(ipn.SIOCSIFHWADDR, ipn.ifreq("mytap0", mac="02:00:00:00:00:42")) == 0
    assert ports(path)[0]["interface"]["mac"] == "02:00:00:00:00:42"
    with pytest.raises(OSError, match="group") as refusal:
        bound.set_mac("01:00:00:00:00:42")
    assert refusal.value.errno == errno.EINVAL


@requires("ip")
def test_nothing_elses_mac_address_can_be_set(bound: ipn.Socket, path: str) -> None:
    dummy("wire0")
    with closing(ipn.bind(path)) as other:
        other.attach_grab("wire0")
        for sock in (bound, other):
            with pytest.raises(OSError, match="only the MAC address of a TAP") as refusal:
                sock.ioctl(ipn.SIOCSIFHWADDR, ipn.ifreq("wire0", mac="02:00:00:00:00:42"))
            assert refusal.value.errno == errno.EADDRNOTAVAIL


# -- what is handed over -----------------------------------------------------------------------------------------------


def test_a_device_opened_elsewhere_can_be_handed_over_by_a_plain_member(bound: ipn.Socket, path: str) -> None:
    with closing(ipn.socket()) as member:
        member.attach_device(open_tap("mine0"), path)
        assert [port["interface"]["lifetime"] for port in ports(path)] == ["socket"]
    eventually(lambda: ports(path) == [])


def test_other_descriptors_than_those_of_interfaces_are_refused(bound: ipn.Socket, ipnd: RunningDaemon) -> None:
    channel = bound._channel
    assert channel is not None
    before = ipnd.fds()
    tap_fd, watch = open_tap("mine0").fds
    null = os.open("/dev/null", os.O_RDWR)
    tcp = socket.socket()
    try:
        for kind, fds in (
            ("tap", (null, watch)),
            ("tap", (tap_fd, null)),
            ("tap", (tap_fd, tcp.fileno())),
            ("tap", (watch, tap_fd)),
            ("tap", (tap_fd,)),
            ("grab", (tap_fd, watch, tcp.fileno())),
            ("grab", (tcp.fileno(), watch, tcp.fileno())),
            ("bus", (tap_fd, watch)),
        ):
            with pytest.raises(OSError) as refusal:  # noqa: PT011 - which is what the next line looks at
                channel.request("attach", fds=fds, kind=kind)
            assert refusal.value.errno == errno.EINVAL, kind
    finally:
        for fd in (tap_fd, watch, null):
            os.close(fd)
        tcp.close()
    eventually(lambda: ipnd.fds() <= before)


@requires("ip")
def test_who_opened_a_tap_cannot_make_the_daemon_wait_for_it(bound: ipn.Socket, path: str) -> None:
    device = open_tap("mine0", up=True)
    kept = os.dup(device.fds[0])
    bound.attach_device(device)
    try:
        os.set_blocking(kept, True)
        subprocess.run(["ip", "address", "add", "10.0.0.1/24", "dev", "mine0"], check=True)
        subprocess.run(["ping", "-c1", "-W1", "10.0.0.2"], stdout=subprocess.DEVNULL, check=False)
        assert ports(path)[0]["rx_frames"] > 0
    finally:
        os.close(kept)
