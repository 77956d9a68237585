"""``ipnctl net``, in processes of its own, against a real daemon."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import AS_NOBODY, Ipnctl
from tests.peers import requires, requires_root
from tests.running import RunningDaemon
from tests.waiting import eventually

NETWORK_FIELDS = {"path", "policy", "mtu", "maxports", "pool", "lossless", "mode", "persistent", "readers", "writers"}
PORT_FIELDS = {
    *("port", "kind", "description", "uid", "gid", "pid", "command", "rights", "queued"),
    *("rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "dropped", "blocked_ms"),
}


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# -- create --------------------------------------------------------------------------------------------------------


def test_create_makes_a_persistent_network_with_the_default_options(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    assert ipnctl.run("net", "create", path).ok().out == b""
    shown = admin.show_network(path)
    expected = {"policy": "broadcast", "mtu": 1514, "maxports": 32, "pool": 8, "lossless": False, "persistent": True}
    assert {name: shown[name] for name in expected} == expected


def test_create_sets_every_option_and_prints_the_network_as_json(ipnctl: Ipnctl) -> None:
    options = ("--policy", "broadcast", "--mtu", "9000", "--ports", "5", "--pool", "64", "--lossless")
    made = ipnctl.run("net", "create", ipnctl.path("net"), *options, "--mode", "0750", "--json").ok().json
    expected = {"policy": "broadcast", "mtu": 9000, "maxports": 5, "pool": 64, "lossless": True, "mode": "0750"}
    assert {name: made[name] for name in expected} == expected


@pytest.mark.parametrize("mode", ["0777", "666", "0o700", "0707"])
def test_the_file_gets_exactly_the_mode_whatever_the_umask(ipnctl: Ipnctl, mode: str) -> None:
    umask = os.umask(0o077)
    try:
        ipnctl.run("net", "create", ipnctl.path("net"), "--mode", mode).ok()
    finally:
        os.umask(umask)
    assert mode_of(ipnctl.path("net")) == int(mode, 8)


def test_without_a_mode_the_umask_decides(ipnctl: Ipnctl) -> None:
    umask = os.umask(0o027)
    try:
        ipnctl.run("net", "create", ipnctl.path("net")).ok()
    finally:
        os.umask(umask)
    assert mode_of(ipnctl.path("net")) == 0o750


@requires_root
@pytest.mark.parametrize("group", ["daemon", "1"])
def test_the_file_gets_the_group_by_name_or_number(ipnctl: Ipnctl, group: str) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--group", group, "--mode", "0770").ok()
    assert (os.stat(path).st_gid, mode_of(path)) == (1, 0o770)


@requires_root
def test_a_group_without_a_mode_leaves_the_mode_to_the_umask(ipnctl: Ipnctl) -> None:
    umask = os.umask(0o027)
    try:
        ipnctl.run("net", "create", ipnctl.path("net"), "--group", "1").ok()
    finally:
        os.umask(umask)
    assert mode_of(ipnctl.path("net")) == 0o750


@requires_root
@requires("setpriv")
def test_a_network_whose_group_is_refused_is_not_left_behind(ipnctl: Ipnctl) -> None:
    ipnctl.daemon.directory.chmod(0o777)
    path = ipnctl.path("net")
    refused = ipnctl.run("net", "create", path, "--group", "1", "--mode", "0660", prefix=AS_NOBODY)
    refused.failed("cannot set mode and group", "choose a group that you are in")
    assert not os.path.lexists(path)
    assert admin.list_networks() == []


def test_create_refuses_a_path_where_a_network_lives(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.run("net", "create", network, "--mode", "0700").failed("already lives at", network, "net delete")
    assert mode_of(network) == 0o755


def test_create_refuses_a_path_where_something_else_is(ipnctl: Ipnctl) -> None:
    Path(ipnctl.path("file")).write_text("precious")
    ipnctl.run("net", "create", ipnctl.path("file")).failed("not a socket", "choose another path")
    assert Path(ipnctl.path("file")).read_text() == "precious"


def test_create_takes_over_a_socket_file_that_nobody_serves(ipnctl: Ipnctl) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(ipnctl.path("net"))
    ipnctl.run("net", "create", ipnctl.path("net")).ok()
    assert admin.show_network(ipnctl.path("net"))["persistent"]


def test_create_through_a_symbolic_link_gives_the_mode_to_the_socket_file(ipnctl: Ipnctl) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(ipnctl.path("net"))
    os.symlink(ipnctl.path("net"), ipnctl.path("link"))
    ipnctl.run("net", "create", ipnctl.path("link"), "--mode", "0701").ok()
    assert mode_of(ipnctl.path("net")) == 0o701
    assert os.path.islink(ipnctl.path("link"))


def test_create_in_a_missing_directory_says_so(ipnctl: Ipnctl) -> None:
    ipnctl.run("net", "create", ipnctl.path("no/net")).failed("cannot create", "No such file", "make its directory")


def test_create_without_a_daemon_and_without_autostart_says_how_to_start_one(ipnctl: Ipnctl) -> None:
    ipnctl.daemon.end()
    ipnctl.run("net", "create", ipnctl.path("net")).failed("no ipnd answers", "start one with: ipnd")
    assert not os.path.lexists(ipnctl.path("net"))


@pytest.mark.parametrize(
    "wrong",
    [
        ("--policy", "telepathy"),
        ("--mtu", "0"),
        ("--mtu", "16777217"),
        ("--ports", "0"),
        ("--pool", "many"),
        ("--mode", "0999"),
        ("--mode", "1777"),
        ("--mode", "rwx"),
        ("--group", "no-such-group"),
    ],
)
def test_a_wrong_option_is_wrong_usage(ipnctl: Ipnctl, wrong: tuple[str, str]) -> None:
    ran = ipnctl.run("net", "create", ipnctl.path("net"), *wrong)
    assert (ran.status, ran.out) == (2, b"")
    assert "Error: Invalid value for" in ran.err
    assert wrong[0] in ran.err
    assert not os.path.lexists(ipnctl.path("net"))


# -- list ----------------------------------------------------------------------------------------------------------


def test_list_without_a_daemon_is_empty_and_starts_none(ipnctl: Ipnctl) -> None:
    ipnctl.daemon.end()
    ipnctl.daemon.env["IPN_AUTOSTART"] = "1"
    assert ipnctl.run("net", "list", "--json").ok().json == []
    assert ipnctl.run("net", "list").ok().text.split("\n")[0].startswith("PATH ")
    assert not os.path.exists(ipnctl.daemon.control)


def test_list_gives_every_network_sorted_by_path(ipnctl: Ipnctl) -> None:
    for name in ("b", "a"):
        ipnctl.run("net", "create", ipnctl.path(name)).ok()
    listed = ipnctl.run("net", "list", "--json").ok().json
    assert [entry["path"] for entry in listed] == [ipnctl.path("a"), ipnctl.path("b")]
    assert listed[0].keys() >= NETWORK_FIELDS


def test_the_table_of_networks_has_a_whole_line_for_each_in_a_pipe(ipnctl: Ipnctl) -> None:
    directory = ipnctl.daemon.directory / ("long" * 20)
    directory.mkdir()
    path = str(directory / "net")
    ipnctl.run("net", "create", path, "--mtu", "4000").ok()
    heading, line, *rest = ipnctl.run("net", "list").ok().text.splitlines()
    assert rest == []
    assert heading.split()[:3] == ["PATH", "POLICY", "MODE"]
    assert line.split()[:2] == [path, "broadcast"]
    assert "4000" in line.split()


@requires_root
@requires("setpriv")
def test_list_gives_another_user_only_the_networks_it_has_a_right_on(ipnctl: Ipnctl) -> None:
    ipnctl.run("net", "create", ipnctl.path("private"), "--mode", "0770").ok()
    ipnctl.run("net", "create", ipnctl.path("public"), "--mode", "0774").ok()
    listed = ipnctl.run("net", "list", "--json", prefix=AS_NOBODY).ok().json
    assert [entry["path"] for entry in listed] == [ipnctl.path("public")]


def test_list_tells_a_daemon_that_does_not_answer_from_none(ipnctl: Ipnctl) -> None:
    ipnctl.daemon.end()
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(ipnctl.daemon.control)
        impostor.listen()
        listing = ipnctl.start("net", "list")
        impostor.accept()[0].close()
        ran = listing.end()
    ran.failed("no ipnd answers")


# -- show ----------------------------------------------------------------------------------------------------------


def test_show_gives_one_object_with_the_network_and_its_ports(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network, port=3, descr="a reader", send=False), ipn.connect(network) as sender:
        sender.send(b"12345")
        eventually(lambda: admin.show_network(network)["ports"][1]["tx_frames"])
        shown = ipnctl.run("net", "show", network, "--json").ok().json
    assert shown.keys() >= NETWORK_FIELDS | {"ports"}
    assert (shown["path"], shown["readers"], shown["writers"]) == (network, 2, 1)
    ports = {port["port"]: port for port in shown["ports"]}
    assert all(port.keys() >= PORT_FIELDS for port in shown["ports"])
    assert (ports[0]["rx_frames"], ports[0]["rx_bytes"]) == (1, 5)
    assert (ports[3]["tx_frames"], ports[3]["tx_bytes"], ports[3]["rights"]) == (1, 5, "r")
    assert (ports[3]["description"], ports[3]["pid"], ports[3]["uid"]) == ("a reader", os.getpid(), os.geteuid())


def test_show_prints_a_table_of_the_ports(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network, descr="a reader"):
        lines = ipnctl.run("net", "show", network).ok().text.splitlines()
    heading = next(line for line in lines if line.startswith("PORT"))
    for word in ("KIND", "UID", "PID", "COMMAND", "DESCRIPTION", "RIGHTS", "QUEUE", "SENT", "RECEIVED", "DROPPED"):
        assert word in heading
    assert str(os.getpid()) in lines[-1].split()
    assert "a reader" in lines[-1]


def test_show_says_when_nobody_is_there(ipnctl: Ipnctl, network: str) -> None:
    assert "nobody is on it" in ipnctl.run("net", "show", network).ok().text


def test_show_says_who_holds_up_a_lossless_network(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network, send=False, descr="sleeper"), ipn.connect(network, receive=False) as sender:
        sender.settimeout(0)

        def blocked() -> int:
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(bytes(1514))
            return int(admin.show_network(network)["ports"][0]["blocked_ms"])

        eventually(blocked)
        text = ipnctl.run("net", "show", network).ok().text
    assert "held up most by port 0:" in text
    assert '"sleeper"' in text


def test_a_description_cannot_drive_the_terminal(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network, descr="\x1b[2Jred [bold]"):
        text = ipnctl.run("net", "show", network).ok().text
    assert "\x1b" not in text
    assert "\\x1b[2Jred [bold]" in text


def test_show_finds_a_network_whose_socket_file_was_deleted(ipnctl: Ipnctl, network: str) -> None:
    os.unlink(network)
    assert ipnctl.run("net", "show", network, "--json").ok().json["path"] == network


@pytest.mark.parametrize("command", [("show",), ("delete",), ("resize", "4")])
def test_a_missing_network_is_named_with_what_to_do(ipnctl: Ipnctl, command: tuple[str, ...]) -> None:
    name, *more = command
    path = ipnctl.path("missing")
    ipnctl.run("net", name, path, *more).failed("no network at", path, "ipnctl net list")


def test_what_is_no_network_is_refused_in_one_line(ipnctl: Ipnctl) -> None:
    Path(ipnctl.path("file")).write_text("")
    ipnctl.run("net", "show", ipnctl.path("file")).failed("not a socket")
    ipnctl.run("net", "show", ipnctl.daemon.control).failed("no network at")
    ipnctl.run("net", "show", ipnctl.path("line\nbreak")).failed("no network at")
    ipnctl.run("net", "show", ipnctl.path("file/net")).failed("Not a directory")


@requires_root
@requires("setpriv")
def test_another_user_may_show_with_r_alone_but_not_manage(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--mode", "0774").ok()
    assert ipnctl.run("net", "show", path, "--json", prefix=AS_NOBODY).ok().json["path"] == path
    ipnctl.run("net", "delete", path, prefix=AS_NOBODY).failed("needs its x permission", "chmod")
    ipnctl.run("net", "resize", path, "4", prefix=AS_NOBODY).failed("needs its x permission", "chmod")
    os.chmod(path, 0o770)
    ipnctl.run("net", "show", path, prefix=AS_NOBODY).failed("no permission")
    os.chmod(path, 0o771)
    ipnctl.run("net", "delete", path, prefix=AS_NOBODY).ok()


@requires_root
@requires("setpriv")
def test_a_directory_that_keeps_a_user_out_is_not_bypassed(ipnctl: Ipnctl) -> None:
    closed = ipnctl.daemon.directory / "closed"
    closed.mkdir(mode=0o700)
    path = str(closed / "net")
    ipnctl.run("net", "create", path, "--mode", "0777").ok()
    ipnctl.run("net", "show", path, prefix=AS_NOBODY).failed("Permission denied")
    ipnctl.run("net", "delete", path, prefix=AS_NOBODY).failed("Permission denied")


# -- delete and resize -----------------------------------------------------------------------------------------------


def test_delete_ends_the_network_and_disconnects_its_members(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network, timeout=10) as member:
        assert ipnctl.run("net", "delete", network).ok().out == b""
        assert member.recv() == b""
    assert not os.path.exists(network)
    assert ipnctl.run("net", "list", "--json").ok().json == []


def test_delete_finds_a_network_whose_socket_file_was_deleted(ipnctl: Ipnctl, network: str) -> None:
    os.unlink(network)
    ipnctl.run("net", "delete", network).ok()
    assert admin.list_networks() == []


def test_a_deleted_network_does_not_come_back_with_the_daemon(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.run("net", "delete", network).ok()
    ipnctl.daemon.restart()
    assert ipnctl.run("net", "list", "--json").ok().json == []


def test_a_created_network_outlives_the_daemon_with_mode_and_options(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--mode", "0706", "--mtu", "4000").ok()
    ipnctl.daemon.kill()
    ipnctl.daemon.start()
    shown = ipnctl.run("net", "show", path, "--json").ok().json
    assert (shown["mode"], shown["mtu"], shown["persistent"]) == ("0706", 4000, True)


def test_resize_changes_the_number_of_ports(ipnctl: Ipnctl, network: str) -> None:
    ipnctl.run("net", "resize", network, "64").ok()
    assert admin.show_network(network)["maxports"] == 64


def test_resize_refuses_to_cut_off_a_member(ipnctl: Ipnctl, network: str) -> None:
    with ipn.connect(network, port=9):
        ipnctl.run("net", "resize", network, "9").failed("port 9", "in use", "ipnctl net show")
    assert admin.show_network(network)["maxports"] == 32


@pytest.mark.parametrize("number", ["0", "65537", "some"])
def test_resize_to_no_sensible_number_is_wrong_usage(ipnctl: Ipnctl, network: str, number: str) -> None:
    assert ipnctl.run("net", "resize", network, number).status == 2


def test_two_daemons_do_not_see_each_others_networks(ipnctl: Ipnctl, network: str) -> None:
    other_directory = ipnctl.daemon.directory / "other"
    other_directory.mkdir()
    other = RunningDaemon(other_directory)
    other.start()
    try:
        assert Ipnctl(other).run("net", "list", "--json").ok().json == []
        assert Ipnctl(other).run("net", "show", network, "--json").ok().json["path"] == network
    finally:
        other.close()


def test_create_starts_a_daemon_that_leaves_with_its_last_network(ipnctl: Ipnctl) -> None:
    ipnctl.daemon.end()
    ipnctl.daemon.env["IPN_AUTOSTART"] = "1"
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path).ok()
    try:
        assert [entry["path"] for entry in ipnctl.run("net", "list", "--json").ok().json] == [path]
    finally:
        ipnctl.run("net", "delete", path).ok()
    eventually(lambda: not os.path.exists(ipnctl.daemon.control), 10)
