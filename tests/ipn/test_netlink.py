"""What the kernel says of interfaces, and what it is told: real namespaces, and messages that no kernel sends."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipn.netlink import HEADER, Link, LinkChange, add_address, add_route, link, link_changes, watch_links
from tests.netns import ip, other_namespace, own_namespace
from tests.peers import requires
from tests.waiting import eventually


@pytest.fixture
def namespace() -> Iterator[None]:
    with own_namespace(tun=False):
        yield


class Watch:
    """A watch that remembers what it was told."""

    def __init__(self) -> None:
        self.sock = watch_links()
        self.told: list[LinkChange] = []

    def wait_for(self, **wanted: object) -> LinkChange:
        """Return the first change told after the last one waited for that has these fields."""

        def found() -> LinkChange | None:
            self._read()
            while self.told:
                change = self.told.pop(0)
                if all(getattr(change, name) == value for name, value in wanted.items()):
                    return change
            return None

        change = eventually(found, message=f"no change with {wanted}")
        assert change is not None
        return change

    def rest(self) -> list[LinkChange]:
        self._read()
        told, self.told = self.told, []
        return told

    def _read(self) -> None:
        try:
            while True:
                self.told += link_changes(self.sock.recv(65536))
        except BlockingIOError:
            pass


@pytest.fixture
def watch(namespace: None) -> Iterator[Watch]:
    watch = Watch()
    with watch.sock:
        yield watch


def add_veth() -> None:
    ip("link", "add", "v0", "address", "02:00:00:00:00:0a", "type", "veth", "peer", "name", "v1")


# -- watching ----------------------------------------------------------------------------------------------


@requires("ip")
def test_a_watch_is_told_of_a_new_interface_and_of_each_change(watch: Watch) -> None:
    add_veth()
    new = watch.wait_for(name="v0")
    assert (new.up, new.running, new.mtu, new.mac, new.deleted) == (False, False, 1500, "02:00:00:00:00:0a", False)
    assert new.index == socket.if_nametoindex("v0")
    ip("link", "set", "v0", "up")
    assert not watch.wait_for(name="v0", up=True).running
    ip("link", "set", "v1", "up")
    watch.wait_for(name="v0", running=True)
    ip("link", "set", "v0", "mtu", "9000")
    watch.wait_for(name="v0", mtu=9000)
    ip("link", "set", "v0", "address", "02:00:00:00:00:0b")
    watch.wait_for(name="v0", mac="02:00:00:00:00:0b")
    ip("link", "set", "v1", "down")
    assert watch.wait_for(name="v0", running=False).up


@requires("ip")
def test_a_renamed_interface_keeps_its_index(watch: Watch) -> None:
    add_veth()
    index = watch.wait_for(name="v0").index
    ip("link", "set", "v0", "name", "wire")
    assert watch.wait_for(name="wire").index == index


@requires("ip")
def test_an_interface_that_is_deleted_is_told_as_deleted(watch: Watch) -> None:
    add_veth()
    index = watch.wait_for(name="v0").index
    ip("link", "del", "v1")
    watch.wait_for(index=index, deleted=True)


@requires("ip", "unshare")
def test_an_interface_that_moves_to_another_namespace_is_told_as_deleted(watch: Watch) -> None:
    add_veth()
    with other_namespace() as other:
        ip("link", "set", "v0", "netns", other)
        watch.wait_for(name="v0", deleted=True)


@requires("ip")
def test_leaving_a_bridge_is_not_told_as_deleted(watch: Watch) -> None:
    # The kernel sends RTM_DELLINK for it, of the family AF_BRIDGE.
    add_veth()
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "v0", "master", "br0")
    ip("link", "set", "v0", "nomaster")
    ip("link", "set", "v0", "mtu", "1400")
    watch.wait_for(name="v0", mtu=1400)
    assert not [change for change in watch.rest() if change.deleted]


def test_a_watch_does_not_wait(watch: Watch) -> None:
    watch.rest()
    with pytest.raises(BlockingIOError):
        watch.sock.recv(65536)
    assert not os.get_inheritable(watch.sock.fileno())


@requires("ip")
def test_a_watch_stays_with_its_namespace(watch: Watch) -> None:
    add_veth()
    watch.wait_for(name="v1")
    with own_namespace(tun=False):
        ip("link", "add", "v0", "mtu", "1234", "type", "veth", "peer", "name", "v1")
        assert link(watch.sock, name="v0").mtu == 1500
    assert not [change for change in watch.rest() if change.mtu == 1234]


# -- asking ------------------------------------------------------------------------------------------------


@requires("ip")
def test_an_interface_is_found_by_name_and_by_index(watch: Watch) -> None:
    add_veth()
    ip("link", "set", "v0", "up")
    index = socket.if_nametoindex("v0")
    expected = Link("v0", index, True, False, 1500, "02:00:00:00:00:0a")
    assert link(watch.sock, name="v0") == expected
    assert link(watch.sock, index=index) == expected
    ip("link", "set", "v1", "up")
    assert eventually(lambda: link(watch.sock, index=index).running)


def test_loopback_has_an_address_of_zeros(watch: Watch) -> None:
    assert link(watch.sock, name="lo").mac == "00:00:00:00:00:00"


@requires("ip")
def test_an_interface_without_a_mac_address_has_an_empty_one(watch: Watch) -> None:
    ip("tuntap", "add", "t0", "mode", "tun")
    assert link(watch.sock, name="t0").mac == ""


@pytest.mark.parametrize(
    "wanted, words",
    [
        ({"name": "nowhere"}, "named nowhere"),
        ({"index": 4711}, "with the index 4711"),
        ({}, "with the index 0"),
        ({"index": -1}, "with the index -1"),
        ({"name": "n" * 40}, "named nnn"),
    ],
)
def test_an_interface_that_is_not_there_is_enodev(watch: Watch, wanted: dict[str, object], words: str) -> None:
    with pytest.raises(OSError, match=words) as refusal:
        link(watch.sock, **wanted)  # type: ignore[arg-type]
    assert refusal.value.errno == errno.ENODEV


# -- telling -----------------------------------------------------------------------------------------------


@requires("ip")
def test_addresses_of_both_versions_are_given_and_may_be_given_twice(watch: Watch) -> None:
    add_veth()
    index = socket.if_nametoindex("v0")
    for address in ("10.0.0.1/24", "fd00::1/64", "10.0.0.1/24", "fd00::1/64"):
        add_address(index, address)
    shown = ip("-o", "address", "show", "dev", "v0")
    assert "inet 10.0.0.1/24 " in shown
    assert "inet6 fd00::1/64 scope global nodad" in shown


@requires("ip")
def test_an_ipv6_address_can_be_used_at_once(watch: Watch) -> None:
    add_veth()
    ip("link", "set", "v0", "up")
    ip("link", "set", "v1", "up")
    add_address(socket.if_nametoindex("v0"), "fd00::1/64")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("fd00::1", 0))  # EADDRNOTAVAIL while the search for a duplicate goes on


@requires("ip")
def test_routes_are_added_to_everywhere_and_to_a_network(watch: Watch) -> None:
    add_veth()
    index = socket.if_nametoindex("v0")
    add_address(index, "10.0.0.1/24")
    add_address(index, "fd00::1/64")
    ip("link", "set", "v0", "up")
    ip("link", "set", "v1", "up")
    add_route(index, "10.0.0.254")
    add_route(index, "10.0.0.253", "10.9.0.0/16")
    add_route(index, "fd00::ff")
    add_route(index, "fd00::fe", "fd09::/32")
    assert "default via 10.0.0.254 dev v0" in ip("route")
    assert "10.9.0.0/16 via 10.0.0.253 dev v0" in ip("route")
    assert "default via fd00::ff dev v0" in ip("-6", "route")
    assert "fd09::/32 via fd00::fe dev v0" in ip("-6", "route")
    with pytest.raises(FileExistsError):
        add_route(index, "10.0.0.254")


@requires("ip")
def test_the_kernels_refusals_say_what_was_asked_for_and_why_not(watch: Watch) -> None:
    with pytest.raises(OSError, match=r"^\[Errno 19\] cannot give interface 4711 the address 10\.0\.0\.1/24: .+"):
        add_address(4711, "10.0.0.1/24")
    add_veth()
    ip("link", "set", "v0", "up")
    with pytest.raises(OSError, match=r"cannot add the route to 0\.0\.0\.0/0 by 10\.0\.0\.254 through interface") as no:
        add_route(socket.if_nametoindex("v0"), "10.0.0.254")
    assert no.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize("address", ["", "10.0.0", "10.0.0.1/33", "fd00::1/129", "a host", "10.0.0.1/24/8"])
def test_what_is_no_address_is_refused_before_the_kernel_is_asked(address: str) -> None:
    with pytest.raises(OSError, match="is no address like") as refusal:
        add_address(1, address)
    assert refusal.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "gateway, destination", [("here", None), ("10.0.0.1", "fd00::/64"), ("fd00::1", "10.0.0.0/8"), ("10.0.0.1", "x")]
)
def test_what_is_no_route_is_refused_before_the_kernel_is_asked(gateway: str, destination: str | None) -> None:
    with pytest.raises(OSError, match=r"no route to|two versions of IP") as refusal:
        add_route(1, gateway, destination)
    assert refusal.value.errno == errno.EINVAL


# -- decoding ----------------------------------------------------------------------------------------------


def newlink(attributes: bytes, *, kind: int = 16, family: int = 0, index: int = 7) -> bytes:
    body = struct.pack("=BxHiII", family, 1, index, 0x1003, 0) + attributes
    return HEADER.pack(HEADER.size + len(body), kind, 0, 0, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


WHOLE = newlink(attribute(3, b"eth7\0") + attribute(4, struct.pack("=I", 1280)) + attribute(1, bytes(range(6))))
DECODED = LinkChange(7, "eth7", 0x1003, 1280, "00:01:02:03:04:05", False)


def test_several_messages_in_one_read_are_all_decoded() -> None:
    gone = newlink(attribute(3, b"eth8\0"), kind=17, index=8)
    other = HEADER.pack(HEADER.size + 3, 24, 0, 0, 0) + b"abc" + b"\0"  # a route, padded
    decoded = list(link_changes(WHOLE + other + gone + WHOLE))
    assert decoded == [DECODED, LinkChange(8, "eth8", 0x1003, 0, "", True), DECODED]


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_message_that_is_cut_off_is_passed_over(length: int) -> None:
    assert list(link_changes(WHOLE[:length])) == []


@pytest.mark.parametrize("length", [0, 1, 3, 15, 0xFFFFFFFF])
def test_a_length_that_cannot_be_ends_the_decoding(length: int) -> None:
    assert list(link_changes(struct.pack("=I", length) + WHOLE[4:])) == []


@given(st.binary(max_size=400))
def test_noise_is_decoded_to_something_or_nothing(noise: bytes) -> None:
    for change in [*link_changes(noise), *link_changes(newlink(noise)), *link_changes(WHOLE + noise)]:
        assert isinstance(change.name, str)
        assert isinstance(change.mtu, int)


@given(st.data())
def test_a_message_with_wrong_bytes_is_decoded_to_something_or_nothing(data: st.DataObject) -> None:
    message = bytearray(WHOLE * 2)
    for _ in range(data.draw(st.integers(1, 8))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    assert len(list(link_changes(bytes(message)))) <= len(message) // HEADER.size
