"""The modes of a gateway's files: everybody who has any right on the network gets through, and nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnd.access import OTHER, USER, AclEntry, FileAccess
from ipnd.gateways.modes import directory_mode, socket_mode

GID = 4711


@pytest.mark.parametrize(
    "network, sock, directory",
    [
        (0o777, 0o666, 0o1777),
        (0o700, 0o600, 0o700),
        (0o770, 0o660, 0o1770),
        (0o750, 0o660, 0o1770),
        (0o720, 0o660, 0o1770),
        (0o704, 0o606, 0o1707),
        (0o702, 0o606, 0o1707),
        (0o711, 0o600, 0o700),
        (0o000, 0o600, 0o700),
    ],
)
def test_whoever_may_receive_or_send_may_connect_and_make_a_socket_in_the_directory(
    network: int, sock: int, directory: int
) -> None:
    file = FileAccess(network, 1000, GID)
    assert socket_mode(file) == (sock, GID)
    assert directory_mode(file) == (directory, GID)


def test_a_network_with_an_acl_lets_everybody_knock() -> None:
    acl = (AclEntry(USER, 6, 1001), AclEntry(OTHER, 0, 0))
    file = FileAccess(0o700, 1000, GID, acl)
    assert socket_mode(file) == (0o666, GID)
    assert directory_mode(file) == (0o1777, GID)


@given(st.integers(0, 0o777))
def test_a_directory_that_several_write_to_is_sticky_and_the_owner_always_gets_in(mode: int) -> None:
    directory, _ = directory_mode(FileAccess(mode, 1000, GID))
    assert directory & 0o700 == 0o700
    assert bool(directory & 0o077) == bool(directory & 0o1000)
