"""What programs do with their AF_IPN sockets besides talking: all that can be done with a descriptor."""

from __future__ import annotations

import ast
import errno
import os
import shutil
from pathlib import Path

import ipn
from ipn import admin
from ipnctl.programs.seccomp import PIDFD_THREAD
from tests.ipnctl.programs.scripts import Scripts
from tests.netns import own_namespace
from tests.peers import NOBODY, requires_root, skip_or_fail
from tests.waiting import eventually


def members(path: str) -> int:
    count: int = admin.show_network(path)["members"]
    return count


# -- processes and threads -------------------------------------------------------------------------------------------


def test_a_child_joins_with_its_parents_socket(script: Scripts) -> None:
    code = """
fd, path = new(), sys.argv[1]
if os.fork() == 0:
    os._exit(-bind(fd, path) or -connect(fd, path))
status = os.wait()[1]
other = messages(member(path))
os.write(fd, b"from the parent")
print([status, name(fd), other.recv(100)])
"""
    path = script.path("forked")
    assert script(code, path) == [0, path, b"from the parent"]


def test_members_are_shown_as_the_process_that_joined(script: Scripts) -> None:
    code = """
fd = new()
if not os.fork():
    member(sys.argv[1])
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os.wait()
"""
    path = script.path("shown")
    with ipn.bind(path):
        program = script.start(code, path)
        program.wait_for(lambda out: out.endswith(b"\n"))
        (port,) = admin.show_network(path)["ports"]
        assert port["pid"] == int(program.out.read_text())
        assert port["command"].startswith("python")
        assert port["kind"] == "program"
        program.end().ok()


def test_threads_use_each_others_sockets(script: Scripts) -> None:
    code = """
found, path = [], sys.argv[1]
keeper = new()
bind(keeper, path)
made = [new() for _ in range(8)]
def join(fd):
    found.append(connect(fd, path))
threads = [threading.Thread(target=join, args=(fd,)) for fd in made]
for thread in threads: thread.start()
for thread in threads: thread.join()
os.write(made[0], b"to all")
print([found, {os.read(fd, 100) for fd in made[1:]}])
"""
    assert script(code, script.path("threads")) == [[0] * 8, {b"to all"}]


def test_a_thread_with_files_of_its_own_joins(script: Scripts) -> None:
    try:
        os.close(os.pidfd_open(os.getpid(), PIDFD_THREAD))
    except OSError:
        skip_or_fail("needs Linux 6.9, which can open a thread")
    code = """
CLONE_FILES = 0x400
found = []
def join():
    found.append(call("unshare", CLONE_FILES))
    fd = new()
    found.extend([bind(fd, sys.argv[1]), connect(fd, sys.argv[1])])
thread = threading.Thread(target=join)
thread.start()
thread.join()
print(found)
"""
    assert script(code, script.path("unshared")) == [0, 0, 0]


def test_exec_keeps_a_socket_unless_it_is_to_be_closed(script: Scripts) -> None:
    code = """
if len(sys.argv) == 2:
    kept, closed = new(), new(socket.SOCK_CLOEXEC)
    bind(kept, sys.argv[1]), bind(closed, sys.argv[1] + "-closed"), connect(kept, sys.argv[1])
    flags = [fcntl.fcntl(fd, fcntl.F_GETFD) for fd in (kept, closed)]
    os.execv(sys.executable, [*sys.orig_argv, str(flags), str(kept), str(closed)])
print([sys.argv[2], name(int(sys.argv[3])), name(int(sys.argv[4])), os.write(int(sys.argv[3]), b"still")])
"""
    path = script.path("exec")
    assert script(code, path) == ["[0, 1]", path, -errno.EBADF, 5]


# -- copies ----------------------------------------------------------------------------------------------------------


def test_copies_are_the_same_socket(script: Scripts) -> None:
    code = """
fd, path = new(), sys.argv[1]
copy = os.dup(fd)
bind(copy, path), connect(fd, path)
os.close(fd)
print([name(copy), connect(copy, path)])
"""
    path = script.path("dup")
    assert script(code, path) == [path, -errno.EISCONN]


def test_a_copy_over_another_socket_closes_that(script: Scripts) -> None:
    code = """
one, other = new(), new()
bind(one, sys.argv[1]), connect(one, sys.argv[1])
bind(other, sys.argv[2]), connect(other, sys.argv[2])
os.dup2(one, other)
print([name(other)], flush=True)
sys.stdin.read()
"""
    one, other = script.path("one"), script.path("other")
    program = script.start(code, one, other)
    program.wait_for(lambda out: b"\n" in out)
    assert eval(program.out.read_text()) == [one]
    assert members(one) == 1
    eventually(lambda: not os.path.exists(other))
    program.end().ok()


def test_a_socket_is_passed_to_another_process_which_manages_it(script: Scripts) -> None:
    code = """
path = sys.argv[1]
here, there = socket.socketpair()
if os.fork() == 0:
    here.close()
    _, (fd,), _, _ = socket.recv_fds(there, 1, 1)
    found = [name(fd), call("shutdown", fd, socket.SHUT_WR), call("send", fd, b"x", 1, socket.MSG_NOSIGNAL)]
    there.send(repr(found).encode())
    os._exit(0)
there.close()
fd = new()
bind(fd, path), connect(fd, path)
socket.send_fds(here, [b"!"], [fd])
print([eval(here.recv(1000)), call("send", fd, b"x", 1, socket.MSG_NOSIGNAL)])
"""
    path = script.path("passed")
    assert script(code, path) == [[path, 0, -errno.EPIPE], -errno.EPIPE]


# -- close -----------------------------------------------------------------------------------------------------------


def test_a_network_ends_when_the_socket_that_is_bound_to_it_is_closed(script: Scripts) -> None:
    code = """
fd = new()
print(bind(fd, sys.argv[1]), flush=True)
sys.stdin.readline()
os.close(fd)
print("closed", flush=True)
sys.stdin.read()
"""
    path = script.path("bound")
    program = script.start(code, path)
    program.wait_for(lambda out: out == b"0\n")
    assert members(path) == 0
    program.feed(b"\n")
    program.wait_for(lambda out: out.endswith(b"closed\n"))
    eventually(lambda: not os.path.exists(path))
    program.end().ok()


def test_a_member_leaves_with_its_last_copy_or_its_process(script: Scripts) -> None:
    code = """
path = sys.argv[1]
def child(end):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        fd = member(path)
        os.write(write, b"!")
        os.read(stop[0], 1)
        end(fd)
    os.read(read, 1)
    return pid
def close(fd):
    os.close(fd)
    time.sleep(60)
stop = os.pipe()
killed = child(lambda fd: time.sleep(60))
closing = child(close)
ending = child(lambda fd: os._exit(0))
sys.stdin.readline()
os.kill(killed, signal.SIGKILL)
os.write(stop[1], b"!!!")
sys.stdin.read()
os.kill(closing, signal.SIGKILL)
"""
    path = script.path("leaving")
    with ipn.bind(path):
        program = script.start(code, path)
        eventually(lambda: members(path) == 3)
        program.feed(b"\n")
        eventually(lambda: members(path) == 0)
        program.end().ok()


def test_many_sockets_one_after_the_other_leave_no_descriptor_behind(script: Scripts) -> None:
    code = """
def some(count):
    for _ in range(count):
        fd = new()
        connect(fd, sys.argv[1])
        os.close(fd)
for line in sys.stdin:
    some(int(line))
    print("done", flush=True)
"""
    path = script.path("many")
    with ipn.bind(path):
        program, daemon = script.start(code, path), script.programs.daemon

        def after(count: int, lines: int) -> tuple[int, int]:
            program.feed(b"%d\n" % count)
            program.wait_for(lambda out: out.count(b"done") == lines)
            eventually(lambda: members(path) == 0)
            return len(os.listdir(f"/proc/{program.process.pid}/fd")), daemon.fds()

        before = after(3, 1)
        supervisor, _ = after(60, 2)
        assert supervisor <= before[0] + 2, "the last one is forgotten later"
        eventually(lambda: daemon.fds() <= before[1] + 1)
        program.end().ok()


def test_a_program_may_have_as_many_sockets_as_it_may_have_descriptors(script: Scripts) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))
fds, found = [], []
while (fd := new()) >= 0:
    fds.append(fd)
    found.append(connect(fd, sys.argv[1]))
print([len(fds), set(found), fd])
"""
    path = script.path("all")
    with ipn.bind(path, ports=200):
        small = ("sh", "-c", 'ulimit -S -n 150; exec "$@"', "sh")
        count, found, last = script(code, path, prefix=small)
    assert (found, last) == ({0}, -errno.EMFILE)
    assert count > 140


# -- waiting ---------------------------------------------------------------------------------------------------------


def test_a_socket_that_does_not_wait_stays_one_that_does_not_wait(script: Scripts) -> None:
    code = """
path, found = sys.argv[1], []
for flags, later in ((socket.SOCK_NONBLOCK, None), (0, os.O_NONBLOCK), (socket.SOCK_NONBLOCK, 0)):
    fd = member(path, flags)
    if later is not None:
        fcntl.fcntl(fd, fcntl.F_SETFL, later)
    found.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK != 0)
    if found[-1]:
        found.append(call("recv", fd, ctypes.create_string_buffer(9), 9, 0))
print(found)
"""
    path = script.path("nonblocking")
    with ipn.bind(path):
        assert script(code, path) == [True, -errno.EAGAIN, True, -errno.EAGAIN, False]


def test_who_polls_before_the_socket_joins_is_told_afterwards(script: Scripts) -> None:
    code = """
fd, path = new(), sys.argv[1]
epoll, poll = select.epoll(), select.poll()
epoll.register(fd, select.EPOLLIN | select.EPOLLET)
poll.register(fd, select.POLLIN)
assert connect(fd, path) == 0
epoll.poll(0)
print("joined", flush=True)
print([epoll.poll(10), poll.poll(10000), select.select([fd], [], [], 10)[0], os.read(fd, 100)])
"""
    path = script.path("polled")
    with ipn.bind(path) as net:
        net.connect()
        program = script.start(code, path)
        program.wait_for(lambda out: b"joined" in out)
        net.send(b"at last")
        out = program.end().ok().text
    fd = 3
    assert eval(out.splitlines()[1]) == [[(fd, 1)], [(fd, 1)], [fd], b"at last"]


def test_the_end_of_the_network_wakes_who_waits(script: Scripts) -> None:
    code = """
fd = member(sys.argv[1])
epoll = select.epoll()
epoll.register(fd, select.EPOLLRDHUP)
print("joined", flush=True)
print([epoll.poll(10)[0][1] & select.EPOLLRDHUP, os.read(fd, 100)])
"""
    path = script.path("ending")
    with ipn.bind(path):
        program = script.start(code, path)
        program.wait_for(lambda out: b"joined" in out)
        admin.delete_network(path)
        assert eval(program.end().ok().text.splitlines()[1]) == [0x2000, b""]


# -- what is not AF_IPN ----------------------------------------------------------------------------------------------


def test_who_has_ended_both_directions_goes_on_managing(script: Scripts) -> None:
    code = """
path, size = sys.argv[1], ctypes.c_int(4)
for number, ways in enumerate(((0, 1), (1, 0), (2,))):
    fd, value = new(), ctypes.c_int(7)
    bind(fd, path + str(number)), connect(fd, path + str(number))
    os.write(fd, b"the last")
    found = [call("shutdown", fd, how) for how in ways]
    time.sleep(0.05)
    found += [call("setsockopt", fd, 0, 2, ctypes.byref(value), 4), name(fd) == path + str(number)]
    found += [call("send", fd, b"x", 1, socket.MSG_NOSIGNAL), os.read(fd, 100)]
    print(found, flush=True)
    sys.stdin.readline()
    os.close(fd)
sys.stdin.read()
"""
    path = script.path("managing")
    program = script.start(code, path)
    for number in range(3):
        program.wait_for(lambda out, lines=number + 1: out.count(b"\n") == lines)
        ways = [0] if number == 2 else [0, 0]
        assert ast.literal_eval(program.out.read_text().splitlines()[-1]) == [*ways, 0, True, -errno.EPIPE, b""]
        (port,) = admin.show_network(path + str(number))["ports"]
        assert (port["rights"], port["rx_frames"]) == ("", 1)
        program.feed(b"\n")
        eventually(lambda net=path + str(number): not Path(net).exists())
    program.end().ok()


def test_sockets_of_other_families_are_what_they_were(script: Scripts) -> None:
    code = """
path, found = sys.argv[1], []
keeper = new()
bind(keeper, path + "-ipn"), connect(keeper, path + "-ipn")
for family, where in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, path)):
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        client.sendall(bytes(100000))
        got = 0
        while got < 100000:
            got += len(server.recvmsg(65536)[0])
        client.shutdown(socket.SHUT_WR)
        found.append([server.recv(1), client.getpeername() == listener.getsockname(),
                      client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), client.family == family])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
    other.bind(("127.0.0.1", 0))
    one.sendto(bytes(5000), other.getsockname())
    found.append(len(other.recv(9000)))
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
pair[0].send(bytes(5000))
found.append([len(pair[1].recv(9000)), os.write(os.open("/dev/null", os.O_WRONLY), bytes(5000))])
print(found)
"""
    assert script(code, script.path("others")) == [[b"", True, 1, True], [b"", True, 1, True], 5000, [5000, 5000]]


# -- places and persons ----------------------------------------------------------------------------------------------


def test_a_relative_path_is_where_the_process_is(script: Scripts) -> None:
    code = """
fd = new()
os.chdir(sys.argv[1])
os.mkdir("below")
found = [bind(fd, "net")]
os.chdir("below")
other = new()
found += [connect(fd, "../net"), connect(other, "../net"), os.path.realpath(name(other))]
print(found)
"""
    directory = script.path("relative")
    os.mkdir(directory)
    assert script(code, directory) == [0, 0, 0, f"{directory}/net"]


@requires_root
def test_a_path_is_where_it_is_for_a_process_with_another_root(script: Scripts) -> None:
    code = """
os.chroot(sys.argv[1])
os.chdir("/")
fd = new()
print([bind(fd, "/net"), connect(fd, "net"), os.listdir("/")])
"""
    directory = script.path("root")
    os.mkdir(directory)
    assert script(code, directory) == [0, 0, ["net"]]


def test_the_umask_is_the_processs(script: Scripts) -> None:
    code = """
found = []
for mask in (0o077, 0o027):
    os.umask(mask)
    fd = new()
    bind(fd, sys.argv[1] + str(mask))
    found.append(os.stat(sys.argv[1] + str(mask)).st_mode & 0o777)
print(found)
"""
    assert script(code, script.path("masked")) == [0o700, 0o750]


@requires_root
def test_who_has_given_up_root_has_the_rights_of_its_new_user(script: Scripts) -> None:
    code = f"""
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
private, readable, directory = sys.argv[1:]
reader, own = new(), new()
found = [connect(new(), private), bind(new(), readable), connect(reader, readable)]
found += [call("send", reader, b"x", 1, socket.MSG_NOSIGNAL)]
found += [bind(new(), os.path.dirname(private) + "/mine"), bind(own, directory + "/mine")]
print([*found, os.stat(directory + "/mine").st_uid])
"""
    private, readable, directory = (script.path(name) for name in ("private", "readable", "nobodys"))
    os.mkdir(directory)
    os.chown(directory, NOBODY, NOBODY)
    with ipn.bind(private), ipn.bind(readable):
        Path(private).chmod(0o600)
        Path(readable).chmod(0o644)
        found = script(code, private, readable, directory)
    shutil.rmtree(directory)
    assert found == [-errno.EACCES, -errno.EPERM, 0, -errno.EPIPE, -errno.EACCES, 0, NOBODY]


def test_a_program_in_another_network_namespace_joins(script: Scripts) -> None:
    code = "fd = new(); print([connect(fd, sys.argv[1]), os.write(fd, b'hello')])"
    path = script.path("elsewhere")
    with ipn.bind(path) as net:
        net.connect()
        with own_namespace(tun=False):
            assert script(code, path) == [0, 5]
        assert net.recv() == b"hello"
