"""Acting as another thread: with no more rights than it has, and afterwards as before."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from ipnctl.programs.identity import acting_as, in_network_of
from ipnctl.programs.seccomp import status_of
from tests.netns import other_namespace
from tests.peers import NOBODY, requires, requires_root

WAITING = ("sh", "-c", "echo ready; read line")
SHOWN = ("Uid", "Gid", "Groups", "CapEff", "Umask")


@contextlib.contextmanager
def running(*prefix: str) -> Iterator[int]:
    """Give the process of something that waits, with ``prefix`` before it."""
    command = [*prefix, *WAITING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, umask=0o037) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid


def here() -> dict[str, str]:
    """Return what this thread is."""
    return {name: value for name, value in status_of(threading.get_native_id()).items() if name in SHOWN}


def effective(pid: int) -> tuple[str, ...]:
    """Return the effective user and group, the groups, the capabilities and the umask of a thread."""
    status = status_of(pid)
    return status["Uid"].split()[1], status["Gid"].split()[1], status["Groups"], status["CapEff"], status["Umask"]


def test_the_umask_is_the_others_and_is_given_back() -> None:
    before = here()
    with running() as pid:
        with acting_as(pid):
            assert here()["Umask"] == "0037"
        assert here() == before


@requires_root
@requires("setpriv")
@pytest.mark.parametrize(
    "options",
    [
        ("--reuid=65534", "--regid=65534", "--groups=5,7"),
        ("--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+net_admin", "--ambient-caps=+net_admin"),
        ("--bounding-set=-net_admin,-net_raw",),
        ("--bounding-set=-all",),
        ("--regid=12345", "--keep-groups"),
        ("--groups=12345",),
    ],
    ids=lambda options: options[0] + options[-1],
)
def test_user_groups_and_capabilities_are_the_others_and_are_given_back(options: tuple[str, ...]) -> None:
    before = here()
    with running("setpriv", *options) as pid:
        with acting_as(pid):
            assert effective(threading.get_native_id()) == effective(pid)
        assert here() == before
        with pytest.raises(ValueError, match="in between"), acting_as(pid):
            raise ValueError("in between")
        assert here() == before


@requires_root
@requires("unshare")
def test_what_somebody_may_in_a_user_namespace_of_its_own_is_nothing_here() -> None:
    with running("unshare", "--user", "--map-root-user") as pid:
        assert int(status_of(pid)["CapEff"], 16) != 0
        with acting_as(pid):
            assert int(here()["CapEff"], 16) == 0


@requires_root
@requires("unshare")
def test_the_network_namespace_is_the_others_and_is_given_back() -> None:
    mine = os.readlink("/proc/thread-self/ns/net")
    with other_namespace() as pid:
        theirs = os.readlink(f"/proc/{pid}/ns/net")
        with in_network_of(int(pid)):
            assert os.readlink("/proc/thread-self/ns/net") == theirs
        assert os.readlink("/proc/thread-self/ns/net") == mine
        with running("setpriv", f"--reuid={NOBODY}", "--clear-groups") as nobody, acting_as(nobody):
            with pytest.raises(PermissionError), in_network_of(int(pid)):
                pytest.fail("it may not be there")
        assert os.readlink("/proc/thread-self/ns/net") == mine
