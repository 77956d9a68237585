"""The policy API: hooks, decisions, helpers, refusals and failures, by policies that live outside the project."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ipn
from ipn.rendezvous import open_network
from ipnd.policies import registry
from ipnd.policies.base import Policy
from tests.running import RunningDaemon
from tests.waiting import eventually

WORDS, CACHED, PICKY = 50, 51, 52


@pytest.fixture
def stranger(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    """A daemon that finds the policies of another package, by its entry points."""
    site = short_directory / "site"
    info = site / "stranger-1.dist-info"
    info.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("stranger.py"), site / "stranger.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    rows = "words = stranger:Words\ncached = stranger:Cached\npicky = stranger:Picky\nbroken = stranger:Nobody\n"
    (info / "entry_points.txt").write_text("[ipn.policies]\n" + rows)
    daemon = RunningDaemon(short_directory)
    daemon.env["PYTHONPATH"] = str(site)
    monkeypatch.setenv("IPND_SOCKET", daemon.control)
    monkeypatch.setenv("IPN_AUTOSTART", "0")
    daemon.start()
    yield daemon
    daemon.end()


def members(path: str, count: int) -> list[ipn.Socket]:
    return [ipn.connect(path, timeout=5) for _ in range(count)]


@pytest.fixture
def words(stranger: RunningDaemon) -> Iterator[list[ipn.Socket]]:
    """Three members of a network with the policy Words, past its welcome."""
    path = stranger.path("net")
    with ipn.bind(path, WORDS):
        nodes = members(path, 3)
        assert [n.recv() for n in nodes] == [b"welcome 0", b"welcome 1", b"welcome 2"]
        yield nodes
        for node in nodes:
            node.close()


def verb(path: str, name: str) -> Any:
    channel = open_network(path)
    try:
        return channel.request("policy", verb=name)[0]
    finally:
        channel.close()


# -- the registry ----------------------------------------------------------------------------------------------------


def test_policies_of_other_packages_are_there_by_their_entry_points(stranger: RunningDaemon) -> None:
    command = [sys.executable, "-m", "ipnctl", "policy", "list"]
    listed = subprocess.run(command, env=stranger.env, capture_output=True, text=True, check=True).stdout
    assert all(name in listed for name in ("broadcast", "words", "cached", "picky"))
    stranger.wait_for_log("the policy broken")


class Own(Policy):
    number, name = 60, "own"

    def handlemsg(self, source: int, frame: bytes, depth: int) -> Any:
        return ()


def test_register_and_deregister_refuse_as_specified() -> None:
    class Idle(Policy):
        number, name = 61, "idle"

    cases = [
        (errno.EINVAL, lambda: registry.register(1, Own)),
        (errno.EINVAL, lambda: registry.register(256, Own)),
        (errno.EINVAL, lambda: registry.register(61, Idle)),
        (errno.EINVAL, lambda: registry.register(61, Own)),
        (errno.ENOENT, lambda: registry.deregister(60)),
    ]
    for number, attempt in cases:
        with pytest.raises(OSError) as refusal:  # noqa: PT011 - the errno is checked right below
            attempt()
        assert refusal.value.errno == number
    registry.register(60, Own)
    try:
        with pytest.raises(FileExistsError):
            registry.register(60, Own)
        registry.take(Own)
        with pytest.raises(OSError, match="networks have") as busy:
            registry.deregister(60)
        assert busy.value.errno == errno.EADDRINUSE
        registry.release(Own)
    finally:
        registry.deregister(60)


# -- decisions -------------------------------------------------------------------------------------------------------


def test_port_numbers_get_the_message_as_it_is(words: list[ipn.Socket]) -> None:
    words[0].send(b"plain")
    assert [n.recv() for n in words[1:]] == [b"plain"] * 2


def test_different_messages_go_to_different_receivers(words: list[ipn.Socket]) -> None:
    words[1].send(b"different")
    assert [words[0].recv(), words[2].recv()] == [b"0:different", b"2:different"]


def test_a_message_may_be_changed_within_the_mtu(words: list[ipn.Socket]) -> None:
    words[0].send(b"upper")
    assert words[1].recv() == b"UPPER"
    words[0].send(b"Long")
    words[0].send(b"-")
    words[0].send(b"next")
    assert words[1].recv() == b"next"
    assert words[0].show()["drops"] == {"longer than the mtu": 1, "unwanted": 1}


def test_order_is_kept_among_changed_and_unchanged_messages(words: list[ipn.Socket]) -> None:
    sent = [(b"u%d" if n % 3 else b"x%d") % n for n in range(200)]
    words[0].send_many(sent)
    heard: list[bytes] = []
    while len(heard) < len(sent):
        heard += words[1].recv_many()
    assert heard == [m.upper() if m[:1] == b"u" else m for m in sent]


def test_welcome_and_goodbye_reach_who_they_are_for(words: list[ipn.Socket]) -> None:
    words.pop(0).close()
    assert [n.recv() for n in words] == [b"goodbye 0"] * 2


def test_a_policy_can_answer_the_sender(words: list[ipn.Socket]) -> None:
    words[2].send(b"e?")
    assert words[2].recv() == b"echo e?"


def test_injected_messages_end_after_a_number_of_hops(words: list[ipn.Socket]) -> None:
    words[0].send(b"inject")
    drops = {**{f"depth {n}": 1 for n in range(9)}, "hop limit": 1}
    eventually(lambda: words[0].show()["drops"] == drops)


def test_out_of_band_messages_of_a_policy_reach_who_handles_such(stranger: RunningDaemon) -> None:
    path = stranger.path("net")
    with ipn.bind(path, WORDS), ipn.connect(path) as sender, ipn.socket() as listener:
        listener.setsockopt(0, ipn.IPN_SO_HANDLE_OOB, 1)
        listener.connect(path)
        listener.settimeout(5)
        sender.send(b"oob please")
        heard = {listener.recvmsg()[:3:2] for _ in range(2)}
        assert heard == {(b"policy's own", int(socket.MSG_OOB)), (b"welcome 1", 0)}


# -- decisions that are remembered -----------------------------------------------------------------------------------


def test_a_decision_is_asked_for_once_until_something_changes(stranger: RunningDaemon) -> None:
    path = stranger.path("net")
    with ipn.bind(path, CACHED) as net:
        a, b = members(path, 2)

        def asked_for(*messages: bytes) -> int:
            before = net.show()["policy_state"]["asked"]
            for message in messages:
                a.send(message)
                assert b.recv() == message
            return int(net.show()["policy_state"]["asked"]) - before

        assert asked_for(b"a1", b"a2", b"b1", b"a3", b"b2") == 2
        assert asked_for(b"a", b"b") == 0
        assert asked_for(b"t1", b"t2") == 1
        verb(path, "learn")
        assert asked_for(b"t3", b"a4", b"t4") == 1
        verb(path, "forget")
        assert asked_for(b"a", b"b", b"t") == 3
        assert asked_for(b"me!") == 2
        assert asked_for(b"me!", b"me!!") == 0
        a.send(b"me?")
        eventually(lambda: net.show()["drops"] == {"not me": 1})
        with ipn.connect(path):
            assert asked_for(b"a") == 1, "a new member may change everything"
        a.close()
        b.close()


def test_verbs_that_change_need_x_and_unknown_ones_are_refused(stranger: RunningDaemon) -> None:
    path = stranger.path("net")
    with ipn.bind(path, CACHED):
        with pytest.raises(OSError, match="forget, learn") as refusal:
            verb(path, "fly")
        assert refusal.value.errno == errno.EOPNOTSUPP


# -- refusals --------------------------------------------------------------------------------------------------------


def test_a_policy_may_refuse_a_network_which_leaves_nothing_behind(stranger: RunningDaemon) -> None:
    path = stranger.path("net")
    before = stranger.fds()
    with pytest.raises(OSError, match="not today") as refusal:
        ipn.bind(path, PICKY)
    assert refusal.value.errno == errno.EBUSY
    assert not Path(path).exists()
    eventually(lambda: stranger.fds() <= before)


def test_a_policy_may_refuse_another_size_and_nothing_changes(stranger: RunningDaemon) -> None:
    path = stranger.path("net")
    with ipn.bind(path, WORDS) as net:
        with pytest.raises(OSError, match="unlucky") as refusal:
            net.setsockopt(0, ipn.IPN_SO_CHANGE_NUMNODES, 7)
        assert refusal.value.errno == errno.EDOM
        assert net.getsockopt(0, ipn.IPN_SO_NUMNODES) == 32


def test_options_and_ioctls_of_the_policys_level_reach_it(words: list[ipn.Socket]) -> None:
    words[1].setsockopt(WORDS, 3, b"value")
    assert words[0].getsockopt(WORDS, 3, 10) == b"value"
    words[1].setsockopt(WORDS, 4, 7)
    assert words[0].getsockopt(WORDS, 4) == 7
    assert words[2].ioctl(0x1234, b"abc") == b"cba"
    assert words[2].ioctl(0x1234, 40) == 42


def test_the_policy_of_a_live_network_changes_where_the_new_one_agrees(words: list[ipn.Socket]) -> None:
    path = str(words[0].path)
    channel = open_network(path)
    channel.request("set", policy=ipn.IPN_BROADCAST)
    words[0].send(b"-no more dropped")
    assert words[1].recv() == b"-no more dropped"
    with pytest.raises(OSError, match="not today"):
        channel.request("set", policy=PICKY)
    assert words[0].show()["policy"] == "broadcast"
    channel.request("set", policy=WORDS)
    channel.close()
    assert words[1].recv() == b"welcome 1"


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bug", [b"!", b"?"], ids=["raises", "answers nonsense"])
def test_a_policy_that_fails_ends_its_network_and_no_other(stranger: RunningDaemon, bug: bytes) -> None:
    path = stranger.path("net")
    with ipn.bind(stranger.path("other"), WORDS), ipn.bind(path, WORDS):
        (other,) = members(stranger.path("other"), 1)
        a, b = members(path, 2)
        assert (b.recv(), a.recv()) == (b"welcome 1", b"welcome 0")
        a.send(bug)
        assert b.recv() == b""
        stranger.wait_for_log("the policy words of")
        other.send(b"echo")
        assert [other.recv(), other.recv()] == [b"welcome 0", b"echo echo"]
        for node in (a, b, other):
            node.close()
