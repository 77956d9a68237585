"""Whose socket ours is connected to, whatever its address says."""

from __future__ import annotations

import os
import socket

from ipn.unixdiag import owner_of_peer
from tests.peers import NOBODY, requires_root


def test_the_owner_is_who_made_the_other_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        assert owner_of_peer(ours) == os.geteuid()


@requires_root
def test_it_is_that_socket_and_no_other_of_its_name() -> None:
    name = b"\0ipn-diag-%d" % os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs, socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM
    ) as ours:
        os.fchown(theirs.fileno(), NOBODY, NOBODY)
        theirs.bind(name)
        ours.connect(name)
        theirs.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
            another.bind(name)
            assert owner_of_peer(ours) in (NOBODY, None)
            ours.connect(name)
            assert owner_of_peer(ours) == os.geteuid()


def test_what_is_not_connected_has_no_such_owner() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        assert owner_of_peer(ours) is None
    assert owner_of_peer(ours) is None, "nor has one that is closed"
