"""How programs without privilege get interfaces, and what they are told when they do not."""

from __future__ import annotations

import ast
import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipn import helper as asking
from ipn.control import MAX_FDS
from ipn.helper import helper_address, helper_check, network_namespace, obtain_tap
from ipn.netdev import close_device
from tests.helping import RunningHelper, python
from tests.netns import interfaces, ip, own_namespace
from tests.peers import NOBODY, as_user, requires

POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Runs a command as root without any capability."""

RULES = f"""
[[tap]]
users = [0, {NOBODY}]
names = ["ipn*"]
mac = true
mtu = 9000
up = true
addresses = ["10.7.0.0/16"]
[[grab]]
users = [0]
interfaces = ["v0"]
"""


@pytest.fixture
def helper(short_directory: Path) -> Iterator[RunningHelper]:
    """Give a helper in a namespace of the test's own, where the test is, too."""
    with own_namespace():
        helper = RunningHelper(short_directory)
        helper.set_rules(RULES)
        helper.start()
        try:
            yield helper
        finally:
            helper.close()


def told(text: str) -> Any:
    """Return the value that a program printed."""
    return ast.literal_eval(text)


# -- obtaining ---------------------------------------------------------------------------------------------


def test_with_privilege_of_ones_own_no_helper_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPN_HELPER", "/nowhere/helper")
    with own_namespace():
        device = obtain_tap("vm0", mtu=1400)
        assert interfaces() == {"lo", "vm0"}
        close_device(device)


@requires("setpriv", "ip")
@pytest.mark.parametrize("user", [POWERLESS, as_user(NOBODY)], ids=["root without capabilities", "nobody"])
def test_without_privilege_the_helper_opens_the_tap(helper: RunningHelper, user: tuple[str, ...]) -> None:
    code = """
device = obtain_tap(mac="02:00:00:00:00:05", mtu=9000, up=True, addresses=["10.7.0.1/24"])
flags = [os.get_inheritable(fd) or os.get_blocking(fd) for fd in device.fds]
print([device.kind, device.name, device.index == socket.if_nametoindex(device.name), flags])
set_mac(device.fds[0], "02:00:00:00:00:06")
close_device(device)
"""
    assert told(python(user, code, helper=helper.address)) == ["tap", "ipn0", True, [False, False]]
    helper.wait_for_log("tap ipn%d mac 02:00:00:00:00:05 mtu 9000 up 10.7.0.1/24 as ipn0")


@requires("setpriv", "ip")
def test_without_privilege_the_helper_grabs(helper: RunningHelper) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "dev", "v0", "up")
    code = """
device = obtain_grab("v0")
print([device.kind, device.name, len(device.fds), attempt(obtain_grab, "v0")[1]])
"""
    assert told(python(POWERLESS, code, helper=helper.address)) == ["grab", "v0", 3, errno.EBUSY]


@requires("setpriv", "ip")
def test_a_refusal_of_the_helpers_keeps_its_words(helper: RunningHelper) -> None:
    ip("tuntap", "add", "ipn9", "mode", "tap", "user", "12345")
    code = """
print([attempt(obtain_tap, "vm0"), attempt(obtain_tap, "ipn9"), attempt(obtain_grab, "v1"), attempt(obtain_tap, "a/b")])
"""
    tap, existing, grab, bad = told(python(as_user(NOBODY), code, helper=helper.address))
    words = f"the helper's rules do not let user {NOBODY} make vm0: [[tap]] rule 1: its name is not among ipn*"
    assert tap == ("PermissionError", errno.EPERM, words)
    words = "there is an interface ipn9 already, and the helper touches none that exists"
    assert existing == ("FileExistsError", errno.EEXIST, words)
    words = f"the helper's rules do not let user {NOBODY} grab v1: no [[grab]] rule is for them"
    assert grab == ("PermissionError", errno.EPERM, words)
    assert bad[1] == errno.EINVAL


@requires("setpriv")
def test_with_neither_privilege_nor_helper_a_sentence_says_what_to_do(short_directory: Path) -> None:
    nowhere = str(short_directory / "helper")
    with own_namespace():
        code = "print([attempt(obtain_tap), attempt(obtain_tap, 'vm0'), attempt(obtain_grab, 'v0')])"
        answers = told(python(POWERLESS, code, helper=nowhere))
    rest = (
        f"which user 0 has not, and no helper answers at {nowhere}: there is no such socket; "
        "run it as root, or have ipn-helper started (ipnctl helper check tells more)"
    )
    assert answers == [
        ("PermissionError", errno.EPERM, f"making the TAP ipn%d needs CAP_NET_ADMIN, {rest}"),
        ("PermissionError", errno.EPERM, f"making the TAP vm0 needs CAP_NET_ADMIN, {rest}"),
        ("PermissionError", errno.EPERM, f"grabbing v0 needs CAP_NET_RAW, {rest}"),
    ]


# -- helpers that are none ---------------------------------------------------------------------------------


@contextmanager
def stand_in(directory: Path, serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Give the address of a socket where ``serve`` answers one connection, in a thread."""
    address = str(directory / "stand-in")

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            serve(connection)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield address
        thread.join(10)
        assert not thread.is_alive()


def answering(answer: bytes, fds: int = 0) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        null = os.open(os.devnull, os.O_RDWR)
        socket.send_fds(sock, [answer], [null] * fds)
        os.close(null)

    return serve


GOOD = {"kind": "tap", "name": "ipn0", "index": 3}


@requires("setpriv")
@pytest.mark.parametrize(
    "answer, fds, number, words",
    [
        (b"noise", 0, errno.EPERM, "answers with what is no answer"),
        (b"[]", 2, errno.EPERM, "answers with what is no answer"),
        (b"", 0, errno.EPERM, "went away without an answer"),
        (b"{}", 2, errno.EIO, ""),
        (json.dumps({"ok": {**GOOD, "kind": "grab"}}).encode(), 2, errno.EPROTO, "not an ipn-helper"),
        (json.dumps({"ok": {**GOOD, "name": 7}}).encode(), 2, errno.EPROTO, "not an ipn-helper"),
        (json.dumps({"ok": {**GOOD, "index": "3"}}).encode(), 2, errno.EPROTO, "not an ipn-helper"),
        (json.dumps({"ok": GOOD}).encode(), 0, errno.EPROTO, "not an ipn-helper"),
        (json.dumps({"ok": GOOD}).encode(), 3, errno.EPROTO, "not an ipn-helper"),
        (json.dumps({"ok": GOOD}).encode(), MAX_FDS + 1, errno.EMFILE, "no room for the helper's descriptors"),
        (json.dumps({"ok": [1]}).encode(), 1, errno.EIO, ""),
        (json.dumps({"error": 7}).encode(), 1, errno.EIO, ""),
    ],
)
def test_an_answer_that_is_none_is_an_error_and_leaves_no_descriptor(
    short_directory: Path, answer: bytes, fds: int, number: int, words: str
) -> None:
    code = """
before = set(os.listdir("/proc/self/fd"))
refusal = attempt(obtain_tap)
print([refusal[1:], set(os.listdir("/proc/self/fd")) == before])
"""
    with own_namespace(), stand_in(short_directory, answering(answer, fds)) as address:
        refusal, same = told(python(POWERLESS, code, helper=address))
    assert refusal[0] == number
    assert words in refusal[1]
    assert same


def test_a_good_answer_is_taken_whatever_its_descriptors_are(short_directory: Path) -> None:
    answer = json.dumps({"ok": GOOD}).encode()
    with own_namespace(), stand_in(short_directory, answering(answer, 2)) as address:
        code = "print(list(obtain_tap()[:3]))"
        assert told(python(POWERLESS, code, helper=address)) == ["tap", "ipn0", 3]


def test_a_helper_that_does_not_answer_is_not_waited_for_for_ever(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_TIMEOUT", 0.1)
    address = str(short_directory / "silent")
    monkeypatch.setenv("IPN_HELPER", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        (problem,) = helper_check()["problems"]
    assert problem.startswith(f"the helper at {address} does not answer (timed out)")


@requires("setpriv")
def test_a_helper_of_roots_is_trusted_whoever_owns_the_socket_file(short_directory: Path) -> None:
    answer = json.dumps({"ok": GOOD}).encode()
    with own_namespace(), stand_in(short_directory, answering(answer, 2)) as address:
        os.chown(address, 12345, 12345)
        Path(address).chmod(0o666)
        assert told(python(as_user(NOBODY), "print(list(obtain_tap()[:3]))", helper=address)) == ["tap", "ipn0", 3]


def test_a_helper_that_does_not_take_connections_is_waited_for_and_then_said_to_be_busy(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_TIMEOUT", 0.1)
    address = str(short_directory / "busy")
    monkeypatch.setenv("IPN_HELPER", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as only:
            only.connect(address)
            assert helper_check()["problems"][0] == f"the helper at {address} is too busy"


# -- the address -------------------------------------------------------------------------------------------


def test_the_helper_is_looked_for_in_run_or_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPN_HELPER", raising=False)
    assert helper_address() == "/run/ipn/helper"
    monkeypatch.setenv("IPN_HELPER", "")
    assert helper_address() == "/run/ipn/helper"
    monkeypatch.setenv("IPN_HELPER", "here/helper")
    assert helper_address() == os.path.abspath("here/helper")


def test_a_long_path_to_the_helper_is_no_hindrance(short_directory: Path) -> None:
    deep = short_directory / ("d" * 120)
    deep.mkdir()
    with own_namespace():
        helper = RunningHelper(deep)
        helper.set_rules(RULES)
        helper.start()
        try:
            code = "print(obtain_tap().name)"
            assert python(POWERLESS, code, helper=helper.address) == "ipn0\n"
        finally:
            helper.close()


# -- check -------------------------------------------------------------------------------------------------


def check(user: tuple[str, ...], address: str) -> dict[str, Any]:
    report: dict[str, Any] = told(python(user, "print(helper_check())", helper=address))
    return report


@requires("setpriv")
def test_check_tells_of_a_helper_that_is_well(helper: RunningHelper) -> None:
    report = check(POWERLESS, helper.address)
    assert report == {
        "address": helper.address,
        "running": True,
        "own": [],
        "allowed": [
            "make a TAP named ipn* (MTU up to 9000; any MAC address; may be set up; addresses inside 10.7.0.0/16)",
            "grab v0",
        ],
        "rules": [
            {
                "kind": "tap",
                "number": 1,
                "names": ["ipn*"],
                "mac": True,
                "mtu": 9000,
                "up": True,
                "addresses": ["10.7.0.0/16"],
            },
            {"kind": "grab", "number": 1, "interfaces": ["v0"]},
        ],
        "problems": [],
    }


@requires("setpriv")
def test_check_tells_whom_no_rule_is_for(helper: RunningHelper) -> None:
    report = check(as_user(12345), helper.address)
    assert (report["running"], report["allowed"], report["rules"]) == (True, [], [])
    assert report["problems"] == [f"no rule in {helper.rules_path} is for user 12345"]


@requires("setpriv")
def test_check_tells_what_is_wrong_with_the_rules(helper: RunningHelper) -> None:
    helper.rules_path.unlink()
    (problem,) = check(POWERLESS, helper.address)["problems"]
    assert problem == f"the helper has no rules: {helper.rules_path}: there is none"
    helper.set_rules("colour = 1")
    (problem,) = check(POWERLESS, helper.address)["problems"]
    assert f"{helper.rules_path} are invalid: unknown key 'colour'" in problem


@requires("setpriv")
def test_check_tells_that_the_helper_is_in_another_namespace(helper: RunningHelper) -> None:
    with own_namespace():
        (problem,) = check(POWERLESS, helper.address)["problems"]
    assert "in another network namespace" in problem


def test_check_tells_what_the_caller_may_do_without_the_helper(helper: RunningHelper) -> None:
    assert check((), helper.address)["own"] == ["tap", "grab"]


def test_check_tells_that_there_is_no_socket_and_how_to_start(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(short_directory / "helper")
    monkeypatch.setenv("IPN_HELPER", address)
    how = "start it with: systemctl enable --now ipn-helper.socket, or: sudo ipn-helper"
    report = helper_check()
    assert (report["running"], report["problems"][0]) == (
        False,
        f"no helper answers at {address}: there is no such socket; {how}",
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_behind:
        left_behind.bind(address)
    assert helper_check()["problems"][0] == f"no helper answers at {address}: nobody listens there any more; {how}"


def test_check_tells_that_the_socket_is_of_another_kind(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(short_directory / "helper")
    monkeypatch.setenv("IPN_HELPER", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(address)
        other.listen()
        assert helper_check()["problems"][0] == f"what is at {address} is not the socket of an ipn-helper"


@requires("setpriv")
def test_check_tells_that_the_socket_is_closed_to_the_caller(helper: RunningHelper) -> None:
    Path(helper.address).chmod(0o600)
    report = check(as_user(NOBODY), helper.address)
    words = f"user {NOBODY} may not connect to the helper at {helper.address}"
    assert (report["running"], report["problems"]) == (False, [words])


@requires("setpriv")
def test_check_tells_that_the_tun_device_is_missing(short_directory: Path) -> None:
    # A helper whose /dev/net has nothing in it, in a mount namespace of its own.
    (short_directory / "empty").mkdir()
    hidden = ("unshare", "--mount", "sh", "-c", f'mount --bind {short_directory}/empty /dev/net && exec "$@"', "sh")
    with own_namespace():
        helper = RunningHelper(short_directory, prefix=hidden)
        helper.set_rules(RULES)
        helper.start()
        try:
            (problem,) = check(POWERLESS, helper.address)["problems"]
            assert problem == "the helper cannot open /dev/net/tun: the kernel's module tun is missing (modprobe tun)"
            assert "there is no /dev/net/tun" in helper.refusal(op="tap")[1]
        finally:
            helper.close()


def test_each_network_namespace_has_a_name_of_its_own() -> None:
    outside = network_namespace()
    with own_namespace(tun=False):
        code = "print(network_namespace())"
        inside = python((), code).strip()
    assert inside != outside
    assert python((), code).strip() == outside


def test_nothing_is_left_open_when_the_helper_cannot_be_asked(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPN_HELPER", str(short_directory / "helper"))
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        helper_check()
    assert set(os.listdir("/proc/self/fd")) == before
