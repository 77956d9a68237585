"""Trying again: the pauses by a clock that jumps; the programs are real processes."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import pwd
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ipnd.access import Peer
from ipnd.supervisor import LONGEST_PAUSE, SETTLED, SHORTEST_PAUSE, Child, keep_trying, process_arguments
from tests.peers import NOBODY, requires, requires_root
from tests.waiting import eventually

OURSELVES = Peer(os.getpid(), os.geteuid(), os.getegid(), frozenset(os.getgroups()), "test")
STRANGER = Peer(1, NOBODY, NOBODY, frozenset({NOBODY}), "stranger")


async def times_of_attempts(count: int, lasting: Callable[[int], float] | None = None) -> list[float]:
    """Return when each of ``count`` attempts began; ``lasting``: it was up, for so long."""
    begun: list[float] = []

    async def attempt(up: Callable[[], None]) -> str:
        begun.append(trio.current_time())
        if len(begun) == count:
            scope.cancel()
        if lasting is not None:
            up()
            await trio.sleep(lasting(len(begun)))
        return "no luck"

    with trio.CancelScope() as scope:
        await keep_trying("the thing", attempt, lambda state, problem: None)
    return begun


def between(times: list[float]) -> list[float]:
    return [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]


async def test_the_pauses_double_up_to_the_longest(autojump_clock: MockClock) -> None:
    pauses = between(await times_of_attempts(10))
    assert pauses == [SHORTEST_PAUSE * 2**n for n in range(7)] + [LONGEST_PAUSE] * 2


async def test_what_was_up_for_long_is_tried_again_soon(autojump_clock: MockClock) -> None:
    def lasting(number: int) -> float:
        return SETTLED if number == 4 else 1.0

    pauses = [gap - lasting(n + 1) for n, gap in enumerate(between(await times_of_attempts(6, lasting)))]
    assert pauses == [0.25, 0.5, 1.0, 0.25, 0.5]


async def test_who_asks_is_told_of_each_state_and_of_the_last_problem(autojump_clock: MockClock) -> None:
    states: list[tuple[str, str]] = []

    async def attempt(up: Callable[[], None]) -> str:
        if len(states) == 1:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody is there")
        up()
        return "it has gone"

    def on_state(state: str, problem: str) -> None:
        states.append((state, problem))
        if len(states) == 6:
            scope.cancel()

    with trio.CancelScope() as scope:
        await keep_trying("the thing", attempt, on_state)
    assert states[:6] == [
        ("connecting", ""), ("waiting", "nobody is there"),
        ("connecting", "nobody is there"), ("up", ""), ("waiting", "it has gone"),
        ("connecting", "it has gone"),
    ]  # fmt: skip


async def test_many_failures_of_the_same_kind_are_one_line_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = iter(["this", "this", "this", "that", "that", "up", "that", "that"])

    async def attempt(up: Callable[[], None]) -> str:
        reason = next(reasons, None)
        if reason is None:
            scope.cancel()
        if reason == "up":
            up()
        return {"up": "that"}.get(reason or "", reason or "that")

    with caplog.at_level(logging.INFO, "ipnd.supervisor"), trio.CancelScope() as scope:
        await keep_trying("the thing", attempt, lambda state, problem: None)
    again = "; it is tried again"
    assert caplog.messages == [
        f"the thing: this{again}", f"the thing: that{again}", "the thing: up", f"the thing: that{again}"
    ]


async def test_a_bug_is_not_tried_again(autojump_clock: MockClock) -> None:
    async def attempt(up: Callable[[], None]) -> str:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await keep_trying("the thing", attempt, lambda state, problem: None)


# -- programs --------------------------------------------------------------------------------------------------------


def sh(script: str, peer: Peer = OURSELVES, **more: object) -> Child:
    return Child(["sh", "-c", script], peer, **more)  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one of which only the status is left (a zombie) has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "sh ended with status 3"),
        ("echo first >&2; echo last >&2; exit 1", "sh ended with status 1: last"),
        ("printf 'without an end' >&2; exit 1", "sh ended with status 1: without an end"),
        ("printf 'red\\033[31m\\n' >&2; exit 1", "sh ended with status 1: red?[31m"),
        ("kill -9 $$", "sh was ended by SIGKILL"),
        ("printf '%2000s\\n' | tr ' ' x >&2; exit 1", "sh ended with status 1: " + 512 * "x"),
        ("echo words >&2; sleep 600 & exit 1", "sh ended with status 1: words"),
    ],
)
async def test_the_reason_is_how_a_program_ended_and_what_it_said_last(script: str, reason: str) -> None:
    async with sh(script) as child:
        with trio.fail_after(60):
            assert await child.wait() == reason
        if "sleep" in script:
            os.killpg(child.pid, signal.SIGKILL)


async def test_lines_that_are_noise_are_not_the_last_words() -> None:
    async with sh("echo the reason >&2; echo cannot log >&2; exit 1", noise=("cannot log",)) as child:
        assert await child.wait() == "sh ended with status 1: the reason"


async def test_a_program_that_says_much_is_read_to_its_end() -> None:
    async with sh("yes | head -c 1000000 >&2; echo end >&2; exit 1") as child:
        assert await child.wait() == "sh ended with status 1: end"


async def test_a_program_is_ended_with_all_it_has_started_when_it_is_not_wanted_any_more() -> None:
    read, write = os.pipe()
    async with sh("sleep 600 & echo $!; wait", stdout=write) as child:
        os.close(write)
        await trio.lowlevel.wait_readable(read)
        below = int(os.read(read, 100))
        with trio.move_on_after(0.1):
            await child.wait()
    os.close(read)
    assert is_gone(child.pid)
    eventually(lambda: is_gone(below))


async def test_work_ends_with_its_program_and_the_reason_is_the_programs() -> None:
    async def until_closed() -> str:
        await trio.lowlevel.wait_readable(read)
        return "the pipe was closed"

    read, write = os.pipe()
    async with sh("exec >&-; echo out of memory >&2; exit 9", stdout=write) as child:
        os.close(write)
        assert await child.during(until_closed) == "sh ended with status 9: out of memory"
    os.close(read)


async def test_a_program_runs_no_longer_than_its_work() -> None:
    async def returning() -> str:
        return "enough"

    async def failing() -> str:
        raise OSError(errno.EACCES, "no rights")

    for work, reason in ((returning, "enough"), (failing, "no rights")):
        async with sh("exec sleep 600") as child:
            assert await child.during(work) == reason
        assert is_gone(child.pid)


async def test_work_that_takes_longer_than_its_program_is_cancelled() -> None:
    async with sh("exit 4") as child:
        assert await child.during(trio.sleep_forever) == "sh ended with status 4"  # type: ignore[arg-type]


async def test_a_program_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipnd.supervisor.TERM_SECONDS", 0.2)
    read, write = os.pipe()
    async with sh("trap '' TERM; echo ready; while :; do sleep 1; done", stdout=write) as child:
        os.close(write)
        await trio.lowlevel.wait_readable(read)
    os.close(read)
    assert is_gone(child.pid)


async def test_a_program_that_is_not_installed_is_an_error_that_says_so() -> None:
    with pytest.raises(FileNotFoundError, match="cannot run no-such-program: it is not installed"):
        Child(["no-such-program"], OURSELVES)


async def test_programs_leave_no_descriptor_behind() -> None:
    async with sh("exit 0") as child:  # trio opens its own at first use
        await child.wait()
    before = os.listdir("/proc/self/fd")
    async with sh("exit 0") as child:
        await child.wait()
    async with sh("sleep 600"):
        pass
    assert os.listdir("/proc/self/fd") == before


async def output_of(script: str, peer: Peer, **more: object) -> str:
    read, write = os.pipe()
    try:
        async with sh(script, peer, stdout=write, **more) as child:
            os.close(write)
            assert await child.wait() == "sh ended with status 0"
        return os.read(read, 65536).decode().strip()
    finally:
        os.close(read)


async def test_a_program_has_a_clean_environment_a_session_of_its_own_and_no_descriptors() -> None:
    entry = pwd.getpwuid(os.geteuid())
    os.environ["SECRET"] = "x"
    leaked = os.open("/", os.O_PATH)
    os.set_inheritable(leaked, True)
    try:
        said = await output_of(
            "env; echo SID=$(ps -o sid= -p $$ | tr -d ' ') PID=$$; ls /proc/$$/fd | tr '\\n' ' '", OURSELVES
        )
    finally:
        os.close(leaked)
        del os.environ["SECRET"]
    assert "SECRET" not in said
    assert f"HOME={entry.pw_dir}" in said.splitlines()
    assert f"USER={entry.pw_name}" in said.splitlines()
    assert f"LOGNAME={entry.pw_name}" in said.splitlines()
    assert not set(said.splitlines()[-1].split()) & {str(leaked)}
    words = dict(word.split("=") for word in said.splitlines()[-2].split())
    assert words["SID"] == words["PID"]


async def test_an_environment_can_be_added_to() -> None:
    assert await output_of("echo $MORE", OURSELVES, environment={"MORE": "this"}) == "this"


@requires_root
@requires("id")
async def test_a_root_daemon_runs_programs_as_the_user_who_asked() -> None:
    peer = Peer(1, NOBODY, NOBODY, frozenset({NOBODY, 4711}), "stranger")
    said = await output_of("id -u; id -g; id -G; grep Groups /proc/self/status; echo $USER", peer)
    uid, gid, _, groups, user = said.splitlines()
    assert (uid, gid, user) == (str(NOBODY), str(NOBODY), pwd.getpwuid(NOBODY).pw_name)
    assert sorted(groups.split()[1:]) == ["4711", str(NOBODY)]


@requires_root
async def test_a_user_who_is_in_no_database_can_run_programs() -> None:
    said = await output_of("echo $HOME $USER $SHELL", Peer(1, 4242, 4242, frozenset(), "stranger"))
    assert said == "/ 4242 /bin/sh"


def test_a_users_daemon_does_not_act_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    own = 1000
    monkeypatch.setattr(os, "geteuid", lambda: own)
    with pytest.raises(PermissionError, match="runs as user 1000"):
        process_arguments(STRANGER)
    for uid in (own, 0):
        assert "user" not in process_arguments(Peer(1, uid, uid))
