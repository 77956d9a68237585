"""TAPs and grabbed interfaces of programs: in both encodings of the requests, with the caller's right or the helper."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipn
from ipn import admin
from tests.helping import RunningHelper
from tests.ipnctl.command import Ipnctl, Started
from tests.ipnctl.programs.compiling import Compiler
from tests.netns import interfaces, ip, other_namespace, own_namespace
from tests.peers import NOBODY, as_user, requires
from tests.waiting import eventually

POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Put before a command of root: it has no capability."""
ENCODINGS = pytest.mark.parametrize("flags", [(), ("-DIPN_LATER",)], ids=["as proposed", "later"])


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    """Be in a network namespace where interfaces may come and go."""
    with own_namespace():
        yield


def started(programs: Ipnctl, *command: str, prefix: tuple[str, ...] = ()) -> tuple[Started, list[list[str]]]:
    """Start a program and return it with what it says of its calls."""
    program = programs.start("run", "--", *command, prefix=prefix)
    program.wait_for(lambda out: b"connect" in out)
    return program, [line.split() for line in program.out.read_text().splitlines()]


REFUSED = ["-1", str(errno.EPERM)]


@ENCODINGS
def test_a_tap_is_made_and_goes_with_the_socket(programs: Ipnctl, compiled: Compiler, flags: tuple[str, ...]) -> None:
    path = programs.path(f"tap{len(flags)}")
    program, said = started(programs, compiled("interfaces", *flags), path, "tap", "vm0")
    assert said[1:3] == [["interface", "0", "0"], ["name", "vm0"]]
    assert said[3] == ["send", "-1", str(errno.ENOTCONN)], "its messages go through the interface"
    assert said[4] == ["connect", "-1", str(errno.EISCONN)]
    assert "vm0" in interfaces()
    with ipn.connect(path, timeout=5) as member:
        ip("link", "set", "vm0", "up")
        ip("address", "add", "10.9.0.1/24", "dev", "vm0")
        member.send(arp())
        assert eventually(lambda: member.recv()[20:22] == b"\0\2"), "the host answers"
    program.end().ok()
    eventually(lambda: "vm0" not in interfaces())


def arp() -> bytes:
    """Return the question who has 10.9.0.1."""
    sender, nobody = bytes.fromhex("020000000002"), bytes(6)
    kind = bytes.fromhex("0001080006040001")
    return b"\xff" * 6 + sender + b"\x08\x06" + kind + sender + bytes([10, 9, 0, 2]) + nobody + bytes([10, 9, 0, 1])


@ENCODINGS
def test_an_interface_is_grabbed_and_let_go(programs: Ipnctl, compiled: Compiler, flags: tuple[str, ...]) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "v0", "up")
    path = programs.path(f"grab{len(flags)}")
    program, said = started(programs, compiled("interfaces", *flags), path, "grab", "v0")
    assert said[1:3] == [["interface", "0", "0"], ["name", "v0"]]
    (port,) = admin.show_network(path)["ports"]
    assert port["kind"] == "grab"
    program.end().ok()


@requires("setpriv")
@pytest.mark.parametrize("kind", ["tap", "grab"])
def test_without_the_capability_neither_is_had(programs: Ipnctl, compiled: Compiler, kind: str) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    name = "vm0" if kind == "tap" else "v0"
    command = (compiled("interfaces"), programs.path(f"powerless-{kind}"), kind, name)
    for before, prefix in (((), POWERLESS), (POWERLESS, ())):
        program, said = started(programs, *before, *command, prefix=prefix)
        assert said[1] == ["interface", *REFUSED], f"the capability of root came by {before or 'nothing'}"
        program.end().ok()
        eventually(lambda: not Path(command[1]).exists())
    assert "vm0" not in interfaces()


@requires("setpriv")
def test_who_has_given_up_root_does_not_get_roots_interfaces(programs: Ipnctl, compiled: Compiler) -> None:
    directory = Path(programs.path("nobodys"))
    directory.mkdir()
    directory.chmod(0o777)
    program, said = started(
        programs, *as_user(NOBODY), compiled("interfaces"), str(directory / "net"), "tap", "vm0"
    )
    assert said[:2] == [["bind", "0", "0"], ["interface", *REFUSED]]
    program.end().ok()


@requires("unshare")
def test_a_tap_is_made_in_the_network_namespace_of_who_asks(programs: Ipnctl, compiled: Compiler) -> None:
    with other_namespace() as pid:
        there = ("nsenter", f"--net=/proc/{pid}/ns/net")
        path = programs.path("elsewhere")
        program, said = started(programs, *there, compiled("interfaces"), path, "tap", "vm0")
        assert said[1] == ["interface", "0", "0"]
        assert "vm0" not in interfaces()
        program.end().ok()


@requires("setpriv")
def test_without_the_capability_the_helper_makes_a_tap(programs: Ipnctl, compiled: Compiler) -> None:
    directory = Path(programs.path("helper"))
    directory.mkdir()
    helper = RunningHelper(directory)
    helper.set_rules('[[tap]]\nusers = [0]\nnames = ["ipn*"]\nmac = true\nmtu = 9000\n')
    helper.start()
    try:
        programs.daemon.env["IPN_HELPER"] = helper.address
        path = programs.path("helped")
        program, said = started(programs, compiled("interfaces"), path, "tap", "ipn7", prefix=POWERLESS)
        assert said[1:3] == [["interface", "0", "0"], ["name", "ipn7"]]
        assert "ipn7" in interfaces()
        program.end().ok()
    finally:
        programs.daemon.env.pop("IPN_HELPER", None)
        helper.close()
