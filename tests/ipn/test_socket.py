"""The calls of AF_IPN, one clause of the specification after the other, against a running daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ipn
from tests.peers import requires_root
from tests.running import RunningDaemon
from tests.waiting import eventually

KINDS = pytest.mark.parametrize("packet", [False, True], ids=["stream", "packet"])


def fails_with(number: int, function: Callable[[], object]) -> OSError:
    """Check that ``function`` raises an OSError of ``number`` and return it."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked right below
        function()
    assert caught.value.errno == number, f"{errno.errorcode.get(caught.value.errno or 0)}: {caught.value}"
    return caught.value


@pytest.fixture
def path(ipnd: RunningDaemon) -> str:
    return ipnd.path("sockipn")


# -- socket ------------------------------------------------------------------------------------------------------


def test_only_sock_raw_exists() -> None:
    fails_with(errno.EPROTOTYPE, lambda: ipn.socket(ipn.AF_IPN, socket.SOCK_STREAM, ipn.IPN_BROADCAST))


def test_another_family_is_refused() -> None:
    fails_with(errno.EAFNOSUPPORT, lambda: ipn.socket(socket.AF_UNIX, ipn.SOCK_RAW))


def test_an_unknown_policy_is_refused(ipnd: RunningDaemon) -> None:
    fails_with(errno.EPROTONOSUPPORT, lambda: ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, 99))
    fails_with(errno.EPROTONOSUPPORT, lambda: ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, -1))


def test_sock_nonblock_and_cloexec_may_be_given_with_the_type() -> None:
    with ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as s:
        assert s.gettimeout() == 0.0
        assert not os.get_inheritable(s.fileno())


# -- the announcement's examples -----------------------------------------------------------------------------------


def test_peers_that_bind_and_connect_all_hear_each_other(path: str) -> None:
    peers = []
    for _ in range(3):
        s = ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, ipn.IPN_BROADCAST)
        s.bind(path)
        s.connect()
        peers.append(s)
    for sender in peers:
        sender.send(b"from %d" % sender.port)
        heard = [p.recv() for p in peers if p is not sender]
        assert heard == [b"from %d" % sender.port] * 2
    for s in peers:
        s.setblocking(False)
        fails_with(errno.EAGAIN, s.recv)  # nobody hears itself
        s.close()


def test_one_sender_many_receivers_with_the_unused_direction_shut_down(path: str) -> None:
    sender = ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, ipn.IPN_BROADCAST)
    sender.shutdown(socket.SHUT_RD)
    sender.bind(path)
    sender.connect()
    receivers = []
    for _ in range(3):
        receiver = ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, ipn.IPN_BROADCAST)
        receiver.shutdown(socket.SHUT_WR)
        receiver.connect(path)
        receivers.append(receiver)
    shown = sender.show()
    assert (shown["readers"], shown["writers"]) == (3, 1)
    sender.send(b"music")
    assert [r.recv() for r in receivers] == [b"music"] * 3
    fails_with(errno.EPIPE, lambda: receivers[0].send(b"no"))
    fails_with(errno.EPIPE, sender.recv)
    for s in (sender, *receivers):
        s.close()


# -- bind ----------------------------------------------------------------------------------------------------------


def test_bind_creates_the_network_with_the_options_set_so_far(path: str) -> None:
    with ipn.bind(path, "broadcast", mtu=9000, ports=5, pool=3, lossless=True) as net:
        assert Path(path).is_socket()
        assert net.getsockopt(0, ipn.IPN_SO_MTU) == 9000
        assert net.getsockopt(0, ipn.IPN_SO_NUMNODES) == 5
        assert net.getsockopt(0, ipn.IPN_SO_MSGPOOLSIZE) == 3
        assert net.getsockopt(0, ipn.IPN_SO_FLAGS) == ipn.IPN_FLAG_LOSSLESS


def test_bind_with_ipn_any_creates_a_broadcast_network(path: str) -> None:
    with ipn.bind(path, ipn.IPN_ANY) as net:
        assert net.show()["policy"] == "broadcast"
        assert net.proto == ipn.IPN_BROADCAST


def test_bind_on_a_live_network_joins_it_for_management(path: str) -> None:
    with ipn.bind(path, mtu=2000), ipn.bind(path, mtu=77) as second:
        assert second.getsockopt(0, ipn.IPN_SO_MTU) == 2000
        assert second.show()["members"] == 0


def test_bound_sockets_move_no_data(path: str) -> None:
    with ipn.bind(path) as net:
        fails_with(errno.ENOTCONN, lambda: net.send(b"x"))
        fails_with(errno.ENOTCONN, net.recv)


def test_bind_twice_is_refused(path: str) -> None:
    with ipn.bind(path) as net:
        fails_with(errno.EISCONN, lambda: net.bind(path))
        with ipn.connect(path) as other:
            fails_with(errno.EISCONN, lambda: other.bind(path))


def test_bind_with_another_policy_is_refused(path: str) -> None:
    with ipn.bind(path, "broadcast"):
        fails_with(errno.EPROTO, lambda: ipn.bind(path, "vdeswitch"))


def test_bind_on_a_file_that_is_no_socket_is_refused(ipnd: RunningDaemon) -> None:
    plain = ipnd.directory / "plain"
    plain.write_text("mine")
    fails_with(errno.ECONNREFUSED, lambda: ipn.bind(plain))
    assert plain.read_text() == "mine"


def test_bind_where_somebody_else_listens_is_refused_and_leaves_it_alone(ipnd: RunningDaemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(ipnd.path("other"))
        other.listen()

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    other.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        fails_with(errno.ECONNREFUSED, lambda: ipn.bind(ipnd.path("other")))
        assert Path(ipnd.path("other")).is_socket()
        other.shutdown(socket.SHUT_RDWR)


def test_bind_in_a_missing_directory_says_so(ipnd: RunningDaemon) -> None:
    fails_with(errno.ENOENT, lambda: ipn.bind(ipnd.path("no/such/sock")))


@requires_root
def test_bind_without_x_is_refused_with_eperm(path: str, ipnd: RunningDaemon) -> None:
    with ipn.bind(path, mode=0o777):
        os.chmod(path, 0o766)
        assert run_as_nobody(ipnd, f"import ipn; ipn.bind({path!r})") == errno.EPERM


# -- connect -------------------------------------------------------------------------------------------------------


def test_connect_needs_a_network(ipnd: RunningDaemon) -> None:
    fails_with(errno.ENOENT, lambda: ipn.connect(ipnd.path("nothing")))
    plain = ipnd.directory / "plain"
    plain.write_text("")
    fails_with(errno.ECONNREFUSED, lambda: ipn.connect(plain))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(ipnd.path("stale"))
    fails_with(errno.ECONNREFUSED, lambda: ipn.connect(ipnd.path("stale")))


def test_connect_with_another_policy_is_refused(path: str) -> None:
    with ipn.bind(path, "broadcast"):
        fails_with(errno.EPROTO, lambda: ipn.connect(path, "vdeswitch"))
        ipn.connect(path, ipn.IPN_ANY).close()


def test_connect_twice_is_refused(path: str) -> None:
    with ipn.bind(path) as net:
        net.connect()
        fails_with(errno.EISCONN, net.connect)
        fails_with(errno.EISCONN, lambda: net.connect(path))


def test_a_bound_socket_connects_with_no_path_or_its_own(path: str) -> None:
    with ipn.bind(path) as net, ipn.bind(path) as same:
        net.connect()
        same.connect(path)
        assert (net.port, same.port) == (0, 1)


def test_an_unbound_socket_needs_a_path() -> None:
    with ipn.socket() as s:
        fails_with(errno.EINVAL, s.connect)


def test_the_port_asked_for_is_given_or_refused(path: str) -> None:
    with ipn.bind(path, ports=4), ipn.connect(path, port=3) as third, ipn.connect(path) as first:
        assert (third.port, first.port) == (3, 0)
        assert third.getsockopt(0, ipn.IPN_SO_PORT) == 3
        fails_with(errno.EADDRNOTAVAIL, lambda: ipn.connect(path, port=3))
        fails_with(errno.EADDRNOTAVAIL, lambda: ipn.connect(path, port=4))


def test_a_full_network_has_no_port_left(path: str) -> None:
    with ipn.bind(path, ports=2), ipn.connect(path) as a, ipn.connect(path):
        fails_with(errno.EADDRNOTAVAIL, lambda: ipn.connect(path))
        a.close()
        eventually(lambda: _can_connect(path))


def _can_connect(path: str) -> bool:
    try:
        ipn.connect(path).close()
    except OSError:
        return False
    return True


@requires_root
@pytest.mark.parametrize(
    ("mode", "rights"), [(0o704, "r"), (0o702, "w"), (0o706, "rw"), (0o707, "rw")], ids=["r", "w", "rw", "rwx"]
)
def test_r_is_receive_and_w_is_send_and_the_other_direction_is_shut_down(
    path: str, ipnd: RunningDaemon, mode: int, rights: str
) -> None:
    with ipn.bind(path):
        os.chmod(path, mode)
        assert run_as_nobody(ipnd, f"import ipn; assert ipn.connect({path!r}).rights == {rights!r}") == 0


@requires_root
def test_neither_r_nor_w_is_eacces(path: str, ipnd: RunningDaemon) -> None:
    with ipn.bind(path):
        os.chmod(path, 0o701)
        assert run_as_nobody(ipnd, f"import ipn; ipn.connect({path!r})") == errno.EACCES
        os.chmod(path, 0o704)
        assert run_as_nobody(ipnd, f"import ipn; ipn.connect({path!r}, receive=False)") == errno.EACCES


@requires_root
def test_connect_of_a_bound_socket_checks_r_and_w_too(path: str, ipnd: RunningDaemon) -> None:
    with ipn.bind(path):
        os.chmod(path, 0o701)
        code = f"import ipn; net = ipn.bind({path!r}); net.connect()"
        assert run_as_nobody(ipnd, code) == errno.EACCES


def run_as_nobody(ipnd: RunningDaemon, code: str) -> int:
    """Run Python ``code`` as user nobody; return the errno of the OSError that ended it, 0 without one."""
    wrapped = f"import sys\ntry:\n exec({code!r})\nexcept OSError as e:\n sys.exit(e.errno)"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", wrapped]
    done = subprocess.run(command, env=ipnd.env, cwd="/", capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


# -- listen, accept, names -----------------------------------------------------------------------------------------


def test_there_are_no_servers() -> None:
    with ipn.socket() as s:
        fails_with(errno.EOPNOTSUPP, s.listen)
        fails_with(errno.EOPNOTSUPP, s.accept)


def test_names_are_the_networks_address(path: str) -> None:
    with ipn.socket() as s:
        fails_with(errno.ENOTCONN, s.getsockname)
        fails_with(errno.ENOTCONN, s.getpeername)
        s.bind(path)
        assert s.getsockname() == s.getpeername() == path


# -- send and receive ----------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("size", [1, 2, 64, 1514, 40_000, 100_000])
def test_messages_of_any_size_arrive_whole(path: str, packet: bool, size: int) -> None:
    message = os.urandom(size)
    with ipn.bind(path, mtu=100_000), ipn.connect(path, packet=packet) as a, ipn.connect(path, packet=packet) as b:
        assert a.send(message) == size
        assert b.recv() == message
        assert b.sendmsg([message[: size // 2], message[size // 2 :]]) == size
        assert a.recv(200_000) == message


def test_a_message_of_sixteen_mib_arrives_whole(path: str) -> None:
    message = os.urandom(1024) * (16 * 1024)
    with ipn.bind(path, mtu=ipn.MAX_MTU), ipn.connect(path) as a, ipn.connect(path) as b, ipn.connect(path) as c:
        heard: list[bytes] = []
        threads = [threading.Thread(target=lambda s=s: heard.append(s.recv())) for s in (b, c)]
        for thread in threads:
            thread.start()
        a.send(message)
        for thread in threads:
            thread.join(30)
        assert [m == message for m in heard] == [True, True]


@KINDS
def test_stream_and_packet_members_hear_each_other(path: str, packet: bool) -> None:
    with ipn.bind(path), ipn.connect(path, packet=packet) as a, ipn.connect(path, packet=not packet) as b:
        a.send(b"one")
        b.send(b"two")
        assert (b.recv(), a.recv()) == (b"one", b"two")


def test_a_message_longer_than_the_mtu_is_eoverflow(path: str) -> None:
    with ipn.bind(path, mtu=10), ipn.connect(path) as net:
        fails_with(errno.EOVERFLOW, lambda: net.send(b"x" * 11))
        fails_with(errno.EOVERFLOW, lambda: net.send_many([b"x", b"x" * 11]))


def test_an_empty_message_is_einval(path: str) -> None:
    with ipn.bind(path), ipn.connect(path) as net:
        fails_with(errno.EINVAL, lambda: net.send(b""))


def test_before_connect_nothing_is_sent_or_received() -> None:
    with ipn.socket() as s:
        fails_with(errno.ENOTCONN, lambda: s.send(b"x"))
        fails_with(errno.ENOTCONN, s.recv)


@KINDS
def test_the_excess_of_a_too_small_buffer_is_discarded(path: str, packet: bool) -> None:
    with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path, packet=packet) as b:
        a.send_many([b"0123456789", b"next"])
        data, ancillary, flags, address = b.recvmsg(4)
        assert (data, ancillary, flags, address) == (b"0123", [], socket.MSG_TRUNC, path)
        buffer = bytearray(b"......")
        assert b.recv_into(buffer) == 4
        assert buffer == b"next.."


def test_send_many_and_recv_many_keep_order_and_content(path: str) -> None:
    messages = [b"%d:" % n + b"x" * (n % 700) for n in range(5000)]
    with ipn.bind(path, lossless=True), ipn.connect(path) as a, ipn.connect(path) as b:
        sender = threading.Thread(target=a.send_many, args=(messages,))
        sender.start()
        heard: list[bytes] = []
        while len(heard) < len(messages):
            heard += b.recv_many()
        sender.join()
        assert heard == messages


def test_the_specified_calls_have_their_usual_relatives(path: str) -> None:
    with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path) as b:
        a.sendall(b"1")
        a.sendto(b"2", path)
        a.sendto(b"3", 0, path)
        assert b.recvfrom() == (b"1", path)
        assert b.recv(10) == b"2"
        assert next(iter(b)) == b"3"


def test_ancillary_data_is_refused(path: str) -> None:
    with ipn.bind(path), ipn.connect(path) as a:
        fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))]
        fails_with(errno.EOPNOTSUPP, lambda: a.sendmsg([b"x"], fds))


def test_iteration_ends_when_the_network_is_gone(path: str) -> None:
    net = ipn.bind(path)
    with ipn.connect(path) as a, ipn.connect(path) as b:
        a.send_many([b"1", b"2"])
        assert [next(iter(b)), next(iter(b))] == [b"1", b"2"]
        _delete(path)
        assert list(b) == []
    net.close()


def _delete(path: str) -> None:
    from ipn.rendezvous import open_network

    channel = open_network(path)
    channel.request("delete")
    channel.close()


# -- waiting -------------------------------------------------------------------------------------------------------


@KINDS
def test_timeouts_and_nonblocking_work_as_on_any_socket(path: str, packet: bool) -> None:
    with ipn.bind(path), ipn.connect(path, packet=packet) as net:
        net.settimeout(0.05)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            net.recv()
        assert time.monotonic() - start >= 0.05
        net.setblocking(False)
        with pytest.raises(BlockingIOError):
            net.recv()
        with pytest.raises(BlockingIOError):
            net.recv_many()
        net.setblocking(True)
        with pytest.raises(BlockingIOError):
            net.recv(flags=socket.MSG_DONTWAIT)


@KINDS
def test_fileno_is_readable_exactly_when_recv_would_not_block(path: str, packet: bool) -> None:
    with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path, packet=packet) as b:
        b.setblocking(False)
        a.send_many([b"%d" % n for n in range(5)])
        heard = []
        while len(heard) < 5:
            assert readable(b, 5), f"{len(heard)} heard, the rest lost"
            heard.append(b.recv())
        assert heard == [b"%d" % n for n in range(5)]
        assert not readable(b, 0)
        with pytest.raises(BlockingIOError):
            b.recv()


def test_a_readable_stream_member_never_finds_half_a_message(path: str) -> None:
    """A receiver slower than its sender empties its full socket: at each step poll and recv must agree."""
    sizes = [1, 700, 1514, 9000, 30_000]
    messages = [bytes([n % 251]) * sizes[n % len(sizes)] for n in range(1500)]
    with ipn.bind(path, mtu=30_000, lossless=True), ipn.connect(path) as a, ipn.connect(path) as b:
        b.setblocking(False)
        sender = threading.Thread(target=a.send_many, args=(messages,))
        sender.start()
        for message in messages:
            assert readable(b, 5)
            assert b.recv() == message
        sender.join()
        assert not readable(b, 0)


def readable(s: ipn.Socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(s, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def writable(s: ipn.Socket) -> bool:
    poll = select.poll()
    poll.register(s, select.POLLOUT)
    return bool(poll.poll(0))


def test_a_lossy_member_is_always_writable_and_a_lossless_one_while_there_is_room(path: str) -> None:
    with ipn.bind(path, lossless=True, pool=2), ipn.connect(path) as a, ipn.connect(path) as reader:
        a.setblocking(False)
        assert writable(a)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 100_000:
                sent += bool(a.send(b"x" * 1500))
        assert not writable(a)
        reader.settimeout(5)
        for _ in range(sent):
            reader.recv()
        eventually(lambda: writable(a))


@KINDS
def test_a_signal_during_a_blocking_call_is_handled_and_the_call_goes_on(path: str, packet: bool) -> None:
    seen: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path, packet=packet) as b:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            threading.Timer(0.3, a.send, args=(b"late",)).start()
            assert b.recv() == b"late"
            assert seen == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, old)


def test_an_exception_from_a_signal_handler_loses_no_message(path: str) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path) as b:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                b.recv()
            a.send(b"still here")
            assert b.recv() == b"still here"
    finally:
        signal.signal(signal.SIGALRM, old)


# -- shutdown ------------------------------------------------------------------------------------------------------


@KINDS
def test_shut_rd_discards_what_was_queued_and_cannot_be_undone(path: str, packet: bool) -> None:
    with ipn.bind(path) as net, ipn.connect(path) as a, ipn.connect(path, packet=packet) as b:
        a.send_many([b"1", b"2"])
        assert readable(b, 5)
        b.shutdown(socket.SHUT_RD)
        fails_with(errno.EPIPE, b.recv)
        a.send(b"3")
        b.send(b"still sending")
        assert a.recv() == b"still sending"
        fails_with(errno.EPIPE, b.recv)
        assert (net.show()["readers"], net.show()["writers"]) == (1, 2)


def test_shut_wr_ends_sending_and_what_was_sent_still_arrives(path: str) -> None:
    with ipn.bind(path) as net, ipn.connect(path) as a, ipn.connect(path) as b:
        a.send_many([b"x" * 1000] * 50)
        a.shutdown(socket.SHUT_WR)
        fails_with(errno.EPIPE, lambda: a.send(b"no"))
        b.settimeout(5)
        assert sum(1 for _ in range(50) if b.recv()) == 50
        b.send(b"back")
        assert a.recv() == b"back"
        eventually(lambda: (net.show()["readers"], net.show()["writers"]) == (2, 1))


def test_a_node_shut_down_both_ways_stays_a_member_without_voice(path: str) -> None:
    with ipn.bind(path) as net, ipn.connect(path) as a:
        a.shutdown(socket.SHUT_RDWR)
        assert a.rights == ""
        fails_with(errno.EPIPE, lambda: a.send(b"x"))
        fails_with(errno.EPIPE, a.recv)
        assert (net.show()["readers"], net.show()["writers"]) == (0, 0)


# -- options -------------------------------------------------------------------------------------------------------


def test_network_options_have_the_specified_defaults() -> None:
    with ipn.socket() as s:
        names = (ipn.IPN_SO_MTU, ipn.IPN_SO_NUMNODES, ipn.IPN_SO_MSGPOOLSIZE, ipn.IPN_SO_FLAGS, ipn.IPN_SO_MODE)
        assert [s.getsockopt(0, name) for name in names] == [1514, 32, 8, 0, 0o777]


def test_network_options_give_what_was_set_then_what_the_network_has(path: str) -> None:
    with ipn.bind(path, mtu=3000), ipn.socket() as s:
        s.setsockopt(0, ipn.IPN_SO_MTU, 9000)
        assert s.getsockopt(0, ipn.IPN_SO_MTU) == 9000
        s.connect(path)
        assert s.getsockopt(0, ipn.IPN_SO_MTU) == 3000
        assert s.getsockopt(0, ipn.IPN_SO_MODE) == -1


@pytest.mark.parametrize("option", [ipn.IPN_SO_MTU, ipn.IPN_SO_NUMNODES, ipn.IPN_SO_MSGPOOLSIZE])
@pytest.mark.parametrize("value", [0, -1, 1 << 31])
def test_network_options_out_of_range_are_einval(option: int, value: int) -> None:
    with ipn.socket() as s:
        fails_with(errno.EINVAL, lambda: s.setsockopt(0, option, value))


def test_network_options_are_set_before_joining_only(path: str) -> None:
    with ipn.bind(path) as net:
        fails_with(errno.EISCONN, lambda: net.setsockopt(0, ipn.IPN_SO_MTU, 100))


def test_options_may_be_given_and_taken_as_the_bytes_of_a_c_int() -> None:
    with ipn.socket() as s:
        s.setsockopt(0, ipn.IPN_SO_MTU, struct.pack("@i", 1000))
        assert s.getsockopt(0, ipn.IPN_SO_MTU, 4) == struct.pack("@i", 1000)
        fails_with(errno.EINVAL, lambda: s.setsockopt(0, ipn.IPN_SO_MTU, b"\1\0"))
        fails_with(errno.EOVERFLOW, lambda: s.getsockopt(0, ipn.IPN_SO_MTU, 2))


def test_the_number_of_ports_changes_at_run_time_on_a_bound_socket(path: str) -> None:
    with ipn.bind(path, ports=4) as net, ipn.connect(path, port=3) as member:
        net.setsockopt(0, ipn.IPN_SO_CHANGE_NUMNODES, 8)
        assert net.getsockopt(0, ipn.IPN_SO_NUMNODES) == 8
        fails_with(errno.EADDRINUSE, lambda: net.setsockopt(0, ipn.IPN_SO_CHANGE_NUMNODES, 3))
        assert net.getsockopt(0, ipn.IPN_SO_NUMNODES) == 8
        net.setsockopt(0, ipn.IPN_SO_CHANGE_NUMNODES, 4)
        fails_with(errno.EINVAL, lambda: net.setsockopt(0, ipn.IPN_SO_CHANGE_NUMNODES, 0))
        fails_with(errno.ENOTCONN, lambda: member.setsockopt(0, ipn.IPN_SO_CHANGE_NUMNODES, 9))
    with ipn.socket() as s:
        fails_with(errno.ENOTCONN, lambda: s.setsockopt(0, ipn.IPN_SO_CHANGE_NUMNODES, 9))


def test_a_description_has_at_most_128_bytes_and_is_shown(path: str) -> None:
    with ipn.bind(path) as net, ipn.connect(path, descr="camera") as member:
        assert net.show()["ports"][0]["description"] == "camera"
        member.setsockopt(0, ipn.IPN_SO_DESCR, b"second camera\0")
        assert net.show()["ports"][0]["description"] == "second camera"
        assert member.getsockopt(0, ipn.IPN_SO_DESCR) == b"second camera"
        assert member.getsockopt(0, ipn.IPN_SO_DESCR, 128) == b"second camera".ljust(128, b"\0")
        fails_with(errno.EINVAL, lambda: member.setsockopt(0, ipn.IPN_SO_DESCR, b"x" * 129))
        fails_with(errno.EINVAL, lambda: member.getsockopt(0, ipn.IPN_SO_DESCR, 127))


def test_the_port_is_chosen_before_connect(path: str) -> None:
    with ipn.bind(path), ipn.connect(path) as member:
        fails_with(errno.EISCONN, lambda: member.setsockopt(0, ipn.IPN_SO_PORT, 3))
    with ipn.socket() as s:
        assert s.getsockopt(0, ipn.IPN_SO_PORT) == ipn.IPN_PORTNO_ANY
        fails_with(errno.EINVAL, lambda: s.setsockopt(0, ipn.IPN_SO_PORT, -2))


def test_unknown_options_and_levels_are_refused(path: str) -> None:
    with ipn.bind(path) as net, ipn.socket() as s:
        fails_with(errno.ENOPROTOOPT, lambda: s.setsockopt(0, 55, 1))
        fails_with(errno.ENOPROTOOPT, lambda: s.getsockopt(0, 55))
        fails_with(errno.EPROTONOSUPPORT, lambda: net.setsockopt(7, 1, 1))
        fails_with(errno.EPROTONOSUPPORT, lambda: net.getsockopt(7, 1))


def test_options_of_the_policy_go_to_the_policy(path: str) -> None:
    with ipn.bind(path) as net:
        fails_with(errno.EOPNOTSUPP, lambda: net.setsockopt(ipn.IPN_BROADCAST, 1, 1))
        fails_with(errno.EOPNOTSUPP, lambda: net.getsockopt(ipn.IPN_BROADCAST, 1))
        fails_with(errno.EOPNOTSUPP, lambda: net.ioctl(0x1234, 1))
    with ipn.socket() as s:
        fails_with(errno.ENOTCONN, lambda: s.ioctl(0x1234))


# -- out of band ---------------------------------------------------------------------------------------------------


def oob_of(s: ipn.Socket) -> tuple[int, int]:
    data, _, flags, _ = s.recvmsg()
    assert flags & socket.MSG_OOB
    notice = ipn.NumNodes.unpack(data)
    assert (notice.level, notice.tag) == (ipn.IPN_ANY, ipn.IPN_OOB_NUMNODE_TAG)
    assert len(data) == 16
    return notice.numreaders, notice.numwriters


@KINDS
def test_who_asked_is_told_each_change_of_readers_and_writers(path: str, packet: bool) -> None:
    with ipn.bind(path), ipn.connect(path, oob=True, packet=packet, timeout=5) as watcher:
        assert oob_of(watcher) == (1, 1)
        other = ipn.connect(path)
        assert oob_of(watcher) == (2, 2)
        other.shutdown(socket.SHUT_RD)
        assert oob_of(watcher) == (1, 2)
        other.close()
        assert oob_of(watcher) == (1, 1)
        assert not readable(watcher, 0)


@KINDS
def test_notices_come_before_messages(path: str, packet: bool) -> None:
    with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path, oob=True, packet=packet, timeout=5) as watcher:
        assert oob_of(watcher) == (2, 2)
        a.send_many([b"1", b"2"])
        eventually(lambda: a.show()["ports"][1]["tx_frames"] == 2)
        with ipn.connect(path):
            eventually(lambda: a.show()["readers"] == 3)
            assert oob_of(watcher) == (3, 3)
            assert [watcher.recv(), watcher.recv()] == [b"1", b"2"]


@KINDS
def test_fileno_tells_of_notices_too_and_of_nothing_else(path: str, packet: bool) -> None:
    with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path, oob=True, packet=packet) as watcher:
        watcher.setblocking(False)
        for round_ in range(20):
            assert readable(watcher, 5)
            oob_of(watcher)
            a.send(b"between")
            other = ipn.connect(path)
            heard = []
            while len(heard) < 2:
                assert readable(watcher, 5), f"round {round_}: {heard}"
                data, _, flags, _ = watcher.recvmsg()
                heard.append("oob" if flags & socket.MSG_OOB else data.decode())
            assert sorted(heard) == ["between", "oob"]
            assert not readable(watcher, 0)
            other.close()


def test_a_send_only_node_may_receive_notices_only(path: str) -> None:
    with ipn.bind(path), ipn.connect(path, oob=True, receive=False, timeout=5) as sender, ipn.connect(path) as other:
        assert oob_of(sender) == (0, 1)
        assert oob_of(sender) == (1, 2)
        other.send(b"not for the sender")
        sender.setblocking(False)
        fails_with(errno.EAGAIN, sender.recv)


def test_notices_need_handle_oob_first(path: str) -> None:
    with ipn.socket() as s:
        fails_with(errno.EINVAL, lambda: s.setsockopt(0, ipn.IPN_SO_WANT_OOB_NUMNODES, 1))
        s.setsockopt(0, ipn.IPN_SO_HANDLE_OOB, 1)
        s.setsockopt(0, ipn.IPN_SO_WANT_OOB_NUMNODES, 1)
        assert s.getsockopt(0, ipn.IPN_SO_WANT_OOB_NUMNODES) == 1


def test_notices_can_be_asked_for_after_connect(path: str) -> None:
    with ipn.bind(path), ipn.connect(path, timeout=5) as s:
        s.setsockopt(0, ipn.IPN_SO_HANDLE_OOB, 1)
        s.setsockopt(0, ipn.IPN_SO_WANT_OOB_NUMNODES, 1)
        with ipn.connect(path):
            assert oob_of(s) == (2, 2)


def test_a_sender_can_stop_while_nobody_listens(path: str) -> None:
    with ipn.bind(path), ipn.connect(path, oob=True, receive=False, timeout=5) as sender:
        assert oob_of(sender)[0] == 0
        listener = ipn.connect(path)
        assert oob_of(sender)[0] == 1
        sender.send(b"now")
        assert listener.recv() == b"now"
        listener.close()
        assert oob_of(sender)[0] == 0


# -- the end -------------------------------------------------------------------------------------------------------


@KINDS
def test_when_the_daemon_dies_messages_end_and_sending_is_connection_reset(
    ipnd: RunningDaemon, path: str, packet: bool
) -> None:
    with ipn.bind(path), ipn.connect(path, packet=packet, timeout=5) as net, ipn.connect(path, receive=False) as mute:
        ipnd.kill()
        assert net.recv() == b""
        assert net.recv_many() == []
        fails_with(errno.ECONNRESET, lambda: net.send(b"x"))
        fails_with(errno.ECONNRESET, lambda: net.send_many([b"x"]))
        fails_with(errno.ECONNRESET, net.show)
        assert mute.recv() == b""
        ipnd.start()


def test_a_closed_socket_is_ebadf(path: str) -> None:
    with ipn.bind(path) as net:
        net.connect()
    assert net.fileno() == -1
    assert net.closed
    fails_with(errno.EBADF, lambda: net.send(b"x"))
    fails_with(errno.EBADF, net.recv)
    fails_with(errno.EBADF, lambda: net.bind(path))
    net.close()


def test_the_descriptor_keeps_its_number_through_connect(path: str) -> None:
    with ipn.bind(path) as net:
        number = net.fileno()
        net.connect()
        assert net.fileno() == number


def test_a_forked_child_shares_the_membership_until_the_last_copy_is_closed(path: str) -> None:
    with ipn.bind(path) as manager, ipn.connect(path, timeout=5) as listener:
        member = ipn.connect(path)
        child = os.fork()
        if child == 0:
            member.send(b"from the child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert listener.recv() == b"from the child"
        member.send(b"from the parent")
        assert listener.recv() == b"from the parent"
        assert manager.show()["members"] == 2
        member.close()
        eventually(lambda: manager.show()["members"] == 1)


def test_the_parent_may_leave_while_its_child_stays(path: str) -> None:
    with ipn.bind(path) as manager, ipn.connect(path, timeout=5) as listener:
        member = ipn.connect(path)
        go_read, go_write = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(go_read, 1)
            member.send(b"orphan")
            os._exit(0)
        member.close()
        os.write(go_write, b"x")
        assert listener.recv() == b"orphan"
        os.waitpid(child, 0)
        os.close(go_read)
        os.close(go_write)
        eventually(lambda: manager.show()["members"] == 1)


def test_many_threads_may_send_on_one_socket(path: str) -> None:
    with ipn.bind(path, lossless=True, mtu=60_000), ipn.connect(path) as shared, ipn.connect(path, timeout=10) as b:
        def send(mark: int) -> None:
            for n in range(100):
                shared.send(bytes([mark]) * (1 + n * 500))

        threads = [threading.Thread(target=send, args=(mark,)) for mark in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(400):
            message = b.recv()
            assert message == message[:1] * len(message)
        for thread in threads:
            thread.join()
