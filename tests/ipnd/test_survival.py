"""Bad input and bad luck: the offender gets an error or is closed, with one log line; nobody else loses anything."""

from __future__ import annotations

import array
import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ipn
from ipn import admin
from ipn.abi import IPN_ANY
from ipn.rendezvous import open_network
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually


class Client:
    """A control connection written by hand, to say what the library would not."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(path)
        self.sock.sendall(b"IPN1")

    def send(self, body: object, fds: tuple[int, ...] = ()) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([struct.pack(">I", len(data)) + data], rights)

    def receive(self) -> dict[str, object] | None:
        prefix = self.sock.recv(4, socket.MSG_WAITALL)
        if len(prefix) < 4:
            return None
        reply: dict[str, object] = json.loads(self.sock.recv(struct.unpack(">I", prefix)[0], socket.MSG_WAITALL))
        return reply

    def ask(self, **message: object) -> dict[str, object] | None:
        self.send({"id": 1, **message})
        return self.receive()

    def hello(self) -> Client:
        assert "ok" in (self.ask(op="hello", version=1) or {})
        return self

    def closed(self) -> bool:
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def conversation(ipnd: RunningDaemon) -> Iterator[ipn.Socket]:
    """Two members talking all the while: at the end each must have heard every message of the other, in order."""
    path = ipnd.path("busy")
    with ipn.bind(path) as net, ipn.connect(path, timeout=10) as a, ipn.connect(path, timeout=10) as b:
        done = threading.Event()
        counts: dict[ipn.Socket, int] = {}

        def ping() -> None:
            number = 0
            while not done.is_set() or number < 50:
                a.send(b"%d" % number)
                assert a.recv() == b"%d" % number
                number += 1
            counts[a] = number
            a.send(b"end")

        def pong() -> None:
            number = 0
            while (message := b.recv()) != b"end":
                assert message == b"%d" % number
                b.send(message)
                number += 1
            counts[b] = number

        threads = [threading.Thread(target=ping), threading.Thread(target=pong)]
        for thread in threads:
            thread.start()
        yield net
        done.set()
        for thread in threads:
            thread.join(30)
        assert counts[a] == counts[b] >= 50


# -- the control protocol --------------------------------------------------------------------------------------------


def test_unknown_ops_are_refused_and_the_connection_goes_on(ipnd: RunningDaemon) -> None:
    client = Client(ipnd.control).hello()
    for op in ("fly", "", 7, None, ["list"], "x" * 1000):
        reply = client.ask(op=op)
        assert reply is not None
        assert reply["error"]["errno"] == "EOPNOTSUPP"  # type: ignore[index]
    assert client.ask(op="list") == {"id": 1, "ok": []}
    client.close()


def test_nothing_is_answered_before_hello(ipnd: RunningDaemon) -> None:
    client = Client(ipnd.control)
    reply = client.ask(op="list")
    assert reply is not None
    assert reply["error"]["errno"] == "EPROTO"  # type: ignore[index]
    reply = client.ask(op="hello", version=99)
    assert reply is not None
    assert "version 1" in reply["error"]["message"]  # type: ignore[index]
    client.close()


WRONG_TYPES = [None, True, "7", 1.5, [], {}, -5, 1 << 70]


def test_fields_of_the_wrong_type_are_refused_by_name(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path):
        client = Client(path).hello()
        for op, fields in [
            ("connect", {"port": "x"}), ("connect", {"shut_rd": 1}), ("connect", {"descr": 5}),
            ("connect", {"descr": "x" * 129}), ("connect", {"data": "telepathy"}), ("connect", {"policy": []}),
            ("resize", {"maxports": True}), ("resize", {}), ("resize", {"maxports": 1 << 80}),
        ]:
            reply = client.ask(op=op, **fields)
            assert reply is not None
            assert reply["error"]["errno"] == "EINVAL", (op, fields, reply)  # type: ignore[index]
            assert all(name in reply["error"]["message"] for name in fields)  # type: ignore[index]
        assert client.ask(op="bind", policy=0)["ok"]["mtu"] == 1514  # type: ignore[index]
        client.close()


@pytest.mark.parametrize(
    "noise",
    [b"not json", b"[1,2]", b'"text"', b"{" * 5000, b"\xff\xfe\x00", b"", b"null", b'{"id":1,"op":'],
    ids=["text", "list", "string", "deep", "binary", "empty", "null", "cut"],
)
def test_what_is_no_control_message_ends_its_connection_with_one_line(
    ipnd: RunningDaemon, conversation: ipn.Socket, noise: bytes
) -> None:
    client = Client(ipnd.control).hello()
    start = len(ipnd.log)
    client.send(noise)
    assert client.closed()
    ipnd.wait_for_log("closing the connection of", start=start)
    client.close()
    assert len(ipnd.log) == start + 1


def test_a_control_message_of_four_gib_ends_its_connection(ipnd: RunningDaemon, conversation: ipn.Socket) -> None:
    client = Client(ipnd.control).hello()
    client.sock.sendall(b"\xff\xff\xff\xff" + b"x" * 1000)
    assert client.closed()
    client.close()


def test_too_many_descriptors_end_the_connection_and_none_leaks(ipnd: RunningDaemon, conversation: ipn.Socket) -> None:
    before = ipnd.fds()
    for count in (1, 3, 5, 50, 250):
        client = Client(ipnd.control).hello()
        with contextlib.suppress(BrokenPipeError):
            client.send({"id": 1, "op": "list"}, fds=(0,) * count)
            if count <= 4:
                assert client.receive() == {"id": 1, "ok": client_list(ipnd)}
            else:
                assert client.closed()
        client.close()
    eventually(lambda: ipnd.fds() <= before)


def client_list(ipnd: RunningDaemon) -> object:
    client = Client(ipnd.control).hello()
    reply = client.ask(op="list")
    client.close()
    assert reply is not None
    return reply["ok"]


def test_create_with_the_wrong_descriptors_is_refused_and_none_leaks(ipnd: RunningDaemon) -> None:
    before = ipnd.fds()
    plain = os.open(ipnd.path("plain"), os.O_RDWR | os.O_CREAT)
    pair = socket.socketpair()
    name = os.open(ipnd.control, os.O_PATH)
    client = Client(ipnd.control).hello()
    for fds in [(), (plain,), (plain, plain), (pair[0].fileno(), plain), (pair[0].fileno(), name), (0, 1, 2)]:
        client.send({"id": 1, "op": "create", "path": "/x", "policy": 1}, fds=fds)
        reply = client.receive()
        assert reply is not None
        assert reply["error"]["errno"] == "EINVAL", (fds, reply)  # type: ignore[index]
    client.close()
    os.close(plain)
    os.close(name)
    for sock in pair:
        sock.close()
    eventually(lambda: ipnd.fds() <= before)


def test_a_client_that_asks_and_never_reads_is_closed_and_costs_nobody(
    ipnd: RunningDaemon, conversation: ipn.Socket
) -> None:
    client = Client(ipnd.path("busy")).hello()
    client.sock.setblocking(False)
    request = json.dumps({"id": 1, "op": "show"}).encode()
    frame = struct.pack(">I", len(request)) + request
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            client.sock.sendall(frame)
    assert conversation.show()["members"] == 2
    assert ipnd.rss_kib() < 100 * 1024
    client.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_noise_of_any_kind_on_the_control_socket_leaves_the_daemon_well(ipnd: RunningDaemon, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
        sock.connect(ipnd.control)
        sock.sendall(b"IPN1" * (len(data) % 2) + data)
    assert client_list(ipnd) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_noise_of_any_kind_on_a_networks_path_leaves_its_members_well(ipnd: RunningDaemon, data: bytes) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, mtu=5) as net, ipn.connect(path) as a, ipn.connect(path, timeout=5) as b:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
            sock.connect(path)
            sock.sendall(data)
        eventually(lambda: net.show()["members"] == 2)
        a.send(b"well?")
        while b.recv() != b"well?":
            pass
    eventually(lambda: not os.path.exists(path))


# -- crowds ----------------------------------------------------------------------------------------------------------


def test_ten_thousand_connections_that_say_nothing(ipnd: RunningDaemon, conversation: ipn.Socket) -> None:
    """On a network's path they become raw members while ports last; the rest is turned away in few words."""
    before = ipnd.fds()
    crowd_code = f"""
import socket, resource, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
socks = []
for n in range(10_000):
    s = socket.socket(socket.AF_UNIX); s.connect({ipnd.path("busy")!r}); socks.append(s)
print("all in", flush=True)
sys.stdin.readline()
"""
    crowd = subprocess.Popen(
        [sys.executable, "-c", crowd_code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert crowd.stdout is not None
    assert crowd.stdout.readline() == "all in\n"
    eventually(lambda: conversation.show()["members"] == 32, 20)
    eventually(lambda: conversation.show()["refused"] == 10_000 - 30, 20)
    assert len([line for line in ipnd.log if "turned away" in line]) < 20
    crowd.communicate("\n")
    eventually(lambda: conversation.show()["members"] == 2, 20)
    eventually(lambda: ipnd.fds() <= before, 20)


def test_a_thousand_members_of_one_network(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path, ports=1001) as net, ipn.connect(path) as speaker:
        idle = ipnd.rss_kib()
        members = [ipn.connect(path, timeout=10) for _ in range(1000)]
        assert (ipnd.rss_kib() - idle) / 1000 <= 64
        speaker.send(b"to all")
        assert [m.recv() for m in members] == [b"to all"] * 1000
        assert net.show()["members"] == 1001
        for member in members:
            member.close()
        eventually(lambda: net.show()["members"] == 1, 20)


def test_a_thousand_networks(ipnd: RunningDaemon) -> None:
    assert ipnd.rss_kib() <= 60 * 1024
    before = ipnd.fds()
    nets = [ipn.bind(ipnd.path(f"net{n}")) for n in range(1000)]
    with ipn.connect(ipnd.path("net7")) as a, ipn.connect(ipnd.path("net7"), timeout=5) as b:
        a.send(b"lucky")
        assert b.recv() == b"lucky"
    for net in nets:
        net.close()
    eventually(lambda: client_list(ipnd) == [], 20)
    eventually(lambda: ipnd.fds() <= before)


def test_an_idle_daemon_uses_no_processor_time(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path), ipn.connect(path) as a, ipn.connect(path) as b:
        a.send(b"x")
        b.recv()
        eventually(lambda: ticks(ipnd) == ticks(ipnd, pause=0.5))


def ticks(ipnd: RunningDaemon, pause: float = 0) -> int:
    time.sleep(pause)
    with open(f"/proc/{ipnd.process.pid}/schedstat") as file:
        return int(file.read().split()[0])


# -- members that die ------------------------------------------------------------------------------------------------

VICTIM = """
import ipn, os, random, sys
net = ipn.connect(sys.argv[1], send=True)
while True:
    net.send_many([b"victim" + os.urandom(random.randrange(1, 1400)) for _ in range(20)])
    net.setblocking(False)
    try: net.recv_many()
    except BlockingIOError: pass
    net.setblocking(True)
"""


@pytest.mark.parametrize("lossless", [False, True], ids=["lossy", "lossless"])
def test_members_killed_at_random_under_load_harm_nobody(ipnd: RunningDaemon, lossless: bool) -> None:
    path = ipnd.path("net")
    before = ipnd.fds()
    with (
        ipn.bind(path, lossless=lossless, pool=64) as net,
        ipn.connect(path, receive=False) as speaker,
        ipn.connect(path, send=False, timeout=20) as listener,
    ):
        total, heard = 3000, []

        def listen() -> None:
            while len(heard) < total:
                heard.extend(int(m[2:]) for m in listener.recv_many() if m.startswith(b"s:"))

        thread = threading.Thread(target=listen)
        thread.start()
        choice = random.Random(7)
        victims: list[subprocess.Popen[bytes]] = []
        sent = 0
        while sent < total:
            while len(victims) < 3:
                victims.append(subprocess.Popen([sys.executable, "-c", VICTIM, path], stderr=subprocess.DEVNULL))
            for _ in range(300):
                speaker.send(b"s:%d" % sent)
                sent += 1
            eventually(lambda: net.show()["members"] > 2, 20)
            victim = victims.pop(choice.randrange(len(victims)))
            if choice.random() < 0.3:
                victim.send_signal(signal.SIGSTOP)
            victim.kill()
            victim.wait()
        for victim in victims:
            victim.kill()
            victim.wait()
        thread.join(30)
        assert heard == list(range(total))
        listener.setblocking(False)

        def only_two_are_left() -> bool:
            with contextlib.suppress(BlockingIOError):
                listener.recv_many()  # what the dead have sent must have been taken before they are gone
            return bool(net.show()["members"] == 2)

        eventually(only_two_are_left)
    eventually(lambda: ipnd.fds() <= before)


def test_a_member_killed_in_the_middle_of_a_frame(ipnd: RunningDaemon, conversation: ipn.Socket) -> None:
    before = ipnd.fds()
    for size in (1, 3, 4, 5, 700):
        raw = RawMember(ipnd.path("busy"))
        raw.sock.sendall((struct.pack(">I", 1000) + bytes(1000))[:size])
        raw.sock.close()
    eventually(lambda: ipnd.fds() <= before)


def test_a_flood_that_never_reads_keeps_memory_bounded(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path), ipn.connect(path) as a:
        floods = [RawMember(path) for _ in range(10)]
        before = ipnd.rss_kib()
        for _ in range(300):
            a.send_many([bytes(1500)] * 100)
        assert ipnd.rss_kib() - before < 40 * 1024
        for flood in floods:
            flood.sock.close()


def test_a_data_socket_that_floods_on_without_its_control_connection_is_refused_by_the_kernel(
    ipnd: RunningDaemon,
) -> None:
    """What came before is still delivered; without an end to that the daemon could be kept at it for ever."""
    path = ipnd.path("net")
    admin.create_network(path, lossless=True)
    channel = open_network(path)
    _, (fd,) = channel.request("connect", policy=IPN_ANY, descr="", data="stream")
    frame = struct.pack(">I", 1000) + bytes(1000)
    with socket.socket(fileno=fd) as data, RawMember(path) as slow:
        eventually(lambda: admin.show_network(path)["members"] == 2)
        data.setblocking(False)
        sent = 0
        while not admin.show_network(path)["ports"][1]["queued"]:
            with contextlib.suppress(BlockingIOError):
                for _ in range(100):
                    sent += data.send(frame * 20)
        channel.close()
        eventually(lambda: refused(data, frame))
        for _ in range(sent // len(frame)):
            assert slow.recv_frame() == bytes(1000)
        eventually(lambda: admin.show_network(path)["members"] == 1)


def refused(sock: socket.socket, data: bytes) -> bool:
    """Tell whether the kernel says that nobody takes what is sent."""
    try:
        sock.send(data)
    except BlockingIOError:
        return False
    except BrokenPipeError:
        return True
    return False
