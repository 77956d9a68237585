"""What a program sees of its sockets: they are ordinary descriptors, in all its processes, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ipn
from ipn import admin
from tests.running import RunningDaemon
from tests.waiting import eventually

PREAMBLE = """
import ctypes, errno, fcntl, os, select, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    return result if result >= 0 else -ctypes.get_errno()

def address(path):
    return struct.pack("=H108s", 34, os.fsencode(path))

def node(flags=0):
    return call("socket", 34, 3 | flags, 1)

def bind(fd, path): return call("bind", fd, address(path), 110)
def connect(fd, path=None): return call("connect", fd, address(path) if path else None, 110 if path else 0)
def name(fd):
    room, size = ctypes.create_string_buffer(110), ctypes.c_int(110)
    found = call("getsockname", fd, room, ctypes.byref(size))
    return os.fsdecode(room.raw[2:].split(b"\\0")[0]) if not found else found

path = sys.argv[1]
"""
SECONDS = 20

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def path(ipnd: RunningDaemon) -> str:
    path = ipnd.path("net")
    admin.create_network(path)
    return path


def start(ipnd: RunningDaemon, code: str, path: str, **options: object) -> subprocess.Popen[str]:
    """Start a program, with pipes for what it reads and says."""
    program = [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), path]
    command = [sys.executable, "-m", "ipnctl", "run", "--", *program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=ipnd.env, text=True, **pipes, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def run(ipnd: RunningDaemon) -> Run:
    """Give what runs a program to its end, which must be a good one, and returns what it said."""

    def run(code: str, path: str, status: int = 0) -> str:
        with start(ipnd, code, path) as process:
            try:
                out, err = process.communicate(timeout=SECONDS)
            finally:
                process.kill()
        assert process.returncode == status, out + err
        return out

    return run  # type: ignore[return-value]


# -- descriptors -----------------------------------------------------------------------------------------------------


def test_copies_made_before_and_after_connecting_are_the_same_socket(run: Callable[..., str], path: str) -> None:
    with ipn.connect(path, timeout=5) as other:
        run(
            """
            fd = node()
            before = os.dup(fd)
            assert connect(fd, path) == 0
            os.dup2(fd, 100)
            assert name(before) == name(100) == path
            os.write(before, b"one"); os.write(100, b"two"); os.close(fd); os.write(before, b"three")
            """,
            path,
        )
        assert [other.recv() for _ in range(3)] == [b"one", b"two", b"three"]


def test_forked_children_and_threads_share_it(run: Callable[..., str], path: str) -> None:
    with ipn.connect(path, timeout=5) as other:
        run(
            """
            fd = node()
            if os.fork() == 0:
                assert connect(fd, path) == 0
                os._exit(0)
            assert os.wait()[1] == 0
            assert name(fd) == path and connect(fd, path) == -errno.EISCONN
            thread = threading.Thread(target=os.write, args=(fd, b"from a thread"))
            thread.start(); thread.join()
            """,
            path,
        )
        assert other.recv() == b"from a thread"


def test_it_goes_through_exec_unless_it_was_made_to_be_closed_there(run: Callable[..., str], path: str) -> None:
    out = run(
        """
        for flags in (0, socket.SOCK_CLOEXEC):
            fd = node(flags)
            assert fcntl.fcntl(fd, fcntl.F_GETFD) == (fcntl.FD_CLOEXEC if flags else 0)
            assert connect(fd, path) == 0
            if os.fork() == 0:
                os.execvp("sh", ["sh", "-c", f"echo x >&{fd} && echo open || echo closed"])
            os.wait()
        """,
        path,
    )
    assert out == "open\nclosed\n"


def test_a_process_that_is_sent_a_descriptor_can_use_and_manage_it(run: Callable[..., str], path: str) -> None:
    run(
        """
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            fd = node()
            assert connect(fd, path) == 0
            socket.send_fds(theirs, [b"x"], [fd])
            os._exit(0)
        _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
        os.wait()
        assert name(fd) == path
        assert call("shutdown", fd, socket.SHUT_WR) == 0
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try: os.write(fd, b"x")
        except BrokenPipeError: pass
        else: raise SystemExit("it could send")
        """,
        path,
    )


def test_closing_it_ends_a_network_that_nobody_else_is_on_whether_it_was_only_bound_or_connected(
    ipnd: RunningDaemon, run: Callable[..., str]
) -> None:
    own = ipnd.path("own")
    out = run(
        """
        fd = node()
        assert bind(fd, path) == 0 and os.path.exists(path)
        os.close(fd)
        while os.path.exists(path): time.sleep(0.01)
        fd = node()
        assert bind(fd, path) == 0 and connect(fd) == 0
        os.close(fd)
        while os.path.exists(path): time.sleep(0.01)
        print(connect(node(), path) in (-errno.ENOENT, -errno.ECONNREFUSED))
        """,
        own,
    )
    assert out == "True\n"
    assert not admin.list_networks()


def test_what_waits_does_so_as_its_flags_say(run: Callable[..., str], path: str) -> None:
    run(
        """
        def blocks(fd):
            try: os.read(fd, 10)
            except BlockingIOError: return False
        one, two = node(socket.SOCK_NONBLOCK), node()
        assert fcntl.fcntl(one, fcntl.F_GETFL) & os.O_NONBLOCK and not fcntl.fcntl(two, fcntl.F_GETFL) & os.O_NONBLOCK
        assert connect(one, path) == 0 and connect(two, path) == 0
        assert blocks(one) is False
        os.set_blocking(two, False)
        assert blocks(two) is False
        """,
        path,
    )


def test_who_polled_it_before_it_was_connected_is_told_of_messages(run: Callable[..., str], path: str) -> None:
    run(
        """
        one, two = node(), node()
        poll = select.epoll()
        poll.register(one, select.EPOLLIN)
        assert connect(one, path) == 0 and connect(two, path) == 0
        assert poll.poll(0) == []
        os.write(two, b"x")
        assert poll.poll(5) == [(one, select.EPOLLIN)]
        assert select.select([one], [], [], 0)[0] == [one] and os.read(one, 10) == b"x"
        """,
        path,
    )


def test_the_end_of_the_network_is_the_end_of_what_comes(ipnd: RunningDaemon, path: str) -> None:
    code = "fd = node(); assert connect(fd, path) == 0; print('in', flush=True); print(os.read(fd, 10), flush=True)"
    with start(ipnd, code, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        admin.delete_network(path)
        assert process.stdout.readline() == "b''\n"


# -- everything else ---------------------------------------------------------------------------------------------------


def test_sockets_of_other_families_are_what_they_were(run: Callable[..., str], path: str) -> None:
    run(
        """
        fd = node()  # from now on the supervisor has something to look for
        server = socket.create_server(("127.0.0.1", 0))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client = socket.create_connection(server.getsockname())
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        there, _ = server.accept()
        there.sendall(bytes(1_000_000)); there.shutdown(socket.SHUT_WR)
        assert sum(map(len, iter(lambda: client.recvmsg(65536)[0], b""))) == 1_000_000
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        one, other = socket.socketpair(); one.send(b"x"); assert other.recv(1) == b"x"
        """,
        path,
    )


def test_paths_are_where_the_program_is_and_its_umask_holds(
    ipnd: RunningDaemon, run: Callable[..., str], tmp_path: Path
) -> None:
    out = run(
        """
        os.chdir(path); os.umask(0o027)
        fd = node()
        assert bind(fd, "here") == 0
        print(oct(os.stat("here").st_mode & 0o777), name(fd))
        """,
        ipnd.path(""),
    )
    assert out == f"0o750 {ipnd.path('here')}\n"


@pytest.fixture
def busy(ipnd: RunningDaemon, path: str) -> Iterator[subprocess.Popen[str]]:
    """Give a program that is on the network and does what a line tells it."""
    code = """
    fd = node()
    assert connect(fd, path) == 0
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    for line in sys.stdin: print(eval(line), flush=True)
    """
    with start(ipnd, code, path) as process:
        yield process
        process.kill()


def said(process: subprocess.Popen[str], line: str = "") -> str:
    """Tell the program a line, and return what it says."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


def test_calls_of_a_program_whose_supervisor_was_killed_fail_and_do_not_hang(
    busy: subprocess.Popen[str], path: str
) -> None:
    assert int(said(busy)) > 0
    assert said(busy, "name(fd) == path") == "True"
    busy.kill()
    eventually(lambda: admin.show_network(path)["members"] == 0)
    assert said(busy, "name(fd) == -errno.ENOSYS, node() == -errno.ENOSYS") == "(True, True)"
    assert said(busy, "os.read(fd, 10)") == "b''"


def test_calls_fail_when_the_daemon_was_killed(ipnd: RunningDaemon, busy: subprocess.Popen[str]) -> None:
    said(busy)
    ipnd.kill()
    assert said(busy, "os.read(fd, 10)") == "b''"
    assert int(said(busy, "call('setsockopt', fd, 0, 1, b'descr', 5)")) < 0
    assert int(said(busy, "connect(node(), path)")) < 0


def test_bad_pointers_and_lengths_are_errors_of_the_call(busy: subprocess.Popen[str]) -> None:
    said(busy)
    assert said(busy, "call('bind', node(), ctypes.c_void_p(8), 110) == -errno.EFAULT") == "True"
    assert said(busy, "call('connect', node(), address(path), 1 << 20) == -errno.EINVAL") == "True"
    assert said(busy, "call('setsockopt', fd, 0, 1, b'x', 0x7fffffff) == -errno.EINVAL") == "True"
    assert said(busy, "call('setsockopt', fd, 0, 1, ctypes.c_void_p(8), 4) == -errno.EFAULT") == "True"
    assert said(busy, "call('getsockname', fd, ctypes.c_void_p(8), ctypes.c_void_p(8)) == -errno.EFAULT") == "True"
    assert said(busy, "name(fd) == path") == "True"


# -- the command -------------------------------------------------------------------------------------------------------


def test_exit_status_and_signals_are_passed_on(ipnd: RunningDaemon, run: Callable[..., str], path: str) -> None:
    run("raise SystemExit(7)", path, status=7)
    run("os.kill(os.getpid(), signal.SIGKILL)", path, status=128 + 9)
    code = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('ready', flush=True); signal.pause()"
    with start(ipnd, code, path) as process:
        assert said(process) == "ready"
        process.terminate()
        assert process.wait(SECONDS) == 5


def test_it_ends_with_the_last_of_its_processes(ipnd: RunningDaemon, path: str) -> None:
    code = """
    if os.fork() == 0:
        os.setsid(); fd = node()
        assert connect(fd, path) == 0
        print("in", flush=True); sys.stdin.readline()
    """
    with start(ipnd, code, path) as process:
        assert said(process) == "in"
        assert admin.show_network(path)["members"] == 1
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(SECONDS) == 0


def test_one_within_another_is_refused(ipnd: RunningDaemon, path: str) -> None:
    ipnctl = [sys.executable, "-m", "ipnctl", "run", "--"]
    done = subprocess.run([*ipnctl, *ipnctl, "true"], env=ipnd.env, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 126
    assert "there can be only one" in done.stderr


def test_many_sockets_one_after_another_leave_no_descriptors(
    ipnd: RunningDaemon, busy: subprocess.Popen[str]
) -> None:
    said(busy)
    supervisor = Path(f"/proc/{busy.pid}/fd")
    fds, ours = ipnd.fds(), len(list(supervisor.iterdir()))
    assert said(busy, "sum(connect(fd, path) + (os.close(fd) or 0) for fd in (node() for _ in range(100)))") == "0"
    assert said(busy, "node() > 0") == "True"
    eventually(lambda: ipnd.fds() <= fds + 2)
    eventually(lambda: len(list(supervisor.iterdir())) <= ours + 6)
