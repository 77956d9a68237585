"""``ipnctl send``, in a process of its own, heard by a member here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ipn
from ipn import admin
from ipn.socket import Socket
from tests.ipnctl.command import AS_NOBODY, Ipnctl, wait_for_readers
from tests.peers import requires, requires_root
from tests.waiting import eventually

MTU = 1514


@pytest.fixture
def listener(network: str) -> Iterator[Socket]:
    with ipn.connect(network, send=False, timeout=20) as member:
        yield member


def heard(listener: Socket, size: int) -> list[bytes]:
    """Return the messages that make up ``size`` bytes."""
    messages: list[bytes] = []
    while sum(map(len, messages)) < size:
        messages += listener.recv_many()
    return messages


def test_a_file_goes_in_messages_of_the_mtu(ipnctl: Ipnctl, network: str, listener: Socket, tmp_path: Path) -> None:
    data = bytes(range(256)) * 30
    (tmp_path / "file").write_bytes(data)
    ipnctl.run("send", network, str(tmp_path / "file")).ok()
    messages = heard(listener, len(data))
    assert b"".join(messages) == data
    assert [len(message) for message in messages] == [MTU] * 5 + [len(data) - 5 * MTU]


@pytest.mark.parametrize("dash", [(), ("-",)])
def test_standard_input_is_sent_without_a_file_or_for_a_dash(
    ipnctl: Ipnctl, network: str, listener: Socket, dash: tuple[str, ...]
) -> None:
    ipnctl.run("send", network, *dash, stdin=b"hello").ok()
    assert listener.recv() == b"hello"


def test_size_sets_the_length_of_messages(ipnctl: Ipnctl, network: str, listener: Socket) -> None:
    ipnctl.run("send", network, "--size", "4", stdin=b"aaaabbbbcc").ok()
    assert heard(listener, 10) == [b"aaaa", b"bbbb", b"cc"]


def test_size_beyond_the_mtu_is_refused_with_the_mtu(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.run("send", network, "--size", "1515", stdin=b"x").failed(str(MTU), "--size")


def test_lines_go_as_a_message_each(ipnctl: Ipnctl, network: str, listener: Socket) -> None:
    ipnctl.run("send", network, "--lines", stdin=b"one\ntwo words\nlast").ok()
    assert heard(listener, 16) == [b"one", b"two words", b"last"]


def test_empty_lines_are_skipped_and_counted(ipnctl: Ipnctl, network: str, listener: Socket) -> None:
    ran = ipnctl.run("send", network, "--lines", stdin=b"\none\n\n")
    assert (ran.status, ran.out) == (0, b"")
    assert ran.err.startswith("ipnctl: empty lines in standard input")
    assert ran.err.endswith(": 2\n")
    assert listener.recv() == b"one"


def test_a_line_longer_than_the_mtu_is_named_and_those_before_it_are_sent(
    ipnctl: Ipnctl, network: str, listener: Socket
) -> None:
    ran = ipnctl.run("send", network, "--lines", stdin=b"one\ntwo\n" + b"x" * (MTU + 1) + b"\nfour\n")
    ran.failed("line 3 of standard input", str(MTU), network, "--mtu")
    assert heard(listener, 6) == [b"one", b"two"]


def test_lines_are_sent_as_they_come(ipnctl: Ipnctl, network: str, listener: Socket) -> None:
    command = ipnctl.start("send", network, "--lines")
    for line in (b"first", b"second"):
        command.feed(line + b"\n")
        assert listener.recv() == line
    command.end().ok()


def test_what_has_come_is_sent_when_the_input_pauses(ipnctl: Ipnctl, network: str, listener: Socket) -> None:
    command = ipnctl.start("send", network)
    command.feed(b"hello")
    assert listener.recv() == b"hello"
    command.end().ok()


def test_with_size_a_pause_does_not_cut_a_message(ipnctl: Ipnctl, network: str, listener: Socket) -> None:
    command = ipnctl.start("send", network, "--size", "8")
    command.feed(b"1234")
    listener.settimeout(0.5)
    with pytest.raises(TimeoutError):
        listener.recv()
    listener.settimeout(20)
    command.feed(b"5678")
    assert listener.recv() == b"12345678"
    command.end().ok()


def test_empty_input_sends_nothing(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.run("send", network, stdin=b"").ok()
    ipnctl.run("send", network, "--lines", stdin=b"").ok()


def test_the_sender_counts_as_a_writer_only(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.start("send", network)
    eventually(lambda: admin.show_network(network)["writers"])
    shown = admin.show_network(network)
    assert (shown["readers"], shown["ports"][0]["rights"]) == (0, "w")
    command.end().ok()


def test_wait_readers_sends_nothing_before_they_are_there(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("lossy")
    ipnctl.run("net", "create", path).ok()
    command = ipnctl.start("send", path, "--wait-readers", "2")
    command.feed(b"for both")
    with ipn.connect(path, send=False, timeout=20) as first:
        eventually(lambda: admin.show_network(path)["writers"])
        with ipn.connect(path, send=False, timeout=20) as second:
            wait_for_readers(path, 2)
            assert first.recv() == second.recv() == b"for both"
            command.end().ok()


def test_wait_readers_gives_up_when_the_network_ends(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.start("send", network, "--wait-readers", "2")
    eventually(lambda: admin.show_network(network)["writers"])
    ipnctl.run("net", "delete", network).ok()
    command.end().failed("ended before it had 2 readers")


def test_a_network_that_ends_under_the_sender_is_a_failure(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.start("send", network, "--lines")
    eventually(lambda: admin.show_network(network)["writers"])
    ipnctl.run("net", "delete", network).ok()
    command.feed(b"too late\n")
    command.end().failed("is gone")


@pytest.mark.parametrize("wrong", ["missing", "directory"])
def test_a_file_that_cannot_be_read_is_named(ipnctl: Ipnctl, network: str, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "directory").mkdir()
    ipnctl.run("send", network, str(tmp_path / wrong)).failed(f"cannot read {tmp_path / wrong}")


def test_a_missing_network_is_named(ipnctl: Ipnctl) -> None:
    ipnctl.run("send", ipnctl.path("missing"), stdin=b"x").failed(ipnctl.path("missing"), "net create")


def test_lines_and_size_exclude_each_other(ipnctl: Ipnctl, network: str) -> None:
    ran = ipnctl.run("send", network, "--lines", "--size", "4")
    assert ran.status == 2
    assert "exclude each other" in ran.err


@requires("bash")
def test_a_closed_standard_input_is_told(ipnctl: Ipnctl, network: str) -> None:
    ran = ipnctl.run("send", network, prefix=("bash", "-c", '"$@" <&-', "bash"))
    ran.failed("standard input", "closed")


@requires_root
@requires("setpriv")
def test_a_user_without_w_is_refused(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--mode", "0774").ok()
    ipnctl.run("send", path, stdin=b"x", prefix=AS_NOBODY).failed(path, "chmod")


def test_ctrl_c_ends_it_quietly(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.start("send", network)
    eventually(lambda: admin.show_network(network)["writers"])
    ended = command.interrupt()
    assert (ended.status, ended.out, ended.err) == (130, b"", "")
