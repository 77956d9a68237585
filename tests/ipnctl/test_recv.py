"""``ipnctl recv``, in a process of its own, hearing members here and ``ipnctl send``."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import AS_NOBODY, SECONDS, Ipnctl, wait_for_readers
from tests.peers import requires, requires_root
from tests.waiting import eventually


def send(path: str, *messages: bytes) -> None:
    with ipn.connect(path, receive=False) as member:
        member.send_many(messages)


def test_a_file_comes_out_as_it_went_in(ipnctl: Ipnctl, network: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    source = tmp_path / "source"
    source.write_bytes(data)
    piped = ipnctl.receiver(network)
    filed = ipnctl.receiver(network, "-o", str(tmp_path / "copy"))
    ipnctl.run("send", network, str(source), "--wait-readers", "2").ok()
    piped.wait_for(lambda out: len(out) >= len(data))
    eventually(lambda: (tmp_path / "copy").stat().st_size >= len(data), SECONDS)
    ipnctl.run("net", "delete", network).ok()
    assert hashlib.sha256(piped.end().ok().out).digest() == hashlib.sha256(data).digest()
    assert filed.end().ok().out == b""
    assert (tmp_path / "copy").read_bytes() == data


def test_messages_of_a_megabyte_come_whole(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("big")
    ipnctl.run("net", "create", path, "--lossless", "--mtu", "1000000").ok()
    data = os.urandom(2_500_000)
    command = ipnctl.receiver(path, "--count", "3", "--json")
    ipnctl.run("send", path, stdin=data).ok()
    assert [message["length"] for message in command.end().ok().objects] == [1_000_000, 1_000_000, 500_000]


def test_it_ends_with_the_network(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.receiver(network)
    send(network, b"last words")
    command.wait_for(lambda out: out == b"last words")
    ipnctl.run("net", "delete", network).ok()
    command.end().ok()


def test_lines_puts_a_newline_after_each_message(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.receiver(network, "--lines", "--count", "2")
    send(network, b"one", b"two")
    assert command.end().ok().out == b"one\ntwo\n"


def test_lines_through_send_and_recv_are_the_same_lines(ipnctl: Ipnctl, network: str) -> None:
    text = b"".join(b"line %d\n" % number for number in range(5000))
    command = ipnctl.receiver(network, "--lines", "--count", "5000")
    ipnctl.run("send", network, "--lines", stdin=text).ok()
    assert command.end().ok().out == text


def test_hex_shows_each_message_behind_a_header(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.receiver(network, "--hex", "--count", "2")
    send(network, b"hello", b"\0" * 17)
    first, hello, second, *zeros = command.end().ok().text.splitlines()
    assert first.startswith("# 1  5 bytes  20")
    assert hello == "00000000  68 65 6c 6c 6f                                    |hello|"
    assert second.startswith("# 2  17 bytes  20")
    assert [row[:10] for row in zeros] == ["00000000  ", "00000010  "]


def test_json_gives_an_object_for_each_message(ipnctl: Ipnctl, network: str) -> None:
    began = time.time()
    command = ipnctl.receiver(network, "--json", "--count", "2")
    send(network, b"text", b"\xff")
    text, binary = command.end().ok().objects
    assert (text["number"], text["length"], text["text"]) == (1, 4, "text")
    assert (binary["number"], binary["length"], binary["base64"]) == (2, 1, "/w==")
    assert began <= text["time"] <= time.time()


def test_count_takes_so_many_and_no_more(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.receiver(network, "--count", "3")
    send(network, b"1", b"2", b"3", b"4", b"5")
    assert command.end().ok().out == b"123"


def test_count_not_reached_is_a_failure_that_says_how_many_came(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.receiver(network, "--count", "3")
    send(network, b"1")
    command.wait_for(lambda out: out == b"1")
    ipnctl.run("net", "delete", network).ok()
    ended = command.end()
    assert (ended.status, ended.out) == (1, b"1")
    assert ended.err.startswith(f"ipnctl: 1 of 3 messages came from {network}: the network ended")


def test_timeout_ends_it_when_nothing_comes(ipnctl: Ipnctl, network: str) -> None:
    assert ipnctl.run("recv", network, "--timeout", "0.2").ok().out == b""
    ipnctl.run("recv", network, "--timeout", "0.2", "--count", "1").failed("0 of 1", "nothing came for 0.2 s")


def test_follow_waits_for_the_network_and_for_the_next_one(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("later")
    command = ipnctl.start("recv", path, "--follow", "--lines")
    for number in (b"first", b"second"):
        command.wait_for_word("waiting: there is no network")
        command.err.write_text("")
        ipnctl.run("net", "create", path).ok()
        wait_for_readers(path, 1)
        send(path, number)
        command.wait_for(lambda out, number=number: number in out)  # type: ignore[misc]
        ipnctl.run("net", "delete", path).ok()
    assert command.interrupt().out == b"first\nsecond\n"


def test_follow_goes_on_after_the_daemon_was_killed(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.receiver(network, "--follow")
    send(network, b"before ")
    command.wait_for(lambda out: out == b"before ")
    ipnctl.daemon.kill()
    command.wait_for_word("waiting: ")
    ipnctl.daemon.start()
    wait_for_readers(network, 1)
    send(network, b"after")
    command.wait_for(lambda out: out == b"before after")


def test_follow_with_timeout_ends_when_no_network_appears(ipnctl: Ipnctl) -> None:
    ran = ipnctl.run("recv", ipnctl.path("never"), "--follow", "--timeout", "0.3")
    assert (ran.status, ran.out) == (0, b"")
    assert ran.err.startswith("ipnctl: waiting: ")


def test_the_receiver_counts_as_a_reader_only(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.receiver(network)
    shown = admin.show_network(network)
    assert (shown["writers"], shown["ports"][0]["rights"]) == (0, "r")


def test_two_forms_exclude_each_other(ipnctl: Ipnctl, network: str) -> None:
    ran = ipnctl.run("recv", network, "--hex", "--json")
    assert ran.status == 2
    assert "exclude each other" in ran.err


def test_a_missing_network_is_named(ipnctl: Ipnctl) -> None:
    ipnctl.run("recv", ipnctl.path("missing")).failed(ipnctl.path("missing"), "net create")


def test_a_file_that_cannot_be_written_is_named(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.run("recv", network, "-o", ipnctl.path("no/file")).failed("cannot write to", ipnctl.path("no/file"))


def test_a_full_disk_is_told(ipnctl: Ipnctl, network: str) -> None:
    command = ipnctl.receiver(network, "-o", "/dev/full")
    send(network, b"much")
    command.end().failed("cannot write to /dev/full", "No space left")


@requires_root
@requires("setpriv")
def test_a_user_with_r_alone_receives(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--lossless", "--mode", "0774").ok()
    command = ipnctl.start("send", path, "--wait-readers", "1")
    command.feed(b"hello")
    assert ipnctl.run("recv", path, "--count", "1", prefix=AS_NOBODY).ok().out == b"hello"
    command.end().ok()
    os.chmod(path, 0o773)
    ipnctl.run("recv", path, prefix=AS_NOBODY).failed(path, "chmod")


@pytest.mark.parametrize("options", [(), ("--follow",)])
def test_ctrl_c_ends_it_quietly(ipnctl: Ipnctl, network: str, options: tuple[str, ...]) -> None:
    ended = ipnctl.receiver(network, *options).interrupt()
    assert (ended.status, ended.out, ended.err) == (130, b"", "")
