"""ipn-helper as a process: whom it grants what, what it refuses, and that nobody can wear it down or mislead it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipn.channel import close_all
from ipn.netlink import Link, link
from ipnd.netdev.helper_server import MAX_CLIENTS, MAX_PER_USER, MAX_REQUEST
from tests.helping import HELPER, RunningHelper, exchange
from tests.ipnd.test_systemd import as_service
from tests.netns import interfaces, ip, own_namespace
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
MAN = ROOT / "docs/man/ipn-helper.8"
SEQPACKET = socket.SOCK_SEQPACKET

RULES = f"""
[[tap]]
users = [0]
names = ["ipn*", "vm?"]
[[tap]]
users = [0]
names = ["full*"]
mac = true
mtu = 9000
up = true
addresses = ["10.7.0.0/16", "fd07::/32"]
[[tap]]
groups = [4711]
names = ["team*"]
[[grab]]
users = [0, {NOBODY}]
interfaces = ["v0", "lo"]
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


@contextlib.contextmanager
def granted(helper: RunningHelper, **request: Any) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Give what a request that must be granted brought: the answer's ``ok``, and its descriptors, closed at the end."""
    answer, fds = helper.ask(**request)
    try:
        assert "ok" in answer, answer
        yield answer["ok"], fds
    finally:
        close_all(fds)


def state(name: str) -> Link:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return link(sock, name=name)


def add_veth() -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for name in ("v0", "v1"):
        ip("link", "set", "dev", name, "addrgenmode", "none", "up")
    eventually(lambda: state("v0").running and state("v1").running)


# -- grants ------------------------------------------------------------------------------------------------


def test_a_tap_appears_its_descriptor_works_and_it_goes_when_that_is_closed(helper: RunningHelper) -> None:
    with granted(helper, op="tap", name="full0", up=True) as (ok, fds):
        assert ok == {"kind": "tap", "name": "full0", "index": socket.if_nametoindex("full0")}
        assert len(fds) == 2
        assert not os.get_blocking(fds[0])
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as host:
            host.bind(("full0", 0x88B5))
            host.settimeout(5)
            sent = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + b"hello".ljust(46)
            os.write(fds[0], bytes(10) + sent)
            assert host.recv(2000) == sent
    assert interfaces() == {"lo"}


def test_the_tap_is_made_as_it_was_asked_for(helper: RunningHelper) -> None:
    wishes = {"mac": "02:00:00:00:00:07", "mtu": 9000, "up": True, "addresses": ["10.7.0.1/24", "fd07::1/64"]}
    with granted(helper, op="tap", name="full0", **wishes):
        assert state("full0")[2:] == (True, True, 9000, "02:00:00:00:00:07")
        shown = ip("-o", "address", "show", "dev", "full0")
        assert "10.7.0.1/24" in shown
        assert "fd07::1/64" in shown


def test_a_family_of_names_gets_the_first_free_number(helper: RunningHelper) -> None:
    with granted(helper, op="tap") as (one, _), granted(helper, op="tap", name="ipn%d") as (two, _):
        assert (one["name"], two["name"]) == ("ipn0", "ipn1")


@requires("ip")
def test_an_interface_is_grabbed_and_given_back(helper: RunningHelper) -> None:
    add_veth()
    with granted(helper, op="grab", name="v0") as (ok, fds):
        assert ok == {"kind": "grab", "name": "v0", "index": socket.if_nametoindex("v0")}
        assert len(fds) == 3
        assert "promiscuity 1" in ip("-d", "link", "show", "v0")
        with socket.socket(fileno=os.dup(fds[0])) as sock, pytest.raises(OSError, match="Invalid argument"):
            sock.bind(("v1", 3))
        assert helper.refusal(op="grab", name="v0") == ("EBUSY", "the interface v0 is grabbed already")
    eventually(lambda: "promiscuity 0" in ip("-d", "link", "show", "v0"))
    with granted(helper, op="grab", name="v0"):
        pass


@requires("setpriv", "ip")
def test_another_user_gets_what_the_rules_grant_and_no_more(helper: RunningHelper) -> None:
    add_veth()
    user = as_user(NOBODY)
    answer, fds = helper.ask_as(user, op="grab", name="v0")
    assert answer["ok"]["name"] == "v0"
    assert [fd.split(":")[0] for fd in fds] == ["socket"] * 3
    answer, fds = helper.ask_as(user, op="tap", name="ipn0")
    assert fds == []
    words = f"the helper's rules do not let user {NOBODY} make ipn0: no [[tap]] rule is for them"
    assert answer == {"error": {"errno": "EPERM", "message": words}}
    assert "ipn0" not in interfaces()


@requires("setpriv")
@pytest.mark.parametrize(
    "user", [("setpriv", "--reuid=65534", "--regid=4711", "--clear-groups"), as_user(NOBODY, 1, 4711, 70000)]
)
def test_a_member_of_a_group_is_granted_what_the_group_is(helper: RunningHelper, user: tuple[str, ...]) -> None:
    answer, fds = helper.ask_as(user, op="tap", name="team0")
    assert answer["ok"]["name"] == "team0"
    assert fds[0] == "/dev/net/tun"
    assert "error" in helper.ask_as(as_user(NOBODY, 4712), op="tap", name="team0")[0]


@requires("setpriv")
def test_a_tap_that_is_made_persistent_belongs_to_who_asked(helper: RunningHelper) -> None:
    code = """
import fcntl, json, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
sock.send(b'{"op": "tap", "name": "team0"}')
_, fds, _, _ = socket.recv_fds(sock, 4096, 16)
fcntl.ioctl(fds[0], 0x400454CB, 1)  # TUNSETPERSIST
"""
    subprocess.run([*as_user(NOBODY, 4711), sys.executable, "-S", "-c", code, helper.address], check=True, timeout=20)
    (shown,) = json.loads(ip("-json", "-details", "link", "show", "dev", "team0"))
    info = shown["linkinfo"]["info_data"]
    assert (info["persist"], info["user"]) == (True, pwd.getpwuid(NOBODY).pw_name)


def test_several_requests_may_go_over_one_connection(helper: RunningHelper) -> None:
    with helper.connected() as sock:
        for name in ("ipn5", "wrong", "ipn6"):
            answer, fds = exchange(sock, json.dumps({"op": "tap", "name": name}).encode())
            close_all(fds)
            assert ("ok" in answer) == (name != "wrong")


# -- refusals, one by one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_, name, words",
    [
        ({"op": "tap", "name": "eth7"}, "EPERM", "its name is not among ipn*, vm?"),
        ({"op": "tap", "name": "vm10"}, "EPERM", "its name is not among"),
        ({"op": "tap", "name": "vm%d"}, "EPERM", "its name is not among"),
        ({"op": "tap", "name": "team0"}, "EPERM", "its name is not among"),
        ({"op": "tap", "name": "ipn0", "mac": "02:00:00:00:00:01"}, "EPERM", "its MAC address may not be chosen"),
        ({"op": "tap", "name": "ipn0", "mtu": 1501}, "EPERM", "its MTU 1501 is above 1500"),
        ({"op": "tap", "name": "full0", "mtu": 9001}, "EPERM", "its MTU 9001 is above 9000"),
        ({"op": "tap", "name": "full0", "mtu": 20}, "EINVAL", "an MTU from 68"),
        ({"op": "tap", "name": "ipn0", "up": True}, "EPERM", "it may not be set up"),
        ({"op": "tap", "name": "ipn0", "addresses": ["10.7.0.1/24"]}, "EPERM", "10.7.0.1/24 is not to be given"),
        ({"op": "tap", "name": "full0", "addresses": ["10.8.0.1/24"]}, "EPERM", "10.8.0.1/24 is not inside 10.7"),
        ({"op": "tap", "name": "full0", "addresses": ["10.7.0.1/8"]}, "EPERM", "10.7.0.1/8 is not inside 10.7"),
        ({"op": "tap", "name": "full0", "mac": "01:00:00:00:00:01"}, "EINVAL", "of a group"),
        ({"op": "tap", "name": "ipn/0"}, "EINVAL", "a path"),
        ({"op": "tap", "name": "ipn/../../x"}, "EINVAL", "a path"),
        ({"op": "tap", "name": "ipn0:1"}, "EINVAL", "an alias"),
        ({"op": "tap", "name": "ipn0123456789012"}, "EINVAL", "longer than 15 bytes"),
        ({"op": "tap", "name": "ipn 0"}, "EINVAL", "a space"),
        ({"op": "tap", "name": "ipn\n0"}, "EINVAL", "a control character"),
        ({"op": "tap", "name": "ipn%d%d"}, "EINVAL", "one %d"),
        ({"op": "tap", "name": "ipn0", "owner": 0}, "EINVAL", "no field 'owner'"),
        ({"op": "grab", "name": "v1"}, "EPERM", "it is not among v0, lo"),
        ({"op": "grab", "name": "lo"}, "EINVAL", "the loopback interface"),
        ({"op": "grab", "name": "nowhere"}, "EPERM", "it is not among"),
        ({"op": "grab", "name": ""}, "EINVAL", "missing"),
        ({"op": "grab", "name": "v0:1"}, "EINVAL", "an alias"),
        ({"op": "grab", "name": "../v0"}, "EINVAL", "a path"),
        ({"op": "up", "name": "v0"}, "EOPNOTSUPP", "tap, grab and check"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
@requires("ip")
def test_a_refusal_says_what_was_missing_and_nothing_is_touched(
    helper: RunningHelper, request_: dict[str, Any], name: str, words: str
) -> None:
    add_veth()
    before, fds = ip("-d", "address"), helper.fds()
    error, message = helper.refusal(**request_)
    assert error == name
    assert words in message
    assert ip("-d", "address") == before
    eventually(lambda: helper.fds() <= fds)
    assert message in helper.wait_for_log("refused user 0 pid ")


@requires("ip")
def test_a_listed_interface_that_is_not_there_or_no_longer_is_einval(helper: RunningHelper) -> None:
    assert helper.refusal(op="grab", name="v0") == ("EINVAL", "there is no interface v0 to grab")


@requires("ip")
@pytest.mark.parametrize(
    "make",
    [
        ("link", "add", "ipn7", "type", "veth", "peer", "name", "v1"),
        ("tuntap", "add", "ipn7", "mode", "tap"),
        ("tuntap", "add", "ipn7", "mode", "tap", "user", "0"),
        ("tuntap", "add", "ipn7", "mode", "tun"),
    ],
)
def test_a_tap_request_never_touches_an_interface_that_exists(helper: RunningHelper, make: tuple[str, ...]) -> None:
    # TUNSETIFF would open a persistent TAP that is there.
    ip(*make)
    before = ip("-d", "link", "show", "dev", "ipn7")
    words = "there is an interface ipn7 already, and the helper touches none that exists"
    assert helper.refusal(op="tap", name="ipn7") == ("EEXIST", words)
    assert ip("-d", "link", "show", "dev", "ipn7") == before


@requires("ip")
def test_another_name_of_an_interface_is_refused_for_taps_and_for_grabbing(helper: RunningHelper) -> None:
    add_veth()
    ip("link", "property", "add", "dev", "v1", "altname", "ipn-other")
    assert helper.refusal(op="tap", name="ipn-other")[0] == "EEXIST"
    helper.set_rules('[[grab]]\nusers = [0]\ninterfaces = ["ipn-other"]\n')
    error, words = helper.refusal(op="grab", name="ipn-other")
    assert (error, words) == ("EINVAL", "ipn-other is only another name of the interface v1; grab it by that one")


# -- the rules file ----------------------------------------------------------------------------------------


def test_changed_rules_count_at_once(helper: RunningHelper) -> None:
    assert helper.refusal(op="tap", name="new0")[0] == "EPERM"
    helper.set_rules('[[tap]]\nusers = [0]\nnames = ["new*"]\n')
    with granted(helper, op="tap", name="new0"):
        pass
    assert helper.refusal(op="tap", name="ipn0")[0] == "EPERM"
    helper.set_rules("")
    assert helper.refusal(op="tap", name="new0")[0] == "EPERM"
    assert "1 for TAPs, 0 for grabbing" in helper.wait_for_log("rules: ", start=1)
    helper.wait_for_log("0 for TAPs, 0 for grabbing")


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "group-writable":
        path.chmod(0o664)
    elif how == "world-writable":
        path.chmod(0o646)
    elif how == "somebody else's":
        os.chown(path, NOBODY, NOBODY)
    elif how == "a directory":
        path.unlink()
        path.mkdir()
    elif how == "a FIFO":
        path.unlink()
        os.mkfifo(path, 0o644)
    elif how == "binary":
        path.write_bytes(b"\xff\xfe")
    elif how == "endless":
        path.write_text("#" * (256 * 1024 + 1))
    else:
        path.write_text(RULES + how)


@pytest.mark.parametrize(
    "how, words",
    [
        ("missing", "the helper has no rules: {path}: there is none"),
        ("group-writable", "not to be trusted: {path} may be written by others than its owner (mode 0664)"),
        ("world-writable", "not to be trusted: {path} may be written by others than its owner (mode 0646)"),
        ("somebody else's", "not to be trusted: {path} belongs to user 65534; it must belong to root"),
        ("a directory", "{path} is no file"),
        ("a FIFO", "{path} is no file"),
        ("binary", "{path} are not UTF-8"),
        ("endless", "{path} is longer than"),
        ("[[tap]", "{path} are invalid: not TOML"),
        ("colour = 1", "{path} are invalid: [[grab]] rule 1: unknown key 'colour'"),
        ('[[tap]]\nusers = "root"\nnames = ["x"]', "{path} are invalid: [[tap]] rule 4: users is a list, in brackets"),
    ],
)
def test_rules_that_cannot_be_trusted_or_understood_refuse_everything(
    helper: RunningHelper, how: str, words: str
) -> None:
    spoil(helper.rules_path, how)
    words = words.format(path=helper.rules_path)
    for _ in range(2):
        error, message = helper.refusal(op="tap", name="ipn0")
        assert error == "EPERM"
        assert words in message
    assert words in helper.wait_for_log("rules: every request is refused")
    assert len([line for line in helper.log if line.startswith("rules: every request")]) == 1, "once, not each time"
    (problem,) = helper.ask(op="check")[0]["ok"]["problems"]
    assert words in problem


def test_without_rules_it_starts_says_so_and_goes_on_when_they_come(short_directory: Path) -> None:
    with own_namespace():
        helper = RunningHelper(short_directory)
        helper.start()
        try:
            helper.wait_for_log(f"the helper has no rules: {helper.rules_path}: there is none")
            helper.set_rules(RULES)
            with granted(helper, op="tap", name="ipn0"):
                pass
        finally:
            helper.close()


def test_users_and_groups_go_by_name_and_unknown_ones_are_said_to_be(helper: RunningHelper) -> None:
    helper.set_rules('[[tap]]\nusers = ["root", "no-such-user"]\ngroups = ["no-such-group"]\nnames = ["ipn*"]\n')
    with granted(helper, op="tap", name="ipn0"):
        line = helper.wait_for_log("there is no user 'no-such-user' here")
        assert "there is no group 'no-such-group' here" in line


# -- checking ----------------------------------------------------------------------------------------------


@requires("setpriv")
def test_check_tells_what_is_allowed_to_whom(helper: RunningHelper) -> None:
    mine = helper.ask(op="check")[0]["ok"]
    assert [(rule["kind"], rule["number"]) for rule in mine["rules"]] == [("tap", 1), ("tap", 2), ("grab", 1)]
    assert len(mine["allowed"]) == 3
    assert mine["problems"] == []
    assert mine["rules_file"] == str(helper.rules_path)
    theirs = helper.ask_as(as_user(NOBODY), op="check")[0]["ok"]
    assert (theirs["allowed"], theirs["problems"]) == (["grab v0 or lo"], [])
    nobodys = helper.ask_as(as_user(12345), op="check")[0]["ok"]
    assert (nobodys["allowed"], nobodys["rules"]) == ([], [])
    assert nobodys["problems"] == [f"no rule in {helper.rules_path} is for user 12345"]


# -- the log -----------------------------------------------------------------------------------------------


def test_each_grant_and_each_refusal_is_one_line_in_the_log(helper: RunningHelper) -> None:
    start = len(helper.log)
    with granted(helper, op="tap", name="full%d", mtu=9000, up=True, addresses=["10.7.0.1/24"]):
        pass
    helper.refusal(op="grab", name="v9")
    who = rf"user 0 pid {os.getpid()} \(.+\)"
    line = helper.wait_for_log("granted", start=start)
    assert re.fullmatch(rf"granted {who} tap full%d mtu 9000 up 10\.7\.0\.1/24 as full0: \[\[tap\]\] rule 2", line)
    line = helper.wait_for_log("refused", start=start)
    assert re.fullmatch(rf"refused {who} grab v9: the helper's rules do not let user 0 grab v9: .*", line)
    helper.refusal(op="grab", name="v9")
    helper.wait_for_log("refused", start=start + 2)
    assert len(helper.log) == start + 3


@requires("setpriv")
def test_nobody_forges_lines_of_the_log(helper: RunningHelper) -> None:
    code = f"""
import socket, sys
open("/proc/self/comm", "w").write("x\\ngranted")
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect({helper.address!r})
sock.send(b'{{"op": "tap", "name": "a\\\\ngranted user 0"}}')
sock.recv(4096)
sock.send(b'{{"op": "tap", "name": "b\\\\u2028", "granted\\\\n": 1}}')
sock.recv(4096)
"""
    start = len(helper.log)
    subprocess.run([*as_user(NOBODY), sys.executable, "-S", "-c", code], check=True, timeout=20)
    helper.refusal(op="grab", name="last")
    helper.wait_for_log("grab last", start=start)
    assert [line.split()[0] for line in helper.log[start:]] == ["refused"] * 3
    assert "(x?granted)" in helper.log[start]


# -- privilege ---------------------------------------------------------------------------------------------


def test_it_keeps_two_capabilities_and_gains_no_others(helper: RunningHelper) -> None:
    status = Path(f"/proc/{helper.process.pid}/status").read_text()
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    two = f"{1 << 12 | 1 << 13:016x}"
    assert {name: fields[name] for name in ("CapPrm", "CapEff", "CapBnd")} == dict.fromkeys(
        ("CapPrm", "CapEff", "CapBnd"), two
    )
    assert {fields["CapInh"], fields["CapAmb"]} == {f"{0:016x}"}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Threads"] == "1"


@requires("setpriv")
def test_it_does_the_same_where_the_service_manager_left_it_no_more(short_directory: Path) -> None:
    kept = ("setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all")
    with own_namespace():
        helper = RunningHelper(short_directory, prefix=kept)
        helper.set_rules(RULES)
        helper.start()
        try:
            with granted(helper, op="tap", name="ipn0"):
                pass
        finally:
            helper.close()


@requires_root
@requires("setpriv")
@pytest.mark.parametrize(
    "prefix, missing",
    [
        (as_user(NOBODY), "CAP_NET_ADMIN and no CAP_NET_RAW"),
        (("setpriv", "--bounding-set=-net_raw", "--inh-caps=-all"), "CAP_NET_RAW"),
    ],
)
def test_without_the_capabilities_it_does_not_start(
    short_directory: Path, prefix: tuple[str, ...], missing: str
) -> None:
    ended = run_helper(short_directory, prefix=prefix)
    assert (ended.returncode, ended.stderr) == (1, f"ipn-helper: has no {missing}; run it as root\n")


def test_it_imports_the_standard_library_and_ours_only() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from ipnd.netdev.helper import main
print(*sorted(sys.modules))
"""
    done = subprocess.run([sys.executable, "-S", "-E", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    foreign = {name for name in loaded if name.split(".")[0] not in {*sys.stdlib_module_names, "__main__"}}
    ours = {name for name in foreign if name.split(".")[0] in ("ipn", "ipnd")}
    assert foreign == ours
    assert {name for name in ours if name.startswith("ipnd")} == {
        "ipnd",
        "ipnd.credentials",
        "ipnd.systemd",
        "ipnd.netdev",
        *(f"ipnd.netdev.{path.stem}" for path in (ROOT / "ipnd/netdev").glob("helper*.py")),
    }


# -- bad company -------------------------------------------------------------------------------------------


def answers(helper: RunningHelper) -> bool:
    """Tell whether the helper grants what it should."""
    with granted(helper, op="tap", name="ipn0") as (ok, _):
        return bool(ok["name"] == "ipn0")


def dropped(sock: socket.socket) -> bool:
    """Tell whether the helper has closed this connection without a word."""
    try:
        return sock.recv(4096) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "noise",
    [
        b"x",
        b"\0" * 100,
        b"\xff\xfe\xfd",
        b"{",
        b'{"op": "tap"',
        b"[]",
        b"null",
        b'"tap"',
        b"1" * 5000,
        b"[" * 8000,
        b'{"a":' * 1500,
        b" " * (MAX_REQUEST + 1),
        b'{"op": "tap"}' + b" " * MAX_REQUEST,
        b"x" * 100_000,
        b"",
    ],
    ids=lambda noise: repr(noise[:12]),
)
def test_noise_ends_its_connection_and_no_other(helper: RunningHelper, noise: bytes) -> None:
    with helper.connected() as patient, helper.connected() as loud:
        loud.send(noise)
        assert dropped(loud)
        answer, _ = exchange(patient, b'{"op": "check"}')
        assert "ok" in answer
    assert answers(helper)


def test_clients_that_say_nothing_or_half_of_it_keep_nobody_waiting(helper: RunningHelper) -> None:
    with helper.connected(), helper.connected() as half, helper.connected() as hung:
        half.send(b'{"op": "tap", "na')
        hung.send(b'{"op": "check"}')  # and never reads
        start = time.monotonic()
        assert answers(helper)
        assert time.monotonic() - start < 5


def test_a_client_that_does_not_take_its_answers_is_dropped(helper: RunningHelper) -> None:
    fds = helper.fds()
    with helper.connected() as hung:
        hung.send(b'{"op": "tap"}')
        hung.send(b'{"op": "tap"}')
        helper.wait_for_log("it does not take its answers")
        assert interfaces() == {"lo", "ipn0"}, "the answer to the first request lies there"
        with pytest.raises(OSError, match="Broken pipe"):
            hung.send(b'{"op": "tap"}')
    eventually(lambda: interfaces() == {"lo"})
    assert answers(helper)
    eventually(lambda: helper.fds() <= fds)


def test_a_silent_connection_is_closed_after_a_while(short_directory: Path) -> None:
    with own_namespace():
        helper = RunningHelper(short_directory, patience=0.3)
        helper.set_rules(RULES)
        helper.start()
        try:
            with helper.connected() as silent, helper.connected() as talker:
                for _ in range(6):
                    assert "ok" in exchange(talker, b'{"op": "check"}')[0]
                    time.sleep(0.1)  # alive for twice as long as a silent one
                assert dropped(silent)
                assert "ok" in exchange(talker, b'{"op": "check"}')[0]
        finally:
            helper.close()


@requires("setpriv")
def test_one_user_has_so_many_connections_and_no_more(helper: RunningHelper) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_PER_USER):
            stack.enter_context(helper.connected())
        words = f"user 0 has {MAX_PER_USER} connections to the helper already"
        with helper.connected() as one_more:
            answer = json.loads(one_more.recv(4096))
            assert answer == {"error": {"errno": "EAGAIN", "message": words}}
            assert dropped(one_more)
        helper.wait_for_log(words)
        other, _ = helper.ask_as(as_user(NOBODY), op="check")
        assert "ok" in other
    eventually(lambda: "ok" in exchange_or_nothing(helper))
    assert answers(helper)


def exchange_or_nothing(helper: RunningHelper) -> dict[str, Any]:
    try:
        return helper.ask(op="check")[0]
    except OSError:
        return {}


CROWD = """
import os, socket, sys, time
socks = []
for uid in range(100_000, 100_000 + int(sys.argv[2])):
    os.setresuid(uid, uid, 0)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(sys.argv[1])
    socks.append(sock)
    os.setresuid(0, 0, 0)
print("there", flush=True)
sys.stdin.read()
"""


def test_a_crowd_of_silent_users_cannot_keep_others_out(helper: RunningHelper) -> None:
    command = [sys.executable, "-S", "-c", CROWD, helper.address, str(MAX_CLIENTS + 50)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as crowd:
        assert crowd.stdout is not None
        assert crowd.stdin is not None
        assert crowd.stdout.readline() == b"there\n"
        assert answers(helper)
        assert helper.fds() < MAX_CLIENTS + 20
        crowd.stdin.close()
    assert answers(helper)


def test_descriptors_that_are_sent_to_it_are_closed(helper: RunningHelper) -> None:
    read, write = os.pipe()
    with helper.connected() as sock:
        socket.send_fds(sock, [b'{"op": "check"}'], [write] * 50)
        assert "ok" in json.loads(sock.recv(65536))
        os.close(write)
        assert os.read(read, 1) == b"", "nobody else has the writing end"
    os.close(read)


def junk(rng: random.Random) -> bytes:
    """Return a message that is nearly a request, or not at all."""
    message = bytearray(
        rng.choice(
            [
                b'{"op": "tap", "name": "ipn%d", "mac": null, "mtu": 1500, "up": false, "addresses": []}',
                b'{"op": "tap", "name": "full0", "mtu": 9000, "up": true, "addresses": ["10.7.0.1/24"]}',
                b'{"op": "grab", "name": "v0"}',
                b'{"op": "check"}',
                rng.randbytes(rng.randrange(300)),
            ]
        )
    )
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(message) + 1)
        message[at : at + rng.randrange(5)] = rng.choice([b"", b'"', b"}", b"[", b"\0", b"9" * 30, rng.randbytes(3)])
    return bytes(message)


def test_junk_neither_ends_it_nor_wears_it_down(helper: RunningHelper) -> None:
    fds, rng = helper.fds(), random.Random(4)
    assert answers(helper)
    for _ in range(60):
        with helper.connected() as sock:
            for _ in range(rng.randrange(1, 20)):
                try:
                    sock.send(junk(rng))
                    data, received, _, _ = socket.recv_fds(sock, 65536, 16)
                except OSError:
                    break
                close_all(received)
                if not data:
                    break
                assert {"ok", "error"} & json.loads(data).keys()
    assert answers(helper)
    eventually(lambda: helper.fds() <= fds)
    eventually(lambda: interfaces() == {"lo"})
    assert all(line.isprintable() for line in helper.log)


# -- starting and ending -----------------------------------------------------------------------------------


def run_helper(
    directory: Path, *arguments: str, prefix: tuple[str, ...] = (), fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Start a helper that must end by itself, and return how it ended."""
    options = arguments or ("--socket", str(directory / "helper"), "--rules", str(directory / "helper.toml"))
    command = [*prefix, sys.executable, "-S", "-c", HELPER, "10", *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL, pass_fds=fds
    )


def test_sigterm_ends_it_with_0_and_removes_its_socket(helper: RunningHelper) -> None:
    with helper.connected() as sock:
        assert Path(helper.address).is_socket()
        helper.end()  # asserts the status
        assert not Path(helper.address).exists()
        assert dropped(sock)


def test_what_was_granted_outlives_it(helper: RunningHelper) -> None:
    with granted(helper, op="tap", name="ipn0"):
        helper.end()
        assert "ipn0" in interfaces()


def test_everybody_may_connect_to_its_socket(helper: RunningHelper) -> None:
    assert Path(helper.address).stat().st_mode & 0o777 == 0o666


def test_a_socket_that_a_killed_one_left_behind_is_replaced(helper: RunningHelper) -> None:
    helper.kill()
    assert Path(helper.address).is_socket()
    helper.start()
    assert answers(helper)


def test_a_second_one_leaves_the_first_alone_and_ends_with_75(helper: RunningHelper) -> None:
    ended = run_helper(helper.directory)
    assert (ended.returncode, ended.stderr) == (75, f"ipn-helper: another one listens on {helper.address}\n")
    assert answers(helper)


@requires_root
def test_a_file_in_the_place_of_its_socket_is_not_removed(short_directory: Path) -> None:
    (short_directory / "helper").write_text("precious")
    ended = run_helper(short_directory)
    assert ended.returncode == 1
    assert "something that is no socket is there" in ended.stderr
    assert (short_directory / "helper").read_text() == "precious"


def test_it_makes_the_directory_of_its_socket(short_directory: Path) -> None:
    with own_namespace():
        (short_directory / "run").mkdir()
        helper = RunningHelper(short_directory / "run")
        helper.address = str(short_directory / "run" / "ipn" / "helper")
        helper.set_rules(RULES)
        helper.start()
        try:
            assert answers(helper)
            assert (short_directory / "run/ipn").stat().st_mode & 0o777 == 0o755
        finally:
            helper.close()


@pytest.fixture
def activation(short_directory: Path) -> Iterator[socket.socket]:
    """Give the socket that the service manager listens on."""
    with socket.socket(socket.AF_UNIX, SEQPACKET) as listener:
        listener.bind(str(short_directory / "helper"))
        listener.listen()
        yield listener


def test_it_serves_the_service_managers_socket_and_leaves_it_there(
    short_directory: Path, activation: socket.socket
) -> None:
    fd = activation.fileno()
    with own_namespace(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_directory / "notify"))
        manager.settimeout(10)
        helper = RunningHelper(short_directory, prefix=as_service(fd), pass_fds=(fd,))
        helper.env["NOTIFY_SOCKET"] = str(short_directory / "notify")
        helper.set_rules(RULES)
        with helper.connected() as early:
            early.send(b'{"op": "check"}')
            helper.start()
            try:
                assert manager.recv(100) == b"READY=1"
                assert "ok" in json.loads(early.recv(65536))
                assert answers(helper)
                helper.end()
                assert manager.recv(100) == b"STOPPING=1"
                assert Path(helper.address).is_socket()
            finally:
                helper.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, SEQPACKET])
def test_a_socket_that_is_of_no_use_is_refused(short_directory: Path, kind: int) -> None:
    # That of the right kind does not listen.
    with own_namespace(), socket.socket(socket.AF_UNIX, kind) as sock:
        ended = run_helper(short_directory, prefix=as_service(sock.fileno()), fds=(sock.fileno(),))
    assert ended.returncode == 1
    assert re.fullmatch(
        r"ipn-helper: cannot listen on .*: the socket that the service manager passed .*\n", ended.stderr
    )


def test_two_sockets_are_refused(short_directory: Path, activation: socket.socket) -> None:
    fd = activation.fileno()
    with own_namespace():
        ended = run_helper(short_directory, prefix=as_service(fd, fd), fds=(fd,))
    assert ended.returncode == 1
    assert "passed 2 sockets; one is wanted" in ended.stderr


def test_wrong_usage_ends_with_2(short_directory: Path) -> None:
    ended = run_helper(short_directory, "--loud")
    assert ended.returncode == 2
    assert "usage: ipn-helper" in ended.stderr


# -- what comes with it ------------------------------------------------------------------------------------


def test_the_man_page_has_every_option_and_every_key_of_the_rules(short_directory: Path) -> None:
    page = MAN.read_text().replace("\\-", "-")
    options = set(re.findall(r"--[a-z]+", run_helper(short_directory, "--help").stdout))
    assert {"--socket", "--rules", "--version"} <= options
    keys = {"users", "groups", "names", "mac", "mtu", "up", "addresses", "interfaces", "[[tap]]", "[[grab]]"}
    assert {word for word in options | keys if word not in page} == set()


@requires("groff")
def test_the_man_page_is_set_without_a_warning() -> None:
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", str(MAN)], capture_output=True, check=True)
    assert done.stderr == b""


@requires("systemd-analyze")
def test_the_units_are_valid(short_directory: Path) -> None:
    for name in ("ipn-helper.service", "ipn-helper.socket"):
        text = (ROOT / "ipnd/units" / name).read_text()
        (short_directory / name).write_text(text.replace("ExecStart=ipn-helper", f"ExecStart={sys.executable}"))
    units = [str(short_directory / name) for name in ("ipn-helper.service", "ipn-helper.socket")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert not [line for line in done.stderr.splitlines() if "ipn-helper" in line]
