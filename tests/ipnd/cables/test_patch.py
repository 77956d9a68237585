"""Cables between networks of one daemon: what crosses and what does not, loops, full networks, rights, their life."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ipn
from ipn import admin
from ipn.channel import ControlChannel
from ipn.rendezvous import open_network
from tests.cables import cable_port, comes_up, fixtures_of, goes_down, networks, read, the_cable
from tests.ipnd.cables.recipes import RECIPES, run_recipe
from tests.peers import NOBODY, as_user, requires, requires_root
from tests.running import RunningDaemon
from tests.waiting import eventually


def lay(path: str, to: str) -> None:
    admin.add_fixture(path, "cable", to)


def numbered(count: int, size: int = 1000, name: bytes = b"") -> list[bytes]:
    return [name + b"%08d" % n + bytes(size) for n in range(count)]


def drops(path: str, reason: str) -> int:
    return int(admin.show_network(path)["drops"].get(reason, 0))


def cable_frames(path: str) -> int:
    return sum(int(port["rx_frames"]) for port in admin.show_network(path)["ports"] if port["kind"] == "cable")


def dropped(path: str) -> int:
    return sum(int(port["dropped"]) for port in admin.show_network(path)["ports"])


# -- frames --------------------------------------------------------------------------------------------------------


def test_frames_cross_both_ways_and_do_not_come_back(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    lay(a, b)
    with ipn.connect(a, timeout=5) as here, ipn.connect(b, timeout=5) as there:
        here.send(b"to there")
        assert there.recv() == b"to there"
        there.send(b"to here")
        assert here.recv() == b"to here", "and not its own message before it"
    assert (cable_port(a)["rx_frames"], cable_port(a)["tx_frames"]) == (1, 1)
    assert (cable_port(b)["rx_frames"], cable_port(b)["tx_frames"]) == (1, 1)


def test_a_cable_is_laid_as_the_document_says(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    run_recipe(RECIPES["patch"], ipnd, NET=a, OTHER=b)
    with ipn.connect(a, timeout=5) as here, ipn.connect(b, timeout=5) as there:
        here.send(b"to there")
        assert there.recv() == b"to there"


@pytest.mark.parametrize("lossless", [False, True], ids=["lossy", "lossless"])
def test_batches_arrive_whole_and_in_their_order_over_two_cables(ipnd: RunningDaemon, lossless: bool) -> None:
    a, b, c = networks(ipnd, "a", "b", "c", lossless=lossless, pool=1000)
    lay(a, b)
    lay(b, c)
    messages = [os.urandom(1 + n % 1500) for n in range(1000)]
    with ipn.connect(a, timeout=5) as first, ipn.connect(c, timeout=5) as last:
        first.send_many(messages)
        assert read(last, len(messages)) == messages


def test_networks_of_different_policies_are_joined(ipnd: RunningDaemon) -> None:
    (hub,), (switch,) = networks(ipnd, "hub"), networks(ipnd, "switch", policy="vdeswitch")
    lay(hub, switch)
    broadcast, one, two = b"\xff" * 6, b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
    with (
        ipn.connect(hub, timeout=5) as far,
        ipn.connect(switch, timeout=5) as near,
        ipn.connect(switch, timeout=5) as third,
    ):
        far.send(broadcast + one + b"\x08\0 here I am")
        assert near.recv() == third.recv() == broadcast + one + b"\x08\0 here I am"
        near.send(one + two + b"\x08\0 to the hub alone")
        assert far.recv() == one + two + b"\x08\0 to the hub alone"
        near.send(broadcast + two + b"\x08\0 to all")
        assert third.recv() == broadcast + two + b"\x08\0 to all", "and what went over the cable did not come here"


def test_frames_that_the_other_network_cannot_take_are_counted_and_the_others_cross(ipnd: RunningDaemon) -> None:
    (large,), (small,) = networks(ipnd, "large", mtu=9000), networks(ipnd, "small", mtu=100)
    lay(large, small)
    messages = [b"1" * 100, b"2" * 101, b"3" * 9000, b"4", b"5" * 101]
    with ipn.connect(large, timeout=5) as here, ipn.connect(small, timeout=5) as there:
        here.send_many(messages)
        assert read(there, 2) == [messages[0], messages[3]]
        eventually(lambda: cable_port(small)["oversize"] == 3)
        there.send(b"back")
        assert here.recv() == b"back"
    assert cable_port(large)["oversize"] == 0


# -- loops ---------------------------------------------------------------------------------------------------------


def test_a_frame_in_a_loop_of_three_ends_at_the_hop_limit_and_is_reported(ipnd: RunningDaemon) -> None:
    a, b, c = networks(ipnd, "a", "b", "c", pool=1000)
    for here, there in ((a, b), (b, c), (c, a)):
        lay(here, there)
    with ipn.connect(a, timeout=5) as sender, ipn.connect(b, timeout=5) as listener:
        sender.send(b"round")
        eventually(lambda: sum(drops(path, "hop limit") for path in (a, b, c)) == 2)
        # One way round it comes to b after 1, 4 and 7 cables, the other way after 2, 5 and 8.
        assert read(listener, 6) == [b"round"] * 6
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv()
    assert "came over 8 cables" in ipnd.wait_for_log("may form a loop")
    counted = [cable["counts"] for path in (a, b, c) for cable in fixtures_of(path)]
    assert sum(counts.get("hop limit", 0) for counts in counted) == 2


def test_a_storm_in_a_mesh_of_cables_ends_and_others_are_served_meanwhile(ipnd: RunningDaemon) -> None:
    paths = networks(ipnd, *"abcdef")
    (apart,) = networks(ipnd, "apart")
    before = ipnd.fds()
    for index, path in enumerate(paths):
        for other in paths[:index]:
            lay(path, other)
    with ipn.connect(paths[0]) as sender, ipn.connect(apart) as one, ipn.connect(apart, timeout=5) as two:
        sender.send(bytes(60))
        seen = [-1]
        while (total := cable_frames(paths[0])) != seen[-1] or total == 0:
            seen.append(total)
            one.send(b"ping")
            assert two.recv() == b"ping"
        assert len(set(seen)) > 5, "the storm was still going on"
    eventually(lambda: ipnd.fds() <= before)


# -- full networks -------------------------------------------------------------------------------------------------


def test_a_slow_reader_holds_up_the_sender_behind_two_cables_and_nothing_is_lost(ipnd: RunningDaemon) -> None:
    a, b, c = networks(ipnd, "a", "b", "c", lossless=True)
    lay(a, b)
    lay(b, c)
    messages = numbered(8000)
    with ipn.connect(a, timeout=10) as sender, ipn.connect(c, timeout=10) as reader:
        sending = threading.Thread(target=sender.send_many, args=(messages,))
        sending.start()
        eventually(lambda: admin.show_network(a)["pending"] == 8)
        assert sending.is_alive()
        assert read(reader, len(messages)) == messages
        sending.join(10)
    assert [dropped(path) for path in (a, b, c)] == [0, 0, 0]


def test_many_short_batches_that_had_to_wait_in_the_cable_all_arrive(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b", lossless=True, mtu=30_000)
    lay(a, b)
    sent: list[bytes] = []
    with ipn.connect(a, timeout=10) as sender, ipn.connect(b, timeout=10) as reader:

        def send(message: bytes) -> None:
            sender.send(message)
            sent.append(message)
            eventually(lambda: cable_port(a)["tx_frames"] == len(sent))

        while admin.show_network(b)["pending"] < 8:
            send(bytes(1500) * 20)
        for number in range(200):
            send(b"%08d" % number)
        assert read(reader, len(sent)) == sent


def test_traffic_both_ways_between_full_lossless_networks_goes_on(ipnd: RunningDaemon) -> None:
    # A network full of what waits for the cable must still take what comes over it; else both would wait for ever.
    a, b = networks(ipnd, "a", "b", policy="vdeswitch", lossless=True, pool=2)
    lay(a, b)
    macs = {"from a": b"\2\0\0\0\0\1", "from b": b"\2\0\0\0\0\2", "to a": b"\2\0\0\0\0\3", "to b": b"\2\0\0\0\0\4"}
    members = {name: ipn.connect(a if "a" in name else b, packet="to" in name, timeout=10) for name in macs}
    for name, member in members.items():
        member.send(b"\xff" * 6 + macs[name] + b"\x08\0 here I am")
        others = [other for other in members if other != name]
        assert [members[other].recv()[6:12] for other in others] == [macs[name]] * len(others)

    count, heard = 3000, {"to a": 0, "to b": 0}

    def send(name: str, to: str) -> None:
        members[name].send_many([macs[to] + macs[name] + b"\x08\0" + message for message in numbered(count)])

    def receive(name: str) -> None:
        for number in range(count):
            assert members[name].recv()[14:22] == b"%08d" % number
            heard[name] += 1

    flows = [threading.Thread(target=send, args=flow) for flow in (("from a", "to b"), ("from b", "to a"))]
    for flow in flows:
        flow.start()
    eventually(lambda: all(admin.show_network(path)["pending"] >= 2 for path in (a, b)))
    readers = [threading.Thread(target=receive, args=(name,)) for name in heard]
    for reader in readers:
        reader.start()
    for thread in readers + flows:
        thread.join(20)
    assert heard == {"to a": count, "to b": count}
    for member in members.values():
        member.close()
    eventually(lambda: [admin.show_network(path)["pending"] for path in (a, b)] == [0, 0])


def test_a_stuck_member_of_a_lossy_network_costs_the_lossless_one_nothing(ipnd: RunningDaemon) -> None:
    (a,), (b,) = networks(ipnd, "a", lossless=True), networks(ipnd, "b")
    lay(a, b)
    messages = numbered(8000)
    with ipn.connect(a, timeout=10) as sender, ipn.connect(a, timeout=10) as near, ipn.connect(b) as stuck:
        sending = threading.Thread(target=sender.send_many, args=(messages,))
        sending.start()
        assert read(near, len(messages)) == messages
        sending.join(10)
        lost = next(p for p in admin.show_network(b)["ports"] if p["port"] == stuck.port)
        assert lost["dropped"] > 0
        eventually(lambda: admin.show_network(a)["pending"] == 0)


def test_a_stuck_member_of_a_lossless_network_makes_a_lossy_one_lose_no_more_than_its_own(ipnd: RunningDaemon) -> None:
    (a,), (b,) = networks(ipnd, "a"), networks(ipnd, "b", lossless=True)
    lay(a, b)
    with ipn.connect(a, timeout=10) as sender, ipn.connect(a, timeout=10) as near, ipn.connect(b):
        for start in range(0, 8000, 100):  # as fast as it is heard, so that the neighbour loses nothing by itself
            messages = numbered(100, name=b"%d " % start)
            sender.send_many(messages)
            assert read(near, 100) == messages
    assert cable_port(a)["dropped"] > 0
    assert cable_port(a)["queued"] <= 8


# -- rights --------------------------------------------------------------------------------------------------------

CABLE_AS = "import sys; from ipn import admin; admin.{}_fixture(sys.argv[1], 'cable', sys.argv[2])"


def ends_with(ipnd: RunningDaemon, call: str, path: str, to: str) -> str:
    """Lay or remove a cable as nobody; return the last word of what that says."""
    command = [*as_user(NOBODY), sys.executable, "-c", CABLE_AS.format(call), path, to]
    ended = subprocess.run(command, capture_output=True, text=True, env=ipnd.env, cwd="/", timeout=20, check=False)
    return ended.stderr.strip().splitlines()[-1] if ended.returncode else ""


@requires("setpriv")
@requires_root
def test_what_the_rights_on_the_other_network_do_not_permit_does_not_cross(ipnd: RunningDaemon) -> None:
    for mode in (0o004, 0o002, 0o006):
        (a,), (b,) = networks(ipnd, f"a{mode}", mode=0o777), networks(ipnd, f"b{mode}", mode=mode)
        assert ends_with(ipnd, "add", a, b) == ""
        assert the_cable(a)["uid"] == NOBODY
        with ipn.connect(a, timeout=5) as here, ipn.connect(b, timeout=5) as there, ipn.connect(b) as beside:
            here.send(b"in")
            eventually(lambda a=a: cable_port(a)["tx_frames"] + cable_port(a)["dropped"] == 1)
            beside.send(b"out")
            assert read(there, 2 if mode & 2 else 1) == ([b"in", b"out"] if mode & 2 else [b"out"])
            if mode & 4:
                assert here.recv() == b"out"
            assert (cable_port(a)["dropped"], cable_port(a)["rx_frames"]) == (not mode & 2, bool(mode & 4))


@requires("setpriv")
@requires_root
def test_a_cable_needs_x_here_and_r_or_w_there(ipnd: RunningDaemon) -> None:
    (mine,), (shut,), (listen_only,) = (
        networks(ipnd, "mine", mode=0o777), networks(ipnd, "shut", mode=0o771), networks(ipnd, "ro", mode=0o774),
    )
    assert "[Errno 13]" in ends_with(ipnd, "add", mine, shut)
    assert "[Errno 1]" in ends_with(ipnd, "add", listen_only, mine)
    assert [fixtures_of(path) for path in (mine, shut, listen_only)] == [[], [], []]
    assert admin.show_network(mine)["members"] == 0
    lay(listen_only, mine)
    assert "[Errno 1]" in ends_with(ipnd, "remove", listen_only, mine)
    comes_up(listen_only)


@requires("setpriv")
@requires_root
def test_a_network_in_a_directory_that_keeps_the_user_out_cannot_be_joined_by_a_cable(ipnd: RunningDaemon) -> None:
    private = Path(ipnd.path("private"))
    private.mkdir(mode=0o700)
    mine, theirs = networks(ipnd, "mine", "private/net", mode=0o777)
    assert "[Errno 2]" in ends_with(ipnd, "add", mine, theirs)
    private.chmod(0o711)
    assert ends_with(ipnd, "add", mine, theirs) == ""


# -- coming and going ----------------------------------------------------------------------------------------------


def test_a_cable_is_down_while_the_other_network_is_gone_and_up_when_it_is_there_again(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    lay(a, b)
    for _ in range(3):
        admin.delete_network(b)
        assert b in goes_down(a)["problem"]
        assert admin.show_network(a)["members"] == 0
        networks(ipnd, "b")
        comes_up(a)
    with ipn.connect(a) as here, ipn.connect(b, timeout=5) as there:
        here.send(b"again")
        assert there.recv() == b"again"
    ipnd.wait_for_log(f"the cable to {b} is down")


def test_the_end_of_its_own_network_ends_a_cable(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    lay(a, b)
    admin.delete_network(a)
    assert admin.show_network(b)["members"] == 0
    networks(ipnd, "a")
    assert (fixtures_of(a), admin.show_network(b)["members"]) == ([], 0)


def test_a_cable_keeps_no_network_alive(ipnd: RunningDaemon) -> None:
    (a,), b = networks(ipnd, "a"), ipnd.path("b")
    with ipn.bind(b):
        lay(a, b)
    goes_down(a)
    assert not os.path.exists(b)


def test_removed_a_cable_is_gone_from_both_networks(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    lay(a, b)
    admin.remove_fixture(a, "cable", b)
    assert fixtures_of(a) == []
    assert [admin.show_network(path)["members"] for path in (a, b)] == [0, 0]
    networks(ipnd, "c")  # that a network comes lays no cable that was removed
    assert [admin.show_network(path)["members"] for path in (a, b)] == [0, 0]


def test_removing_a_full_cable_lets_the_senders_go_on(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b", lossless=True)
    lay(a, b)
    messages = numbered(8000)
    with ipn.connect(a, timeout=10) as sender, ipn.connect(b):
        sending = threading.Thread(target=sender.send_many, args=(messages,))
        sending.start()
        eventually(lambda: admin.show_network(a)["pending"] == 8)
        admin.remove_fixture(a, "cable", b)
        sending.join(10)
        assert not sending.is_alive()
        eventually(lambda: admin.show_network(a)["pending"] == 0)


def test_when_one_end_is_put_out_of_its_network_the_cable_is_laid_anew(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    with ipn.connect(a) as here, ipn.connect(b, timeout=5) as there:
        lay(a, b)
        assert cable_port(b)["port"] == 1
        admin.add_gateway(b, "vde", ipnd.path("vde"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
            console.connect(ipnd.path("vde.mgmt"))
            console.sendall(b"port/epclose 1\n")
            ipnd.wait_for_log(f"the cable to {b} is up")
        here.send(b"again")
        assert there.recv() == b"again"


def test_a_full_network_refuses_a_cable_and_nothing_is_left_on_the_other(ipnd: RunningDaemon) -> None:
    (a,), (b,) = networks(ipnd, "a"), networks(ipnd, "b", ports=1)
    with ipn.connect(b):
        with pytest.raises(OSError, match="in use") as refused:
            lay(a, b)
        assert refused.value.errno == errno.EADDRNOTAVAIL
        assert admin.show_network(a)["members"] == 0
    lay(a, b)


def test_laying_and_removing_cables_leaves_no_descriptor_open(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    before = ipnd.fds()
    for _ in range(20):
        lay(a, b)
        admin.remove_fixture(a, "cable", b)
    eventually(lambda: ipnd.fds() <= before)


# -- what makes no sense -------------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_and_nothing_has_changed(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    Path(ipnd.path("file")).touch()
    refusals = {
        a: errno.EINVAL, os.path.relpath(b, "/"): errno.EINVAL, "nowhere://b": errno.EINVAL,
        ipnd.path("nothing"): errno.ENOENT, ipnd.path("file"): errno.ENOENT, "/": errno.ENOENT,
    }  # fmt: skip
    for address, number in refusals.items():
        with pytest.raises(OSError, match=re.escape(address)) as refused:
            lay(a, address)
        assert refused.value.errno == number, address
    with pytest.raises(OSError, match="no option 'colour'") as refused:
        admin.add_fixture(a, "cable", b, colour="red")
    assert refused.value.errno == errno.EINVAL
    assert fixtures_of(a) == []


def test_two_networks_are_joined_by_one_cable_only(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    lay(a, b)
    for path, to in ((a, b), (b, a)):
        with pytest.raises(FileExistsError):
            lay(path, to)
    os.rename(b, b + "2")
    with pytest.raises(FileExistsError):
        lay(a, b + "2")
    assert admin.show_network(a)["members"] == 1


def test_a_renamed_network_gives_way_to_one_that_now_has_its_path(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    os.rename(b, b + "2")
    networks(ipnd, "b")
    lay(a, b)
    assert [admin.show_network(path)["members"] for path in (b, b + "2")] == [1, 0]


def test_who_monitors_hears_of_cables(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    channel: ControlChannel = open_network(a)
    try:
        channel.request("monitor")
        lay(a, b)
        admin.remove_fixture(a, "cable", b)
        states = []
        while len(states) < 2:
            notice = channel.wait_notice(5)
            assert notice is not None
            if notice["event"] == "fixture":
                states.append((notice["kind"], notice["address"], notice["state"]))
        assert states == [("cable", b, "up"), ("cable", b, "removed")]
    finally:
        channel.close()
