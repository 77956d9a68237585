"""Opening TAPs and grabbing interfaces with the privilege at hand, in network namespaces of the tests' own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ipn.ifnames import format_mac, parse_mac
from ipn.netdev import (
    ETH_P_ALL,
    IFREQ,
    SOL_PACKET,
    TUNSETPERSIST,
    VNET_HEADER_SIZE,
    Device,
    NoPrivilege,
    close_device,
    open_grab,
    open_tap,
    set_mac,
)
from ipn.netlink import Link, link, link_changes
from tests.helping import python
from tests.netns import interfaces, ip, own_namespace
from tests.peers import NOBODY, as_user, requires
from tests.waiting import eventually

BROADCAST, OUR_MAC, THEIR_MAC = b"\xff" * 6, b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
HEADER = bytes(VNET_HEADER_SIZE)
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
"""Runs a command of root that has not the capability."""


def frame(text: bytes, *, to: bytes = BROADCAST, sender: bytes = THEIR_MAC, kind: bytes = b"\x88\xb5") -> bytes:
    """Return an Ethernet frame of a type for experiments."""
    return to + sender + kind + text.ljust(46, b"\0")


@pytest.fixture
def namespace() -> Iterator[None]:
    with own_namespace():
        yield


@contextlib.contextmanager
def tap(name: str = "", **wishes: object) -> Iterator[Device]:
    device = open_tap(name, **wishes)  # type: ignore[arg-type]
    try:
        yield device
    finally:
        close_device(device)


@contextlib.contextmanager
def grab(name: str) -> Iterator[Device]:
    device = open_grab(name)
    try:
        yield device
    finally:
        close_device(device)


@contextlib.contextmanager
def packets(interface: str, protocol: int = ETH_P_ALL) -> Iterator[socket.socket]:
    """Give a plain packet socket on an interface: what is at the other end of the wire."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, protocol))
        sock.settimeout(5)
        yield sock


def state(name: str) -> Link:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return link(sock, name=name)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# -- TAP ---------------------------------------------------------------------------------------------------


def test_a_tap_without_a_name_is_called_ipn_and_the_first_free_number(namespace: None) -> None:
    with tap() as first, tap() as second, tap("vm%d") as third:
        assert [first.name, second.name, third.name] == ["ipn0", "ipn1", "vm0"]
        assert [device.kind for device in (first, second, third)] == ["tap"] * 3
        assert first.index == socket.if_nametoindex("ipn0")
        assert interfaces() == {"lo", "ipn0", "ipn1", "vm0"}
    assert interfaces() == {"lo"}


def test_a_new_tap_is_down_with_a_random_mac_and_the_usual_mtu(namespace: None) -> None:
    with tap("a") as one, tap("b") as two:
        assert (state("a").up, state("a").mtu) == (False, 1500)
        assert state("a").mac != state("b").mac
        assert parse_mac(state("a").mac)[0] & 2, "a random address is a local one"
        assert one.index != two.index


@requires("ip")
def test_a_tap_gets_what_was_asked_for(namespace: None) -> None:
    wishes = {"mac": "02:00:00:00:00:01", "mtu": 9000, "up": True, "addresses": ["10.0.0.1/24", "fd00::1/64"]}
    with tap("t", **wishes):
        assert state("t")[2:] == (True, True, 9000, "02:00:00:00:00:01")
        shown = ip("-o", "address", "show", "dev", "t")
        assert "10.0.0.1/24" in shown
        assert "fd00::1/64" in shown


def test_frames_go_both_ways_each_with_a_header(namespace: None) -> None:
    with tap("t", up=True) as device, packets("t", 0x88B5) as host:
        os.write(device.fds[0], HEADER + frame(b"in"))
        assert host.recv(2000) == frame(b"in")
        host.send(frame(b"out"))

        def arrived() -> bytes:
            data = os.read(device.fds[0], 2000)
            return data if data[VNET_HEADER_SIZE + 12 :][:2] == b"\x88\xb5" else b""

        def read() -> bytes:
            try:
                return arrived()
            except BlockingIOError:
                return b""

        assert eventually(read)[VNET_HEADER_SIZE:] == frame(b"out")


def test_the_descriptors_neither_block_nor_are_inherited(namespace: None) -> None:
    with tap() as device:
        assert len(device.fds) == 2
        for fd in device.fds:
            assert not os.get_blocking(fd)
            assert not os.get_inheritable(fd)


@requires("ip")
def test_the_watch_of_a_tap_tells_of_its_changes(namespace: None) -> None:
    with tap("t") as device:
        ip("link", "set", "dev", "t", "mtu", "1400")
        with socket.socket(fileno=os.dup(device.fds[1])) as watch:
            changes = list(link_changes(watch.recv(65536)))
            while changes[-1].mtu != 1400:
                changes += link_changes(watch.recv(65536))
        assert {change.index for change in changes} == {device.index}


def test_a_tap_lets_the_host_queue_a_thousand_frames(namespace: None) -> None:
    with tap("t"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        reply = fcntl.ioctl(sock, 0x8942, IFREQ.pack(b"t", b""))  # SIOCGIFTXQLEN
        assert struct.unpack_from("=i", reply, 16)[0] >= 1000


def test_who_holds_the_descriptor_sets_the_mac_address_without_privilege(namespace: None) -> None:
    with tap("t") as device:
        code = f"set_mac({device.fds[0]}, '02:00:00:00:00:77')"
        python(as_user(NOBODY), code, fds=device.fds)
        assert state("t").mac == "02:00:00:00:00:77"
        set_mac(device.fds[0], "02:00:00:00:00:78")
        assert state("t").mac == "02:00:00:00:00:78"
        with pytest.raises(OSError, match="of a group"):
            set_mac(device.fds[0], "03:00:00:00:00:78")


def test_who_holds_the_descriptor_sets_neither_mtu_nor_state_nor_another_tap(namespace: None) -> None:
    with tap("t") as device:
        code = f"""
fd = {device.fds[0]}
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print([attempt(fcntl.ioctl, sock, request, IFREQ.pack(b"t", struct.pack("=i", value)))[1] for request, value in
    ((SIOCSIFMTU, 1400), (SIOCSIFFLAGS, 1), (0x8923, 0))])
print(attempt(fcntl.ioctl, fd, TUNSETIFF, IFREQ.pack(b"other", struct.pack("=H", IFF_TAP)))[1])
"""
        said = python(as_user(NOBODY), code, fds=device.fds).split("\n")
        assert said[0] == str([errno.EPERM] * 3)
        assert int(said[1]) == errno.EEXIST
        assert interfaces() == {"lo", "t"}


@pytest.mark.parametrize(
    "name, wishes, number, words",
    [
        ("a/b", {}, errno.EINVAL, "a path"),
        ("t", {"mac": "01:00:00:00:00:01"}, errno.EINVAL, "of a group"),
        ("t", {"mac": "nonsense"}, errno.EINVAL, "no MAC address"),
        ("t", {"mtu": 67}, errno.EINVAL, "from 68 to 65521 bytes, not 67"),
        ("t", {"mtu": 65522}, errno.EINVAL, "from 68 to 65521 bytes, not 65522"),
        ("t", {"mtu": -1}, errno.EINVAL, "from 68"),
        ("t", {"addresses": ["10.0.0.1/24", "10.0.0.300/24"]}, errno.EINVAL, "no address like"),
        ("v0", {}, errno.EINVAL, "no TAP"),
        ("lo", {}, errno.EINVAL, "no TAP"),
        ("tun", {}, errno.EINVAL, "no TAP"),
        ("many", {}, errno.EINVAL, "no TAP with one queue"),
        ("kept", {"exclusive": True}, errno.EBUSY, "exists already"),
        ("busy", {}, errno.EBUSY, "in use by another program"),
        ("other-name", {}, errno.EINVAL, "no TAP"),
    ],
)
@requires("ip")
def test_a_tap_that_cannot_be_had_leaves_nothing_behind(
    namespace: None, name: str, wishes: dict[str, object], number: int, words: str
) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "property", "add", "dev", "v0", "altname", "other-name")
    ip("tuntap", "add", "tun", "mode", "tun")
    ip("tuntap", "add", "many", "mode", "tap", "multi_queue")
    ip("tuntap", "add", "kept", "mode", "tap")
    with tap("busy"):
        there, fds = interfaces(), open_fds()
        with pytest.raises(OSError, match=words) as refusal:
            open_tap(name, **wishes)  # type: ignore[arg-type]
        assert refusal.value.errno == number
        assert not isinstance(refusal.value, NoPrivilege)
        assert interfaces() == there
        assert open_fds() == fds


# -- TAPs that persist, and other people's ------------------------------------------------------------------


def persistent(name: str, **wishes: object) -> None:
    with tap(name, **wishes) as device:
        fcntl.ioctl(device.fds[0], TUNSETPERSIST, 1)


def test_a_persistent_tap_is_opened_again_as_it_was(namespace: None) -> None:
    persistent("t", mac="02:00:00:00:00:01", mtu=4000)
    before = state("t")
    with tap("t") as device:
        assert device.index == before.index
        assert state("t")[:2] + state("t")[4:] == before[:2] + before[4:]
        fcntl.ioctl(device.fds[0], TUNSETPERSIST, 0)
    assert interfaces() == {"lo"}


@requires("setpriv")
def test_the_owner_of_a_persistent_tap_needs_no_capability(namespace: None) -> None:
    persistent("t", mtu=4000, up=True)
    said = python(WITHOUT_NET_ADMIN, "print(open_tap('t', mtu=4000, up=True, mac='02:00:00:00:00:09').name)")
    assert said == "t\n"
    assert state("t").mac == "02:00:00:00:00:09"


@requires("setpriv")
def test_the_owner_of_a_persistent_tap_needs_the_capability_to_change_it(namespace: None) -> None:
    persistent("t")
    said = python(WITHOUT_NET_ADMIN, "print(attempt(open_tap, 't', mtu=4000))")
    assert (
        said == f"('PermissionError', {errno.EPERM}, 'changing the existing TAP t needs CAP_NET_ADMIN, {NOT_ROOT}')\n"
    )


NOT_ROOT = "which user 0 has not"


@requires("setpriv")
def test_a_persistent_tap_of_somebody_else_is_closed_to_others(namespace: None) -> None:
    persistent("theirs", owner=NOBODY)
    assert "NoPrivilege" in python(WITHOUT_NET_ADMIN, "print(attempt(open_tap, 'theirs'))")
    persistent("ours")
    to_everybody = "os.umask(0); print(attempt(open_tap, 'ours'))"
    assert "NoPrivilege" in python(as_user(NOBODY), to_everybody)


@requires("ip", "setpriv")
def test_the_virtio_header_is_switched_on_for_a_persistent_tap_made_without_it(namespace: None) -> None:
    ip("tuntap", "add", "t", "mode", "tap", "user", "0")
    ip("link", "set", "dev", "t", "up")
    code = f"""
device = open_tap('t')
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as host:
    host.bind(('t', 0x88B5))
    os.write(device.fds[0], {HEADER + frame(b"in")!r})
    print(host.recv(2000) == {frame(b"in")!r})
"""
    assert python(WITHOUT_NET_ADMIN, code) == "True\n"


@requires("setpriv")
def test_a_new_tap_without_privilege_says_what_is_missing(namespace: None) -> None:
    said = python(WITHOUT_NET_ADMIN, "print(attempt(open_tap, 't'))")
    assert said == f"('NoPrivilege', {errno.EPERM}, 'making the TAP t needs CAP_NET_ADMIN, {NOT_ROOT}')\n"
    assert "'NoPrivilege'" in python(as_user(NOBODY), "print(attempt(open_tap))")
    assert interfaces() == {"lo"}


# -- GRAB --------------------------------------------------------------------------------------------------


@pytest.fixture
def wires(namespace: None) -> None:
    """Two wires, v0–v1 and w0–w1, up, without the chatter of IPv6."""
    for one, other in (("v0", "v1"), ("w0", "w1")):
        ip("link", "add", one, "address", format_mac(OUR_MAC), "type", "veth", "peer", "name", other)
        for end in (one, other):
            ip("link", "set", end, "addrgenmode", "none", "up")


def heard(fd: int) -> bytes:
    """Return the next frame of a GRAB with its header."""

    def read() -> bytes:
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            return b""

    return eventually(read)


def silent(fd: int) -> bool:
    try:
        os.read(fd, 65536)
    except BlockingIOError:
        return True
    return False


@requires("ip")
def test_a_grab_hears_what_is_for_others_and_sends(wires: None) -> None:
    with grab("v0") as device, packets("v1", 0x88B5) as wire:
        assert device[:3] == ("grab", "v0", socket.if_nametoindex("v0"))
        wire.send(frame(b"for a third", to=b"\x02\0\0\0\0\x0c"))
        assert heard(device.fds[0])[VNET_HEADER_SIZE:] == frame(b"for a third", to=b"\x02\0\0\0\0\x0c")
        os.write(device.fds[0], HEADER + frame(b"sent", sender=b"\x02\0\0\0\0\x0d"))
        assert wire.recv(2000) == frame(b"sent", sender=b"\x02\0\0\0\0\x0d")


@requires("ip")
def test_a_grab_does_not_hear_what_the_host_sends_through_the_interface(wires: None) -> None:
    with grab("v0") as device, packets("v0", 0) as host, packets("v1") as wire:
        host.send(frame(b"by the host"))
        os.write(device.fds[0], HEADER + frame(b"by the grab"))
        assert {wire.recv(2000), wire.recv(2000)} == {frame(b"by the host"), frame(b"by the grab")}
        assert silent(device.fds[0])


@requires("ip")
def test_the_interface_is_promiscuous_while_it_is_grabbed(wires: None) -> None:
    assert "promiscuity 0" in ip("-d", "link", "show", "v0")
    with grab("v0"):
        assert "promiscuity 1" in ip("-d", "link", "show", "v0")
    assert "promiscuity 0" in ip("-d", "link", "show", "v0")


@requires("ip")
def test_the_descriptors_of_a_grab_neither_block_nor_are_inherited(wires: None) -> None:
    with grab("v0") as device:
        assert len(device.fds) == 3
        for fd in device.fds:
            assert not os.get_blocking(fd)
            assert not os.get_inheritable(fd)


@requires("ip")
def test_a_vlan_tag_that_the_kernel_took_off_comes_beside_the_frame(wires: None) -> None:
    tagged = frame(b"\x00\x2a\x88\xb5tagged", kind=b"\x81\x00")
    with grab("v0") as device, packets("v1", 0) as wire, socket.socket(fileno=os.dup(device.fds[0])) as sock:
        wire.send(tagged)
        sock.settimeout(5)
        data, ancillary, _, _ = sock.recvmsg(2000, socket.CMSG_SPACE(20))
        ((level, kind, payload),) = ancillary
        status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", payload)
        assert (level, kind) == (SOL_PACKET, 8)  # PACKET_AUXDATA
        assert status & 0x10, "TP_STATUS_VLAN_VALID"
        assert (tci, tpid) == (42, 0x8100)
        assert data[VNET_HEADER_SIZE:] == tagged[:12] + tagged[16:]


@requires("ip")
def test_nothing_of_other_interfaces_is_heard_even_while_it_is_opened(wires: None) -> None:
    with packets("w1", 0) as noise:
        for _ in range(100):
            noise.send(frame(b"noise"))
            with grab("v0") as device:
                noise.send(frame(b"noise"))
                assert silent(device.fds[0])


@requires("ip")
def test_a_grab_cannot_be_bound_to_another_interface_by_anybody(wires: None) -> None:
    with grab("v0") as device, socket.socket(fileno=os.dup(device.fds[0])) as sock:
        for name in ("w0", "v0"):
            with pytest.raises(OSError, match="Invalid argument"):
                sock.bind((name, ETH_P_ALL))
        code = f"sock = socket.socket(fileno={device.fds[0]}); print(attempt(sock.bind, ('w0', 3))[1])"
        assert python(as_user(NOBODY), code, fds=device.fds) == f"{errno.EINVAL}\n"
        ip("link", "del", "v0")
        with pytest.raises(OSError, match="Invalid argument"):
            sock.bind(("w0", ETH_P_ALL))


@requires("ip", "setpriv")
def test_the_holder_of_a_grab_may_send_through_any_interface(wires: None) -> None:
    # No wish of ours, but a fact that ipn-helper(8) warns of; when it is none any more, the warning may go.
    with grab("v0") as device, packets("w1", 0x88B5) as elsewhere:
        code = f"""
sock = socket.socket(fileno={device.fds[0]})
sock.sendmsg([{HEADER + frame(b"elsewhere")!r}], [], 0, ("w0", 0x88B5))
mreq = PACKET_MREQ.pack(socket.if_nametoindex("w0"), PACKET_MR_PROMISC, 0, b"")
sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, mreq)
print(open("/proc/self/status").read())
"""
        said = python(as_user(NOBODY), code, fds=device.fds)
        assert "CapEff:\t0000000000000000" in said
        assert elsewhere.recv(2000) == frame(b"elsewhere")
        assert "promiscuity 1" in ip("-d", "link", "show", "w0")


@requires("ip")
def test_an_interface_that_goes_down_and_up_is_still_grabbed(wires: None) -> None:
    with grab("v0") as device, packets("v1", 0) as wire, socket.socket(fileno=os.dup(device.fds[0])) as sock:
        ip("link", "set", "v0", "down")
        with pytest.raises(OSError, match="Network is down") as down:
            sock.recv(2000)
        assert down.value.errno == errno.ENETDOWN
        ip("link", "set", "v0", "up")
        eventually(lambda: state("v0").running)
        wire.send(frame(b"again"))
        assert heard(device.fds[0])[VNET_HEADER_SIZE:] == frame(b"again")


@requires("ip")
def test_an_interface_may_be_grabbed_while_it_is_down(wires: None) -> None:
    ip("link", "set", "v0", "down")
    try:
        device = open_grab("v0")
    except OSError as error:
        assert error.errno == errno.ENETDOWN  # noqa: PT017  # kernels before 6.13 say so
        return
    with packets("v1", 0) as wire:
        ip("link", "set", "v0", "up")
        eventually(lambda: state("v0").running)
        wire.send(frame(b"up now"))
        assert heard(device.fds[0])[VNET_HEADER_SIZE:] == frame(b"up now")
    close_device(device)


@requires("ip")
def test_what_is_grabbed_cannot_be_grabbed_again_until_all_descriptors_are_closed(wires: None) -> None:
    with grab("v0") as device:
        for _ in range(3):
            with pytest.raises(OSError, match="the interface v0 is grabbed already") as refusal:
                open_grab("v0")
            assert refusal.value.errno == errno.EBUSY
        with grab("w0"):
            pass
        passed_on = [os.dup(fd) for fd in device.fds]
    with pytest.raises(OSError, match="grabbed already"):
        open_grab("v0")
    for fd in passed_on:
        os.close(fd)
    with grab("v0"):
        pass


@requires("ip", "setpriv")
def test_a_squatter_on_the_locks_name_keeps_nobody_from_grabbing(wires: None) -> None:
    code = f"""
lock = socket.socket(socket.AF_UNIX)
lock.bind(b"\\0ipn/grab/%d" % {socket.if_nametoindex("v0")})
lock.listen()
print("there", flush=True)
sys.stdin.read()
"""
    command = [*as_user(NOBODY), sys.executable, "-S", "-c", f"import socket, sys\n{code}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdin is not None
        assert squatter.stdout.readline() == b"there\n"
        with grab("v0") as device:
            assert len(device.fds) == 3
        squatter.stdin.close()


@requires("ip")
def test_a_lock_that_somebody_took_without_listening_keeps_nobody_from_grabbing(wires: None) -> None:
    with socket.socket(socket.AF_UNIX) as lock:
        lock.bind(b"\0ipn/grab/%d" % socket.if_nametoindex("v0"))
        with grab("v0"):
            pass


@pytest.mark.parametrize(
    "name, words",
    [
        ("lo", "loopback"),
        ("nowhere", "no interface nowhere"),
        ("", "missing"),
        ("tun", "no Ethernet interface"),
        ("wire", "only another name of the interface v0"),
        ("v0:1", "alias"),
        ("../v0", "path"),
        ("v%d", "%d"),
        ("n" * 16, "longer"),
    ],
)
@requires("ip")
def test_what_cannot_be_grabbed_is_einval_and_leaves_nothing_behind(wires: None, name: str, words: str) -> None:
    ip("tuntap", "add", "tun", "mode", "tun")
    ip("link", "property", "add", "dev", "v0", "altname", "wire")
    fds = open_fds()
    with pytest.raises(OSError, match=words) as refusal:
        open_grab(name)
    assert refusal.value.errno == errno.EINVAL
    assert open_fds() == fds
    assert "promiscuity 0" in ip("-d", "link", "show", "v0")
    with grab("v0"):
        pass


@requires("ip", "setpriv")
def test_grabbing_without_privilege_says_what_is_missing(wires: None) -> None:
    said = python(as_user(NOBODY), "print(attempt(open_grab, 'v0'))")
    words = f"grabbing v0 needs CAP_NET_RAW, which user {NOBODY} has not"
    assert said == f"('NoPrivilege', {errno.EPERM}, '{words}')\n"
