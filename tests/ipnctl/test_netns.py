"""``ipnctl netns run``: commands in namespaces of their own, as several users, against a real daemon."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import Ipnctl, Ran, Started
from tests.ipnctl.host import open_tun
from tests.peers import NOBODY, as_user, requires, skip_or_fail
from tests.waiting import eventually

ANOTHER = 65533
"""A second uid that owns nothing here."""
MAC = "02:00:00:00:00:07"


@pytest.fixture
def lab(ipnctl: Ipnctl) -> Iterator[str]:
    """Give the path of a network that everybody may join and nobody but root may manage."""
    if os.geteuid() != 0:
        skip_or_fail("needs root")
    ipnctl.daemon.directory.chmod(0o777)
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--mode", "0766").ok()
    yield path
    # Whoever is left is killed first; then nobody is on it any more.
    ipnctl.close()
    eventually(lambda: ports(path) == [], message="a port has not left with its command")


def user(ipnctl: Ipnctl, uid: int) -> tuple[str, ...]:
    """Return what runs a command as a user on a machine where everybody may open /dev/net/tun."""
    return (*open_tun(ipnctl.daemon.directory), *as_user(uid))


def run(ipnctl: Ipnctl, path: str, *arguments: str, uid: int = NOBODY, **more: Any) -> Ran:
    """Run ``netns run`` as a user, with options and, behind ``--``, the command."""
    return ipnctl.run("netns", "run", path, *arguments, prefix=user(ipnctl, uid), **more)


def start(ipnctl: Ipnctl, path: str, *arguments: str, uid: int = NOBODY, **more: Any) -> Started:
    """Start it, and return when its command runs, which must say ``ready``."""
    started = ipnctl.start("netns", "run", path, *arguments, prefix=user(ipnctl, uid), **more)
    started.wait_for(lambda out: b"ready" in out, "ready")
    return started


def ports(path: str) -> list[dict[str, Any]]:
    return list(admin.show_network(path)["ports"])


def shell(script: str) -> tuple[str, ...]:
    return ("--", "sh", "-c", script)


# -- on the network --------------------------------------------------------------------------------------------------


@requires("setpriv", "unshare", "ping")
def test_two_users_ping_each_other_on_one_network(ipnctl: Ipnctl, lab: str) -> None:
    start(ipnctl, lab, "--address", "10.9.0.1/24", *shell("echo ready; exec sleep 60"), uid=ANOTHER)
    big = ("ping", "-c", "1", "-W", "5", "-s", "1472", "-M", "do", "10.9.0.1")
    assert "1 received" in run(ipnctl, lab, "--address", "10.9.0.2/24", "--", *big).ok().text


@requires("setpriv", "unshare", "ping")
def test_ipv6_works_from_the_first_moment(ipnctl: Ipnctl, lab: str) -> None:
    start(ipnctl, lab, "--address", "fd09::1/64", *shell("echo ready; exec sleep 60"))
    ping = ("ping", "-6", "-c", "1", "-W", "5", "fd09::1")
    assert "1 received" in run(ipnctl, lab, "--address", "fd09::2/64", "--", *ping).ok().text


@requires("setpriv", "unshare", "ip")
def test_the_interface_is_as_the_options_say(ipnctl: Ipnctl, lab: str) -> None:
    options = ("--address", "10.9.0.2/24", "--address", "fd09::2/64", "--gateway", "10.9.0.1", "--gateway", "fd09::1")
    script = "ip -o link; ip -o address; ip route; ip -6 route; hostname"
    text = run(ipnctl, lab, *options, "--name", "lan0", "--mac", MAC, "--hostname", "box", *shell(script)).ok().text
    assert ": lan0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500" in text
    assert f"link/ether {MAC}" in text
    assert "lan0    inet 10.9.0.2/24" in text
    assert "lan0    inet6 fd09::2/64" in text
    assert "tentative" not in next(line for line in text.splitlines() if "fd09::2/64" in line)
    assert "lo    inet 127.0.0.1/8" in text
    assert "default via 10.9.0.1 dev lan0" in text
    assert "default via fd09::1 dev lan0" in text
    assert text.endswith("\nbox\n")


@requires("setpriv", "unshare", "ip")
def test_nothing_but_loopback_and_the_member_is_there(ipnctl: Ipnctl, lab: str) -> None:
    lines = run(ipnctl, lab, "--", "ip", "-br", "link").ok().text.splitlines()
    assert [line.split()[0] for line in lines] == ["lo", "eth0"]


@requires("setpriv", "unshare", "ip")
def test_the_mtu_follows_the_networks(ipnctl: Ipnctl, lab: str) -> None:
    for frame, packet in ((9014, 9000), (16_000_000, 65521)):
        path = ipnctl.path(f"net-{frame}")
        ipnctl.run("net", "create", path, "--mode", "0766", "--mtu", str(frame)).ok()
        text = run(ipnctl, path, "--", "ip", "-o", "link", "show", "eth0").ok().text
        assert f" mtu {packet} " in text


@requires("setpriv", "unshare")
def test_its_port_is_the_users_and_says_which_interface_it_is(ipnctl: Ipnctl, lab: str) -> None:
    start(ipnctl, lab, "--mac", MAC, *shell("echo ready; exec sleep 60"))
    (port,) = ports(lab)
    assert (port["kind"], port["uid"], port["rights"]) == ("tap", NOBODY, "rw")
    interface = port["interface"]
    assert (interface["name"], interface["up"], interface["mac"]) == ("eth0", True, MAC)
    assert interface["lifetime"] == "socket"
    assert " eth0 (up) " in ipnctl.run("net", "show", lab).ok().text


@requires("setpriv", "unshare")
@pytest.mark.parametrize(("mode", "rights"), [(0o664, "r"), (0o662, "w")])
def test_one_right_is_enough_to_join(ipnctl: Ipnctl, lab: str, mode: int, rights: str) -> None:
    os.chmod(lab, mode)
    start(ipnctl, lab, *shell("echo ready; exec sleep 60"))
    assert [port["rights"] for port in ports(lab)] == [rights]


@requires("setpriv", "unshare")
@pytest.mark.parametrize("mode", [0o660, 0o661])
def test_without_r_and_w_a_user_is_refused(ipnctl: Ipnctl, lab: str, mode: int) -> None:
    os.chmod(lab, mode)
    run(ipnctl, lab, "--", "true").failed("chmod")


@requires("setpriv", "unshare")
def test_a_missing_network_is_named(ipnctl: Ipnctl, lab: str) -> None:
    run(ipnctl, ipnctl.path("missing"), "--", "true").failed("no network at", "ipnctl net list")


@requires("setpriv", "unshare")
def test_a_full_network_says_so(ipnctl: Ipnctl, lab: str) -> None:
    ipnctl.run("net", "resize", lab, "1").ok()
    with ipn.connect(lab):
        run(ipnctl, lab, "--", "true").failed("ipnctl net resize")


@requires("setpriv", "unshare")
def test_a_gateway_that_is_nowhere_near_says_what_is_missing(ipnctl: Ipnctl, lab: str) -> None:
    options = ("--address", "10.9.0.2/24", "--gateway", "10.8.0.1")
    run(ipnctl, lab, *options, "--", "true").failed("10.8.0.1", "give an --address")


# -- who the command is ------------------------------------------------------------------------------------------------


@requires("setpriv", "unshare")
def test_a_user_is_root_inside_and_itself_outside(ipnctl: Ipnctl, lab: str) -> None:
    file = ipnctl.path("made")
    assert run(ipnctl, lab, *shell(f"id -u; id -g; touch {file}")).ok().text == "0\n0\n"
    assert (os.stat(file).st_uid, os.stat(file).st_gid) == (NOBODY, NOBODY)


@requires("unshare")
def test_root_keeps_its_user_namespace_and_with_it_its_rights_on_files(ipnctl: Ipnctl, lab: str) -> None:
    script = "readlink /proc/self/ns/user /proc/self/ns/net"
    inside = ipnctl.run("netns", "run", lab, *shell(script)).ok().text.split()
    assert inside[0] == os.readlink("/proc/self/ns/user")
    assert inside[1] != os.readlink("/proc/self/ns/net")


@requires("setpriv", "unshare")
def test_input_directory_and_environment_are_the_callers(ipnctl: Ipnctl, lab: str) -> None:
    ipnctl.daemon.env["COLOUR"] = "blue"
    ran = run(ipnctl, lab, *shell('cat; pwd; echo "$COLOUR"; echo bad >&2'), stdin=b"hello\n")
    assert (ran.status, ran.text, ran.err) == (0, f"hello\n{os.getcwd()}\nblue\n", "bad\n")


@requires("setpriv", "unshare")
def test_no_descriptor_but_the_three_reaches_the_command(ipnctl: Ipnctl, lab: str) -> None:
    extra = os.open("/dev/null", os.O_RDONLY)
    try:
        script = "echo ready; ls /proc/$$/fd; exec 0<&-"
        ran = start(ipnctl, lab, *shell(script), pass_fds=(extra,)).end().ok()
    finally:
        os.close(extra)
    assert ran.text.split() == ["ready", "0", "1", "2"]


@requires("setpriv", "unshare")
def test_without_a_command_the_users_shell_runs(ipnctl: Ipnctl, lab: str) -> None:
    ipnctl.daemon.env["SHELL"] = "/bin/sh"
    assert run(ipnctl, lab, stdin=b"echo $((6 * 7)); exit 3\n").text == "42\n"


@requires("setpriv", "unshare")
def test_a_command_may_have_options_and_dashes_of_its_own(ipnctl: Ipnctl, lab: str) -> None:
    assert run(ipnctl, lab, "--", "echo", "--json", "--", "-n").ok().text == "--json -- -n\n"


# -- how it ends -----------------------------------------------------------------------------------------------------


@requires("setpriv", "unshare")
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("sh", "-c", "kill -KILL $$"), 137),
    ],
)
def test_the_exit_status_is_the_commands(ipnctl: Ipnctl, lab: str, command: tuple[str, ...], status: int) -> None:
    ran = run(ipnctl, lab, "--", *command)
    assert (ran.status, ran.err) == (status, "")
    eventually(lambda: ports(lab) == [])


@requires("setpriv", "unshare")
@pytest.mark.parametrize(
    ("command", "status", "why"),
    [
        ("no-such-command", 127, "there is no such command"),
        ("/no/such/command", 127, "there is no such command"),
        ("", 127, "there is no such command"),
        ("/etc/passwd", 126, "Permission denied"),
    ],
)
def test_a_command_that_cannot_run_ends_as_in_a_shell(
    ipnctl: Ipnctl, lab: str, command: str, status: int, why: str
) -> None:
    ran = run(ipnctl, lab, "--", command)
    assert (ran.status, ran.out) == (status, b"")
    assert ran.err.startswith(f"ipnctl: cannot run {command}: {why}")
    assert ran.err.count("\n") == 1


TRAPS = """
for s in INT QUIT TERM HUP USR1 USR2; do trap "echo $s; exit 9" $s; done
echo ready
while :; do sleep 0.05; done
"""


@requires("setpriv", "unshare")
@pytest.mark.parametrize("name", ["INT", "QUIT", "TERM", "HUP", "USR1", "USR2"])
def test_signals_reach_the_command(ipnctl: Ipnctl, lab: str, name: str) -> None:
    started = start(ipnctl, lab, *shell(TRAPS))
    started.process.send_signal(signal.Signals[f"SIG{name}"])
    ran = started.end()
    assert (ran.status, ran.text, ran.err) == (9, f"ready\n{name}\n", "")


@pytest.fixture
def on_terminal() -> Iterator[tuple[int, dict[str, Any]]]:
    """Give our end of a terminal, and what makes a command start on it, alone and in the foreground."""
    ours, theirs = pty.openpty()

    def take() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    try:
        yield ours, {"stdin": theirs, "preexec_fn": take}
    finally:
        os.close(ours)
        os.close(theirs)


@requires("setpriv", "unshare")
def test_ctrl_c_reaches_the_command_once_and_it_decides(
    ipnctl: Ipnctl, lab: str, on_terminal: tuple[int, dict[str, Any]]
) -> None:
    terminal, started_there = on_terminal
    script = """
    n=0; trap 'n=$((n + 1)); echo interrupted' INT; trap 'echo "$n times"; exit' USR1
    echo ready; while :; do sleep 0.05; done
    """
    started = start(ipnctl, lab, *shell(script), **started_there)
    os.write(terminal, b"\x03")
    started.wait_for(lambda out: b"interrupted" in out)
    started.process.send_signal(signal.SIGUSR1)
    ran = started.end()
    assert (ran.status, ran.text, ran.err) == (0, "ready\ninterrupted\n1 times\n", "")


@requires("setpriv", "unshare")
def test_when_the_command_stops_on_a_terminal_so_does_ipnctl_and_both_go_on(
    ipnctl: Ipnctl, lab: str, on_terminal: tuple[int, dict[str, Any]]
) -> None:
    started = start(ipnctl, lab, *shell("echo ready; kill -STOP $$; echo on"), **on_terminal[1])
    eventually(lambda: state(started.process.pid) == "T")
    started.process.send_signal(signal.SIGCONT)
    assert started.end().ok().text == "ready\non\n"


@requires("setpriv", "unshare")
def test_a_command_stopped_elsewhere_goes_on_by_itself(ipnctl: Ipnctl, lab: str) -> None:
    started = start(ipnctl, lab, *shell("echo ready; kill -STOP $$; echo on"))
    (pid,) = children(started.process.pid)
    eventually(lambda: state(pid) == "T")
    os.kill(pid, signal.SIGCONT)
    assert started.end().ok().text == "ready\non\n"


@requires("setpriv", "unshare")
def test_killing_the_command_ends_it_and_the_port_leaves(ipnctl: Ipnctl, lab: str) -> None:
    started = start(ipnctl, lab, *shell("echo ready; exec sleep 60"))
    (pid,) = children(started.process.pid)
    os.kill(pid, signal.SIGKILL)
    assert started.end().status == 137
    eventually(lambda: ports(lab) == [])


@requires("setpriv", "unshare")
def test_killing_ipnctl_hangs_up_on_the_command_and_the_port_leaves(ipnctl: Ipnctl, lab: str) -> None:
    started = start(ipnctl, lab, *shell("trap 'echo hung up; exit' HUP; echo ready; while :; do sleep 0.05; done"))
    started.process.kill()
    eventually(lambda: ports(lab) == [])
    started.wait_for(lambda out: b"hung up" in out)


@requires("setpriv", "unshare")
def test_the_end_of_the_network_leaves_the_command_running(ipnctl: Ipnctl, lab: str) -> None:
    path = ipnctl.path("short-lived")
    ipnctl.run("net", "create", path, "--mode", "0766").ok()
    started = start(ipnctl, path, *shell("echo ready; read line; ls /sys/class/net >&2; exit 5"))
    ipnctl.run("net", "delete", path).ok()
    started.feed(b"go\n")
    assert started.end().status == 5


# -- what can be in the way --------------------------------------------------------------------------------------------


@requires("setpriv", "unshare")
def test_a_kernel_without_namespaces_for_users_says_which_setting_it_is(ipnctl: Ipnctl, lab: str) -> None:
    # Within a user namespace of the test's own, so that the setting is not the machine's.
    forbidding = ("unshare", "--user", "--map-root-user", "sh", "-c", f'echo 0 > {LIMIT}; exec "$@"', "sh")
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    os.chmod(lab, 0o766)
    ran = ipnctl.run("netns", "run", lab, "--", "true", prefix=(*forbidding, *powerless))
    ran.failed("may not make a network namespace", "user.max_user_namespaces is 0", "sysctl -w")


LIMIT = "/proc/sys/user/max_user_namespaces"


@requires("setpriv")
def test_a_tun_device_for_root_alone_says_how_to_open_it(ipnctl: Ipnctl, lab: str) -> None:
    open_tun(ipnctl.daemon.directory)
    closed = Path(ipnctl.path("closed-tun"))
    over = f'cp -a /dev/net/tun {closed} && chmod 600 {closed} && mount --bind {closed} /dev/net/tun && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", over, "sh", *as_user(NOBODY))
    ran = ipnctl.run("netns", "run", lab, "--", "true", prefix=prefix)
    ran.failed(f"user {NOBODY} has no access to /dev/net/tun", "chmod 666 /dev/net/tun")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--address", "10.0.0.1"),
        ("--gateway", "10.0.0.0/24"),
        ("--gateway", "router"),
        ("--mac", "01:00:00:00:00:01"),
        ("--name", "a/b"),
        ("--hostname", "h" * 65),
    ],
)
def test_a_wrong_option_is_wrong_usage(ipnctl: Ipnctl, network: str, wrong: tuple[str, str]) -> None:
    ran = ipnctl.run("netns", "run", network, *wrong, "--", "true")
    assert (ran.status, ran.out) == (2, b"")
    assert f"Error: Invalid value for '{wrong[0]}'" in ran.err


# -- looking at processes ----------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def state(pid: int) -> str:
    """Return the letter of a process's state: R, S, T … (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
