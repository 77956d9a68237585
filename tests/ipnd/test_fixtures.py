"""What is fixed to a network: added and removed, kept over the daemon's end, and there again at the next start."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import attrs
import pytest

import ipn
from ipn import admin
from ipnd.fixture import SavedFixture
from ipnd.state import load
from tests.cables import comes_up, fixtures_of, goes_down, networks, the_cable
from tests.ipnd.test_state import ENTRY
from tests.running import RunningDaemon
from tests.waiting import eventually

SAVED = SavedFixture("cable", "/tmp/b", {}, 0, 0)


def fix_all(ipnd: RunningDaemon, path: str, other: str) -> list[tuple[str, str]]:
    """Fix one of several kinds to a network; return them as (kind, address)."""
    wanted = [(kind, ipnd.path(kind)) for kind in ("vde", "dgram", "seqpacket")]
    for kind, address in wanted:
        admin.add_gateway(path, kind, address)
    admin.add_fixture(path, "cable", other)
    return [*wanted, ("cable", other)]


def stands(path: str) -> list[tuple[str, str, str]]:
    return [(fixture["kind"], fixture["address"], fixture["state"]) for fixture in fixtures_of(path)]


def state_file(ipnd: RunningDaemon) -> Path:
    return Path(ipnd.control + ".state.json")


# -- over the daemon's end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_a_persistent_network_has_its_fixtures_again_when_the_daemon_restarts(
    ipnd: RunningDaemon, killed: bool
) -> None:
    b, a = networks(ipnd, "b", "a")
    there = fix_all(ipnd, a, b)
    for _ in range(2):
        if killed:
            ipnd.kill()
        ipnd.restart()
        assert stands(a) == [(kind, address, "up") for kind, address in there]
    with ipn.connect(b, timeout=5) as far, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as near:
        near.connect(ipnd.path("seqpacket"))
        near.send(b"over both")
        assert far.recv() == b"over both"
    assert [fixture["uid"] for fixture in fixtures_of(a)] == [os.geteuid()] * len(there)


def test_what_was_removed_stays_removed_and_leaves_no_files(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    before = set(os.listdir(ipnd.directory)) | {"control.state.json"}
    for kind, address in fix_all(ipnd, a, b):
        admin.remove_fixture(a, kind, address)
    assert set(os.listdir(ipnd.directory)) == before
    ipnd.kill()
    ipnd.restart()
    assert fixtures_of(a) == []


def test_the_end_of_a_network_is_that_of_its_fixtures(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    before, fds = set(os.listdir(ipnd.directory)) - {"a"}, ipnd.fds()
    fix_all(ipnd, a, b)
    admin.delete_network(a)
    assert set(os.listdir(ipnd.directory)) == before
    eventually(lambda: ipnd.fds() <= fds)


def test_one_that_cannot_be_had_again_is_logged_shown_as_missing_and_kept(ipnd: RunningDaemon) -> None:
    (a,), address = networks(ipnd, "a"), ipnd.path("door")
    admin.add_gateway(a, "seqpacket", address)
    ipnd.end()
    Path(address).write_text("precious")
    ipnd.start()
    ipnd.wait_for_log(f"the seqpacket {address} cannot be had again")
    assert stands(a) == [("seqpacket", address, "missing")]
    admin.add_gateway(a, "dgram", ipnd.path("another"))  # what is saved now still has the missing one
    assert Path(address).read_text() == "precious"
    Path(address).unlink()
    ipnd.restart()
    assert set(stands(a)) == {("seqpacket", address, "up"), ("dgram", ipnd.path("another"), "up")}


def test_a_missing_one_can_be_removed_or_added_anew(ipnd: RunningDaemon) -> None:
    (a,), doors = networks(ipnd, "a"), [ipnd.path("one"), ipnd.path("two")]
    for door in doors:
        admin.add_gateway(a, "seqpacket", door)
    ipnd.end()
    for door in doors:
        Path(door).touch()
    ipnd.start()
    assert [state for _, _, state in stands(a)] == ["missing"] * 2
    Path(doors[0]).unlink()
    admin.add_gateway(a, "seqpacket", doors[0])
    admin.remove_gateway(a, "seqpacket", doors[1])
    assert stands(a) == [("seqpacket", doors[0], "up")]
    assert [saved.fixtures for saved in load(state_file(ipnd))] == [
        [SavedFixture("seqpacket", doors[0], {}, os.geteuid(), os.getegid())]
    ]


def test_a_cable_waits_for_a_network_that_comes_later_than_the_daemon(ipnd: RunningDaemon) -> None:
    (a,), b = networks(ipnd, "a"), ipnd.path("b")
    with ipn.bind(b):
        admin.add_fixture(a, "cable", b)
        ipnd.kill()
    ipnd.restart()
    assert b in goes_down(a)["problem"]
    with ipn.bind(b):
        comes_up(a)
    goes_down(a)
    admin.remove_fixture(a, "cable", b)
    assert fixtures_of(a) == []


def test_fixtures_of_a_network_that_is_not_persistent_are_not_kept(ipnd: RunningDaemon) -> None:
    path, address = ipnd.path("net"), ipnd.path("door")
    with ipn.bind(path):
        admin.add_gateway(path, "seqpacket", address)
        assert not state_file(ipnd).exists() or "seqpacket" not in state_file(ipnd).read_text()
    eventually(lambda: not os.path.exists(address))


# -- refusals ------------------------------------------------------------------------------------------------------


def refusal(*arguments: Any, **options: Any) -> OSError:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - what it is, is asserted by who calls
        admin.add_fixture(*arguments, **options)
    return refused.value


def test_what_makes_no_sense_is_refused_with_a_sentence(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    for kind in ("", "teleport", "CABLE", "gateway"):
        assert refusal(a, kind, b).errno == errno.EINVAL
    unknown = refusal(a, "seqpacket", ipnd.path("door"), colour="red")
    assert (unknown.errno, "no option 'colour'" in str(unknown)) == (errno.EINVAL, True)
    assert refusal(a, "seqpacket", "relative").errno == errno.EINVAL
    assert refusal(a, "x" * 17, b).errno == errno.EINVAL
    assert fixtures_of(a) == []
    assert not os.path.exists(ipnd.path("door"))


def test_options_that_are_no_object_and_fields_of_the_wrong_type_are_refused(ipnd: RunningDaemon) -> None:
    (a,) = networks(ipnd, "a")
    with ipn.bind(a) as net:
        channel = net._channel
        assert channel is not None
        for wrong in ({"options": []}, {"options": None}, {"kind": 1}, {"kind": None}, {"address": 7}):
            with pytest.raises(OSError, match="add") as refused:
                channel.request("add", **{"kind": "seqpacket", "address": ipnd.path("door"), **wrong})
            assert refused.value.errno == errno.EINVAL
    assert fixtures_of(a) == []


def test_what_is_there_already_is_refused_and_what_is_not_there_cannot_be_removed(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    for kind, address in fix_all(ipnd, a, b):
        assert refusal(a, kind, address).errno == errno.EEXIST
    assert len(fixtures_of(a)) == 4
    for kind in ("vde", "dgram", "seqpacket", "cable"):
        with pytest.raises(FileNotFoundError):
            admin.remove_fixture(a, kind, ipnd.path("nothing"))
    with pytest.raises(OSError, match="kind") as refused:
        admin.remove_fixture(a, "teleport", b)
    assert refused.value.errno == errno.EINVAL


def test_a_network_is_made_with_all_its_gateways_or_not_at_all(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    Path(ipnd.path("taken")).touch()
    with pytest.raises(OSError, match="taken"):
        admin.create_network(path, gateways=[("seqpacket", ipnd.path("door")), ("dgram", ipnd.path("taken"))])
    assert [os.path.exists(ipnd.path(name)) for name in ("net", "door", "taken")] == [False, False, True]


# -- the state file ------------------------------------------------------------------------------------------------

BROKEN = {
    "no object": "7",
    "no fields": "{}",
    "a field too many": json.dumps({**attrs.asdict(SAVED), "colour": "red"}),
    "options that are a list": json.dumps({**attrs.asdict(SAVED), "options": []}),
    "an address that is a number": json.dumps({**attrs.asdict(SAVED), "address": 7}),
    "a user that is true": json.dumps({**attrs.asdict(SAVED), "uid": True}),
}


def state_with(path: Path, fixture: str) -> Path:
    path.write_text(f'{{"version": 1, "networks": [{ENTRY[:-1]}, "fixtures": [{fixture}]}}]}}')
    return path


def test_a_sound_entry_of_the_state_file_is_read(tmp_path: Path) -> None:
    (network,) = load(state_with(tmp_path / "state.json", json.dumps(attrs.asdict(SAVED))))
    assert network.fixtures == [SAVED]


@pytest.mark.parametrize("entry", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_entry_puts_the_state_file_aside(tmp_path: Path, entry: str) -> None:
    path = state_with(tmp_path / "state.json", entry)
    assert load(path) == []
    assert (tmp_path / "state.json.unreadable").exists()


def test_a_kind_that_this_daemon_does_not_have_is_missing_and_can_be_removed(ipnd: RunningDaemon) -> None:
    a, b = networks(ipnd, "a", "b")
    admin.add_fixture(a, "cable", b)
    ipnd.end()
    state = state_file(ipnd)
    state.write_text(state.read_text().replace('"cable"', '"teleport"'))
    ipnd.start()
    assert (the_cable(a)["kind"], the_cable(a)["state"]) == ("teleport", "missing")
    admin.remove_fixture(a, "teleport", b)
    assert fixtures_of(a) == []
