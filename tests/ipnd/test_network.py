"""Lifetime, persistence and naming of networks; autostart and the end of the daemon."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ipn
from ipn.rendezvous import open_daemon, open_network
from tests.peers import requires_root
from tests.raw import RawMember
from tests.running import RunningDaemon, clean_environment
from tests.waiting import eventually


def networks() -> list[str]:
    channel = open_daemon()
    listed = [entry["path"] for entry in channel.request("list")[0]]
    channel.close()
    return listed


def show(path: str) -> dict[str, object]:
    channel = open_network(path)
    shown: dict[str, object] = channel.request("show")[0]
    channel.close()
    return shown


def delete(path: str) -> None:
    channel = open_network(path)
    channel.request("delete")
    channel.close()


# -- lifetime ------------------------------------------------------------------------------------------------------


def test_a_network_ends_with_its_last_socket_and_its_file_goes(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path) as net, ipn.connect(path):
        net.close()
        assert networks() == [path]
    eventually(lambda: not networks())
    assert not os.path.exists(path)


def test_a_raw_member_keeps_a_network_alive(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    net = ipn.bind(path)
    raw = RawMember(path)
    eventually(lambda: show(path)["members"] == 1)
    net.close()
    with ipn.connect(path) as other:
        raw.send_frame(b"alive")
        assert other.recv() == b"alive"
    raw.sock.close()
    eventually(lambda: not os.path.exists(path))


def test_a_persistent_network_outlives_its_sockets_until_it_is_deleted(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    ipn.bind(path, persistent=True).close()
    eventually(lambda: show(path)["members"] == 0)
    with ipn.connect(path, timeout=5) as member:
        delete(path)
        assert member.recv() == b""
    assert not os.path.exists(path)
    assert networks() == []


def test_killing_a_member_takes_it_off_the_network(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path) as net:
        code = f"import ipn, time; n = ipn.connect({path!r}); print('in', flush=True); time.sleep(60)"
        member = subprocess.Popen([sys.executable, "-c", code], env=ipnd.env, stdout=subprocess.PIPE)
        assert member.stdout is not None
        member.stdout.readline()
        assert net.show()["ports"][0]["pid"] == member.pid
        member.kill()
        member.communicate()
        eventually(lambda: net.show()["members"] == 0)


# -- names ---------------------------------------------------------------------------------------------------------


def test_the_socket_file_gets_the_mode_asked_for_less_the_umask(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    old = os.umask(0o027)
    try:
        with ipn.bind(path, mode=0o777) as net:
            assert os.stat(path).st_mode & 0o777 == 0o750
            assert net.show()["mode"] == "0750"
    finally:
        os.umask(old)


def test_chmod_and_rename_of_a_live_network_are_followed(ipnd: RunningDaemon) -> None:
    path, moved = ipnd.path("net"), ipnd.path("moved")
    with ipn.bind(path) as net:
        os.chmod(path, 0o640)
        assert net.show()["mode"] == "0640"
        os.rename(path, moved)
        assert net.show()["path"] == moved
        with ipn.connect(moved) as member:
            assert member.show()["members"] == 1
    eventually(lambda: not os.path.exists(moved))


def test_a_stale_socket_file_is_made_anew_by_its_owner(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    net = ipn.bind(path)
    ipnd.kill()
    net.close()
    assert os.path.exists(path)
    ipnd.start()
    with ipn.bind(path) as again, ipn.connect(path):
        assert again.show()["members"] == 1


# -- persistence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_persistent_networks_survive_the_daemon(ipnd: RunningDaemon, how: str) -> None:
    path = ipnd.path("net")
    ipn.bind(path, mtu=9000, ports=7, pool=3, lossless=True, persistent=True).close()
    ipn.bind(ipnd.path("gone")).close()
    os.chmod(path, 0o764)
    if how == "SIGKILL":
        ipnd.kill()
        ipnd.start()
    else:
        ipnd.restart()
    shown = show(path)
    wanted = {"mtu": 9000, "maxports": 7, "pool": 3, "lossless": True, "persistent": True, "mode": "0764"}
    assert {name: shown[name] for name in wanted} == wanted
    assert networks() == [path]
    with ipn.connect(path) as a, ipn.connect(path) as b:
        a.send(b"again")
        assert b.recv() == b"again"


def test_deleted_networks_stay_deleted_and_resized_ones_resized(ipnd: RunningDaemon) -> None:
    kept, gone = ipnd.path("kept"), ipnd.path("gone")
    ipn.bind(kept, persistent=True).close()
    ipn.bind(gone, persistent=True).close()
    delete(gone)
    channel = open_network(kept)
    channel.request("resize", maxports=99)
    channel.close()
    ipnd.kill()
    ipnd.start()
    assert networks() == [kept]
    assert show(kept)["maxports"] == 99


def test_a_file_in_the_way_of_a_persistent_network_is_left_alone_and_reported(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    ipn.bind(path, persistent=True).close()
    ipnd.kill()
    os.unlink(path)
    Path(path).write_text("precious")
    ipnd.start()
    ipnd.wait_for_log("cannot be made again")
    assert Path(path).read_text() == "precious"
    os.unlink(path)
    ipnd.restart()
    assert networks() == [path]


@requires_root
def test_a_root_daemon_makes_a_users_network_again_as_that_user(ipnd: RunningDaemon) -> None:
    home = ipnd.directory / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    path = str(home / "net")
    code = f"import ipn; ipn.bind({path!r}, persistent=True)"
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
    subprocess.run(as_nobody, env=ipnd.env, check=True, cwd="/")
    assert os.stat(path).st_uid == 65534
    ipnd.kill()
    ipnd.start()
    info = os.stat(path)
    assert (info.st_uid, info.st_gid) == (65534, 65534)
    assert show(path)["uid"] == 65534
    delete(path)
    assert not os.path.exists(path)


@requires_root
def test_a_root_daemon_is_not_led_out_of_a_users_directory(ipnd: RunningDaemon) -> None:
    """The owner swaps the directory for a link to one of root's: the file of that name there must survive."""
    home, secret = ipnd.directory / "home", ipnd.directory / "secret"
    home.mkdir()
    secret.mkdir()
    os.chown(home, 65534, 65534)
    path = str(home / "net")
    code = f"import ipn; ipn.bind({path!r}, persistent=True)"
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
    subprocess.run(as_nobody, env=ipnd.env, check=True, cwd="/")
    ipnd.kill()
    os.unlink(path)
    home.rmdir()
    home.symlink_to(secret)
    ipnd.start()
    ipnd.wait_for_log("cannot be made again")
    assert list(secret.iterdir()) == []


@requires_root
def test_networks_in_a_private_directory_are_not_shown_nor_given_to_others(ipnd: RunningDaemon) -> None:
    """The control socket of a system daemon is everybody's; a path must not lead there where a directory forbids."""
    private = ipnd.directory / "private"
    private.mkdir(mode=0o700)
    path = str(private / "net")
    with ipn.bind(path) as net:
        assert int(str(net.show()["mode"]), 8) & 0o5 == 0o5, "the file alone would allow it"
        ask = "c = open_daemon(); print(c.request('list')[0], flush=True)"
        code = f"from ipn.rendezvous import open_daemon; {ask}; c.request('delete', path={path!r})"
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
        done = subprocess.run(as_nobody, env=ipnd.env, cwd="/", capture_output=True, text=True, check=False)
        assert done.stdout == "[]\n"
        assert "FileNotFoundError" in done.stderr
        assert networks() == [path]


def test_a_network_whose_file_was_deleted_can_still_be_ended_by_its_owner(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    ipn.bind(path, mode=0o660, persistent=True).close()
    os.unlink(path)
    channel = open_daemon()
    channel.request("delete", path=path)
    channel.close()
    assert networks() == []


def test_who_watches_and_leaves_while_members_come_and_go_harms_nobody(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path):
        for _ in range(100):
            watcher = open_network(path)
            watcher.request("monitor")
            member = ipn.connect(path)
            watcher.close()
            member.close()
        assert show(path)["members"] in (0, 1)


# -- autostart -----------------------------------------------------------------------------------------------------

BIND_AND_SAY = """
import ipn, sys
with ipn.bind(sys.argv[1]) as net:
    net.connect()
    print(net.show()["members"], flush=True)
    sys.stdin.readline()
"""


def environment_without_daemon(directory: Path) -> dict[str, str]:
    environment = clean_environment(str(directory / "run" / "control"))
    environment["IPN_AUTOSTART"] = "1"
    return environment


def daemon_pids(directory: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", str(directory / "run" / "control")], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def test_the_first_bind_starts_a_daemon_which_leaves_with_the_last_network(short_directory: Path) -> None:
    environment = environment_without_daemon(short_directory)
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", BIND_AND_SAY, str(short_directory / f"net{n}")],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for n in range(4)
    ]
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "1\n"
    assert len(daemon_pids(short_directory)) == 1
    for program in programs:
        program.communicate("\n")
        assert program.returncode == 0
    eventually(lambda: not daemon_pids(short_directory))
    assert not (short_directory / "run" / "control").exists()
    assert not (short_directory / "net0").exists()


def test_autostart_can_be_turned_off(short_directory: Path) -> None:
    environment = {**environment_without_daemon(short_directory), "IPN_AUTOSTART": "0"}
    code = f"import ipn, sys\ntry: ipn.bind({str(short_directory / 'net')!r})\nexcept OSError as e: sys.exit(e.errno)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == errno.ECONNREFUSED
    assert daemon_pids(short_directory) == []
    assert not (short_directory / "net").exists()


def test_a_daemon_that_was_started_with_signals_blocked_ends_on_sigterm_nevertheless(short_directory: Path) -> None:
    code = f"import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n{BIND_AND_SAY}"
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(short_directory / "net")],
        env=environment_without_daemon(short_directory), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "1\n"
        (daemon,) = daemon_pids(short_directory)
        os.kill(daemon, signal.SIGTERM)
        eventually(lambda: not (short_directory / "run" / "control").exists())


def test_connect_never_starts_a_daemon(short_directory: Path) -> None:
    path = str(short_directory / "net")
    code = f"import ipn, sys\ntry: ipn.connect({path!r})\nexcept OSError as e: sys.exit(e.errno)"
    environment = environment_without_daemon(short_directory)
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == errno.ENOENT
    assert daemon_pids(short_directory) == []


# -- the daemon ----------------------------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_socket_says_so_and_ends(ipnd: RunningDaemon) -> None:
    command = [sys.executable, "-m", "ipnd", "--control", ipnd.control]
    second = subprocess.run(command, env=ipnd.env, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 75
    assert "already serves" in second.stderr
    assert networks() == []


def test_sigterm_ends_networks_and_removes_what_is_not_persistent(ipnd: RunningDaemon) -> None:
    path, kept = ipnd.path("net"), ipnd.path("kept")
    ipn.bind(kept, persistent=True).close()
    with ipn.bind(path), ipn.connect(path, timeout=5) as member:
        ipnd.end()
        assert member.recv() == b""
    assert not os.path.exists(path)
    assert not os.path.exists(ipnd.control)
    assert os.path.exists(kept)
    ipnd.start()


def test_the_state_file_is_json_with_what_was_created(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    ipn.bind(path, mtu=1234, persistent=True).close()
    saved = json.loads(Path(ipnd.control + ".state.json").read_text())
    assert [(n["path"], n["mtu"]) for n in saved["networks"]] == [(path, 1234)]


def test_sigint_ends_it_too(ipnd: RunningDaemon) -> None:
    ipnd.process.send_signal(signal.SIGINT)
    assert ipnd.process.wait(5) == 0
    ipnd.kill()
    ipnd.start()
