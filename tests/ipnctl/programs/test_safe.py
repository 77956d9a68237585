"""What can go wrong while a program runs: signals, deaths, memory that changes, lengths and pointers that lie."""

from __future__ import annotations

import ast
import ctypes
import errno
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

import ipn
from ipnctl.programs.seccomp import Call
from ipnctl.programs.supervisor import _Thread
from tests.ipnctl.command import IPNCTL, SECONDS, Ipnctl, Started
from tests.ipnctl.programs.scripts import Scripts, python
from tests.running import RunningDaemon, clean_environment
from tests.waiting import eventually


def said(program: Started, lines: int = 1) -> None:
    program.wait_for(lambda out: out.count(b"\n") >= lines)


def last(program: Started) -> object:
    return ast.literal_eval(program.out.read_text().splitlines()[-1])


# -- how it ends -----------------------------------------------------------------------------------------------------


def test_the_exit_status_is_the_programs(programs: Ipnctl) -> None:
    assert programs.run("run", "--", "sh", "-c", "exit 7").status == 7


def test_a_program_that_a_signal_has_killed_is_told_as_shells_do(programs: Ipnctl) -> None:
    assert programs.run("run", "--", "sh", "-c", "kill -KILL $$").status == 128 + signal.SIGKILL


def test_signals_reach_the_program(script: Scripts) -> None:
    code = """
def end(number, frame):
    print(number)
    sys.exit(5)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, end)
print("ready", flush=True)
while True:
    signal.pause()
"""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        program = script.start(code)
        said(program)
        program.process.send_signal(number)
        ran = program.end()
        assert (ran.status, ran.text.split()[-1]) == (5, str(int(number)))


def test_what_a_program_leaves_behind_is_waited_for_and_can_go_on(script: Scripts) -> None:
    code = """
if os.fork():
    os._exit(3)
print("left", flush=True)
sys.stdin.readline()
fd = new()
print([connect(fd, sys.argv[1]), os.write(fd, b"x")], flush=True)
sys.stdin.read()
"""
    path = script.path("left")
    with ipn.bind(path):
        program = script.start(code, path)
        said(program)
        program.feed(b"\n")
        said(program, 2)
        assert last(program) == [0, 1]
        assert program.process.poll() is None
        assert program.end().status == 3


def test_a_daemon_whose_parents_have_ended_is_adopted_and_let_go(script: Scripts) -> None:
    code = """
supervisor, path = os.getppid(), sys.argv[1]
if os.fork():
    sys.exit(4)
os.setsid()
for _ in range(3):  # children of a child that has ended
    if not os.fork():
        while os.getppid() not in (1, supervisor):
            time.sleep(0.01)
        os.read(0, 1)
        os.write(1, b"%d %d\\n" % (os.getppid() == supervisor, connect(new(), path)))
        os.read(0, 1)
        os._exit(0)
print("left", flush=True)
os._exit(0)
"""
    path = script.path("daemons")
    with ipn.bind(path):
        program = script.start(code, path)
        said(program)
        eventually(lambda: len(children(program.process.pid)) == 3)
        program.feed(b"123")
        program.wait_for(lambda out: out.count(b"1 0\n") == 3)
        os.kill(children(program.process.pid)[0], signal.SIGKILL)
        eventually(lambda: len(children(program.process.pid)) == 2, message="a dead one is still there")
        assert program.end().status == 4


def test_a_daemon_of_ours_that_the_programs_bind_has_started_outlives_the_program(short_directory: Path) -> None:
    path = str(short_directory / "net")
    environment = {**clean_environment(str(short_directory / "run" / "control")), "IPN_AUTOSTART": "1"}
    code = "fd = new(); print([bind(fd, sys.argv[1]), connect(fd, sys.argv[1])], flush=True); sys.stdin.read()"
    command = [*IPNCTL, "run", "--", *python(code, path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "[0, 0]\n"
        with ipn.connect(path) as member:
            program.communicate(timeout=SECONDS)
            assert program.returncode == 0
            eventually(lambda: member.show()["members"] == 1)
    eventually(lambda: not (short_directory / "run" / "control").exists())


def children(pid: int) -> list[int]:
    """Return the children of a process, with those that have ended and that it has not let go."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, timeout=SECONDS, check=False)
    return [int(number) for number in found.stdout.split()]


def test_ipnctl_ends_with_its_program_while_the_supervisor_waits_for_one_who_does_not_answer(script: Scripts) -> None:
    code = "print('calling', flush=True); connect(new(), sys.argv[1])"
    path = script.path("silent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(SECONDS)
        program = script.start(code, path)
        caller, _ = listener.accept()
        with caller:
            program.process.send_signal(signal.SIGTERM)
            assert program.end().status == 128 + signal.SIGTERM


# -- the supervisor's end --------------------------------------------------------------------------------------------


def test_after_the_supervisors_death_calls_fail_and_members_see_the_end(script: Scripts) -> None:
    code = """
hungup = []
signal.signal(signal.SIGHUP, lambda *_: hungup.append(1))
fd, bound = member(sys.argv[1]), new()
print("joined", flush=True)
gone = os.read(fd, 100)
while not hungup:
    time.sleep(0.01)
print([gone, new(), bind(bound, sys.argv[1] + "2"), name(fd), call("shutdown", fd, 2)], flush=True)
"""
    path = script.path("orphans")
    with ipn.bind(path):
        program = script.start(code, path)
        said(program)
        program.process.kill()
        said(program, 2)
    assert last(program) == [b"", *[-errno.ENOSYS] * 4]


def test_a_call_that_waits_when_the_supervisor_dies_fails(script: Scripts) -> None:
    code = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
fd, yes = new(), ctypes.byref(ctypes.c_int(1))
call("setsockopt", fd, 0, 3, yes, 4)
assert connect(fd, sys.argv[1]) == 0
print("joined", flush=True)
try:
    messages(fd).recvmsg(100)
except OSError as error:
    print(error.errno, flush=True)
"""
    path = script.path("waiting")
    with ipn.bind(path):
        program = script.start(code, path)
        said(program)
        program.process.kill()
        said(program, 2)
    assert last(program) == errno.ENOSYS


# -- signals in the midst of calls -----------------------------------------------------------------------------------

TIMER = """
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
started = time.monotonic()
os.close(new())
tick = max(0.001, 5 * (time.monotonic() - started))
signal.setitimer(signal.ITIMER_REAL, tick, tick)
"""
NO_TIMER = """
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_signals_in_the_midst_of_calls_do_not_make_them_fail(script: Scripts) -> None:
    calls = """
found = set()
for number in range(60):
    fd, path = new(), sys.argv[1] + str(number)
    found.add((fd, bind(fd, path), connect(fd, path), name(fd) == path))
    os.close(fd)
"""
    code = TIMER + calls + NO_TIMER + 'print([found, len(os.listdir("/proc/self/fd"))])'
    assert script(code, script.path("signals")) == [{(3, 0, 0, True)}, 4]


def test_signals_lose_no_message_of_who_waits_for_notices(script: Scripts) -> None:
    both = """
fd, yes = new(), ctypes.byref(ctypes.c_int(1))
call("setsockopt", fd, 0, 3, yes, 4)
bind(fd, sys.argv[1]), connect(fd, sys.argv[1])
sender, sock = messages(member(sys.argv[1])), messages(fd)
if os.fork() == 0:
    for number in range(600):
        sender.send(b"%d" % number)
        time.sleep(0.0002)
    os._exit(0)
"""
    receiving = "found = [int(sock.recvmsg(100)[0]) for _ in range(600)] == list(range(600))"
    code = both + TIMER + receiving + NO_TIMER + "print(found)"
    assert script(code, script.path("nothing-lost")) is True


def test_a_signal_ends_a_wait_for_messages(script: Scripts) -> None:
    code = """
class Alarm(Exception):
    pass
def alarm(number, frame):
    raise Alarm
signal.signal(signal.SIGALRM, alarm)
fd, yes = new(), ctypes.byref(ctypes.c_int(1))
call("setsockopt", fd, 0, 3, yes, 4)
assert connect(fd, sys.argv[1]) == 0
sock, found = messages(fd), []
for _ in range(3):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        sock.recvmsg(100)
    except Alarm:
        found.append("alarm")
print([found, sock.send(b"x")])
"""
    path = script.path("interrupted")
    with ipn.bind(path):
        assert script(code, path) == [["alarm"] * 3, 1]


# -- memory ----------------------------------------------------------------------------------------------------------


def test_memory_that_changes_during_a_call_deceives_nobody_else(script: Scripts) -> None:
    code = """
import itertools
sys.setswitchinterval(0.0001)
one, other = address(sys.argv[1]), address(sys.argv[2])
room = ctypes.create_string_buffer(one, len(one))
size = ctypes.c_int(110)
stop, found = [], set()
def change():
    for data in itertools.cycle((one, other, address("x" * 100), bytes(110), address("", 10))):
        room.raw = data
        size.value = data[5] * 1000
        if stop:
            return
thread = threading.Thread(target=change)
thread.start()
for _ in range(300):
    fd = new()
    found.add(call("connect", fd, room, len(one)))
    found.add(call("getsockname", fd, room, ctypes.byref(size)))
    os.close(fd)
stop.append(1)
thread.join()
fd = new()
print([found, connect(fd, sys.argv[1]), name(fd) == sys.argv[1]])
"""
    one, other = script.path("one"), script.path("other")
    with ipn.bind(one), ipn.bind(other):
        found, *afterwards = script(code, one, other)
    assert afterwards == [0, True]
    wrong = {-errno.ENOENT, -errno.EINVAL, -errno.EAFNOSUPPORT, -errno.ENOTCONN, -errno.ECONNREFUSED, -errno.EFAULT}
    assert found <= {0, *wrong}


def test_memory_counts_only_if_the_call_still_waits_when_it_has_been_read() -> None:
    room = ctypes.create_string_buffer(b"memory")
    with open(os.devnull, "rb") as no_listener:  # says of no call that it waits
        thread = _Thread(no_listener.fileno(), Call(1, os.getpid(), 0, ()), (34,))
        with pytest.raises(InterruptedError, match="does not wait any more"):
            thread.read(ctypes.addressof(room), 6)


def test_a_descriptor_that_changes_during_a_call_joins_nothing_else(script: Scripts) -> None:
    code = """
sys.setswitchinterval(0.0001)
one, plain = new(), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
fd, stop, found = os.dup(one), [], set()
def change():
    while not stop:
        for each in (plain.fileno(), one):
            os.dup2(each, fd)
thread = threading.Thread(target=change)
thread.start()
for _ in range(300):
    found.add(connect(fd, sys.argv[1]))
    fresh = new()
    os.dup2(fresh, one)
    os.close(fresh)
stop.append(1)
thread.join()
try:
    found.add(plain.getpeername())
except OSError as error:
    print([found, error.errno])
"""
    path = script.path("exchanged")
    with ipn.bind(path):
        found, error = script(code, path)
    assert error == errno.ENOTCONN
    assert found <= {0, -errno.EISCONN, -errno.EBADF, -errno.EINVAL}, "EINVAL is the kernel's, of the plain socket"


def test_lengths_that_are_too_large_are_refused(script: Scripts) -> None:
    code = """
fd, huge, half = new(), 0x7FFF_FFFF, ctypes.create_string_buffer(1 << 20)
found = [
    call("bind", fd, half, 1 << 20),
    call("bind", fd, half, huge),
    call("bind", fd, half, -1),
    call("connect", fd, address("x"), 2),
    call("setsockopt", fd, 0, 1, half, huge),
    call("setsockopt", fd, 0, 1, half, -1),
    call("getsockopt", fd, 0, 1, half, ctypes.byref(ctypes.c_int(-1))),
    call("ioctl", fd, 0x4000_49FF, ctypes.c_ulong(2 ** 64 - 1)),
]
yes = ctypes.byref(ctypes.c_int(1))
call("setsockopt", fd, 0, 3, yes, 4)
assert connect(fd, sys.argv[1]) == 0
vectors = ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(half), 1 << 60) * 1024)
for count in (1_000_000, 1024, 2 ** 63):
    header = struct.pack("@PI4xPNPNi4x", 0, 0, ctypes.addressof(vectors), count, 0, 0, 0)
    os.write(other, b"message") if count == 1024 else None
    found.append(call("recvmsg", fd, header, socket.MSG_DONTWAIT))
print(found)
"""
    path = script.path("huge")
    with ipn.bind(path):
        found = script(code.replace("yes =", "other = member(sys.argv[1]); yes ="), path)
    assert found == [*[-errno.EINVAL] * 7, -errno.ENOTCONN, -errno.EMSGSIZE, 7, -errno.EMSGSIZE]


def test_pointers_that_lead_nowhere_are_refused(script: Scripts) -> None:
    code = """
fd, nowhere, four = new(), ctypes.c_void_p(16), ctypes.byref(ctypes.c_int(4))
found = [call("bind", fd, nowhere, 110), call("setsockopt", fd, 0, 0, nowhere, 4)]
found += [call("getsockopt", fd, 0, 0, nowhere, four), call("getsockopt", fd, 0, 0, four, nowhere)]
found += [call("ioctl", fd, 0x400449CA, nowhere)]
yes = ctypes.byref(ctypes.c_int(1))
call("setsockopt", fd, 0, 3, yes, 4)
assert connect(fd, sys.argv[1]) == 0
found += [call("getsockname", fd, nowhere, four), call("getsockname", fd, address("x"), nowhere)]
found += [call("recvmsg", fd, nowhere, 0)]
print(found)
"""
    path = script.path("nowhere")
    with ipn.bind(path):
        assert script(code, path) == [-errno.EFAULT] * 8


# -- deaths ----------------------------------------------------------------------------------------------------------


def test_threads_that_die_in_the_midst_of_calls_hinder_nobody(script: Scripts) -> None:
    code = """
path = sys.argv[1]
for number in range(30):
    pid = os.fork()
    if not pid:
        while True:
            fd = new()
            connect(fd, path)
            os.close(fd)
    time.sleep(0.003 + number / 10000)
    os.kill(pid, signal.SIGKILL)
    os.wait()
fd = new()
print([connect(fd, path), name(fd) == path])
"""
    path = script.path("dying")
    with ipn.bind(path) as net:
        assert script(code, path) == [0, True]
        eventually(lambda: net.show()["members"] == 0)


def test_ipnds_death_in_the_midst_of_calls_is_an_error(ipnd: RunningDaemon) -> None:
    code = """
path, found = sys.argv[1], set()
fd, bound, fresh = member(path), new(), new()
bind(bound, path + "-bound")
print("joined", flush=True)
while (result := call("getsockopt", fd, 0, 0x80, ctypes.byref(ctypes.c_int()), ctypes.byref(ctypes.c_int(4)))) == 0:
    fd2 = new()
    found.add(connect(fd2, path))
    os.close(fd2)
sys.stdin.read()
change = call("setsockopt", bound, 0, 2, ctypes.byref(ctypes.c_int(9)), 4)
print([found, result, connect(fresh, path), change, os.read(fd, 1)])
"""
    programs = Ipnctl(ipnd)
    path = programs.path("net")
    try:
        with ipn.bind(path):
            program = Scripts(programs).start(code, path)
            said(program)
            ipnd.kill()
            program.end().ok()
    finally:
        programs.close()
    found, *rest = last(program)  # type: ignore[misc]
    assert found <= {0, -errno.ECONNREFUSED, -errno.ECONNRESET}
    assert rest == [-errno.ECONNRESET, -errno.ECONNREFUSED, -errno.ECONNRESET, b""]


def test_ipnctl_leaves_no_process_behind_when_it_is_killed(script: Scripts) -> None:
    program = script.start("print(os.getpid(), flush=True); time.sleep(60)")
    said(program)
    pid = last(program)
    program.process.kill()
    eventually(lambda: has_ended(pid))


def has_ended(pid: object) -> bool:
    """Return whether a process has ended, whether anybody has asked for its status or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
