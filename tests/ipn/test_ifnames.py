"""Names, MAC addresses and MTUs that interfaces may have, as tables."""

from __future__ import annotations

import errno

import pytest

from ipn.ifnames import check_name, format_mac, parse_mac, tap_mtu


@pytest.mark.parametrize("name", ["", "ipn%d", "a", "eth0.100", "n" * 15, "ü", "-", "ipn%dx"])
def test_names_that_a_tap_may_have(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name, words",
    [
        ("a/b", "a path"),
        ("../../etc", "a path"),
        (".", "a path"),
        ("..", "a path"),
        ("eth0:1", "an alias"),
        ("a b", "a space"),
        ("a\tb", "a space or a control"),
        ("a\nb", "a space or a control"),
        ("a\0b", "a control character"),
        ("a\x7f", "a control character"),
        ("\udc80", "a control character"),
        ("\u2028", "a space"),
        ("n" * 16, "longer than 15 bytes"),
        ("ü" * 8, "longer than 15 bytes"),
        ("n" * 1000, "longer than 15 bytes"),
        ("a%d%d", "one %d"),
        ("100%", "one %d"),
        ("a%s", "one %d"),
        ("%%d", "one %d"),
    ],
)
def test_names_that_no_interface_may_have(name: str, words: str) -> None:
    for kind in ("tap", "grab"):
        with pytest.raises(OSError, match=words) as refusal:
            check_name(name, kind)
        assert refusal.value.errno == errno.EINVAL
        assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", ["", "ipn%d"])
def test_what_is_grabbed_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(OSError, match="name") as refusal:
        check_name(name, "grab")
    assert refusal.value.errno == errno.EINVAL


@pytest.mark.parametrize("text", ["02:00:00:0a:0B:ff", "02-00-00-0A-0b-FF", "2:0:0:a:b:ff"])
def test_mac_addresses_are_read_and_written(text: str) -> None:
    assert parse_mac(text) == b"\x02\0\0\x0a\x0b\xff"
    assert format_mac(parse_mac(text)) == "02:00:00:0a:0b:ff"


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "no MAC address"),
        ("02:00:00:00:00", "no MAC address"),
        ("02:00:00:00:00:01:02", "no MAC address"),
        ("02:00:00:00:00:1g", "no MAC address"),
        ("02:00:00:00:00:+1", "no MAC address"),
        ("02:00:00:00:00:", "no MAC address"),
        ("020000000001", "no MAC address"),
        ("02:00:00:00:00:001", "no MAC address"),
        ("02:00:00:00:00:٣", "no MAC address"),
        ("01:00:5e:00:00:01", "of a group"),
        ("ff:ff:ff:ff:ff:ff", "of a group"),
        ("00:00:00:00:00:00", "all zero"),
    ],
)
def test_what_is_no_mac_address_of_an_interface(text: str, words: str) -> None:
    with pytest.raises(OSError, match=words) as refusal:
        parse_mac(text)
    assert refusal.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "frame, mtu", [(1514, 1500), (9014, 9000), (82, 68), (60, 68), (65535, 65521), (1 << 24, 65521)]
)
def test_the_mtu_of_a_tap_follows_the_frames_of_its_network(frame: int, mtu: int) -> None:
    assert tap_mtu(frame) == mtu
