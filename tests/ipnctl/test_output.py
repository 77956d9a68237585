"""Where the output goes to when it cannot go anywhere: quietly, or with one line; never a traceback."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import termios

import pytest

import ipn
from tests.ipnctl.command import IPNCTL, SECONDS, Ipnctl, wait_for_readers
from tests.peers import requires
from tests.waiting import eventually

BROKEN_PIPE = {0, 141}


def unread(ipnctl: Ipnctl, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command whose stdout is a pipe; return it and the pipe's other end."""
    read_end, write_end = os.pipe()
    try:
        command = [*IPNCTL, *arguments]
        started = subprocess.Popen(command, stdout=write_end, stderr=subprocess.PIPE, env=ipnctl.daemon.env)
    finally:
        os.close(write_end)
    return started, read_end


def ended_quietly(process: subprocess.Popen[bytes]) -> bool:
    _, err = process.communicate(timeout=SECONDS)
    return process.returncode in BROKEN_PIPE and err == b""


@pytest.mark.parametrize(
    "arguments", [("net", "list"), ("net", "list", "--json"), ("policy", "list"), ("--help",), ("completion", "fish")]
)
def test_a_listing_into_a_closed_pipe_ends_quietly(ipnctl: Ipnctl, arguments: tuple[str, ...]) -> None:
    process, read_end = unread(ipnctl, *arguments)
    os.close(read_end)
    assert ended_quietly(process)


@pytest.mark.parametrize("options", [(), ("--lines",), ("--hex",), ("--json",)])
def test_recv_into_a_closed_pipe_ends_quietly(ipnctl: Ipnctl, network: str, options: tuple[str, ...]) -> None:
    process, read_end = unread(ipnctl, "recv", network, *options)
    wait_for_readers(network, 1)
    os.close(read_end)
    with ipn.connect(network, receive=False) as sender:
        sender.send(b"nobody reads this")
        assert ended_quietly(process)


def test_monitor_into_a_closed_pipe_ends_quietly(ipnctl: Ipnctl, network: str) -> None:
    process, read_end = unread(ipnctl, "monitor", network)
    assert os.read(read_end, 1000)
    os.close(read_end)
    with ipn.connect(network):
        assert ended_quietly(process)


@requires("bash", "head")
def test_head_takes_what_it_wants(ipnctl: Ipnctl, network: str) -> None:
    process, read_end = unread(ipnctl, "recv", network, "--lines")
    head = subprocess.Popen(["head", "-n", "1"], stdin=read_end, stdout=subprocess.PIPE)
    os.close(read_end)
    wait_for_readers(network, 1)
    with ipn.connect(network, receive=False) as sender:

        def sent() -> bool:
            sender.send(b"line")
            return process.poll() is not None

        eventually(sent, SECONDS)
    assert head.communicate(timeout=SECONDS)[0] == b"line\n"
    assert ended_quietly(process)


@requires("bash")
@pytest.mark.parametrize("arguments", [("net", "list"), ("net", "list", "--json"), ("policy", "list")])
def test_a_full_disk_is_one_line(ipnctl: Ipnctl, arguments: tuple[str, ...]) -> None:
    ran = ipnctl.run(*arguments, prefix=("bash", "-c", '"$@" > /dev/full', "bash"))
    ran.failed("cannot write to standard output", "No space left")


@requires("bash")
def test_a_closed_standard_output_is_one_line(ipnctl: Ipnctl) -> None:
    ipnctl.run("net", "list", prefix=("bash", "-c", '"$@" >&-', "bash")).failed("standard output", "closed")


def test_a_terminal_gets_a_table_that_fits_it(ipnctl: Ipnctl, network: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    env = {name: value for name, value in ipnctl.daemon.env.items() if name not in ("COLUMNS", "NO_COLOR", "TERM")}
    command = [*IPNCTL, "net", "list"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, env={**env, "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:
        while part := terminal.read(4096):  # ends with EIO when the last copy of the other end is closed
            shown += part
    assert process.wait(SECONDS) == 0
    assert b"\x1b[1m" in shown, "headings are bold"
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", shown).decode().splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 60
