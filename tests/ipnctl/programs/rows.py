"""What tests/programs/rows.c does, with the library: ``python -m tests.ipnctl.programs.rows SECTION DIRECTORY``.

Prints the same rows in the same order, but for those that only C has: "name <tab> result <tab> errno <tab> value".
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import ipn
from ipn.abi import IPN_SETPERSIST, SIOCSIFHWADDR

Call = Callable[[], Any]

directory = ""


def at(name: str) -> str:
    return f"{directory}/{name}"


def row(name: str, call: Call, shown: Callable[[Any], str] = lambda value: "") -> None:
    """Print what ``call`` comes to; ``shown``: what of its value is compared."""
    try:
        value = call()
    except OSError as error:
        print(name, -1, error.errno, "", sep="\t")
        return
    print(name, value if type(value) is int and shown(value) == "" else 0, 0, shown(value), sep="\t")


def new(policy: int = ipn.IPN_BROADCAST) -> ipn.Socket:
    return ipn.socket(ipn.AF_IPN, ipn.SOCK_RAW, policy)


def put(net: ipn.Socket, option: int, number: int) -> Call:
    return lambda: net.setsockopt(0, option, number)


def get(name: str, net: ipn.Socket, level: int, option: int) -> None:
    row(name, lambda: net.getsockopt(level, option), str)


def named(name: str, call: Callable[[], str]) -> None:
    row(name, call, lambda path: path[len(directory) + 1 :])


def made(name: str, type_: int, policy: int) -> None:
    row(name, lambda: ipn.socket(ipn.AF_IPN, type_, policy).close())


def polled(name: str, net: ipn.Socket) -> None:
    poll = select.poll()
    poll.register(net, select.POLLIN | select.POLLOUT)
    found = dict(poll.poll(0)).get(net.fileno(), 0)
    print(name, int(found != 0), 0, found, sep="\t")


def received(name: str, net: ipn.Socket, size: int, flags: int) -> None:
    try:
        data, _, out, _ = net.recvmsg(size, 0, flags)
    except OSError as error:
        print(name, -1, error.errno, "", sep="\t")
        return
    print(name, len(data), 0, f"{out} {data[:8].split(bytes(1))[0].decode()}", sep="\t")


def request(when: str, net: ipn.Socket, kind: int) -> None:
    nothing = ipn.ifreq("nothing0")
    for name, number, argument in (
        ("IPN_CONN_NETDEV", ipn.IPN_CONN_NETDEV, ipn.ifreq("nothing0", flags=kind)),
        ("IPN_JOIN_NETDEV", ipn.IPN_JOIN_NETDEV, nothing),
        ("IPN_SETPERSIST", IPN_SETPERSIST, 1),
        ("IPN_SETPERSIST_NETDEV", ipn.IPN_SETPERSIST_NETDEV, nothing),
        ("IPN_CLRPERSIST_NETDEV", ipn.IPN_CLRPERSIST_NETDEV, nothing),
        ("SIOCSIFHWADDR", SIOCSIFHWADDR, nothing),
        ("IPN_REQUEST(77)", ipn.IPN_CONN_NETDEV - 202 + 77, 0),
    ):
        row(f"ioctl {name} {when}", lambda number=number, argument=argument: net.ioctl(number, argument), lambda _: "")


def here() -> None:
    made("socket stream", socket.SOCK_STREAM, ipn.IPN_BROADCAST)
    made("socket datagram", socket.SOCK_DGRAM, ipn.IPN_BROADCAST)
    made("socket seqpacket", socket.SOCK_SEQPACKET, ipn.IPN_BROADCAST)
    made("socket policy 77", ipn.SOCK_RAW, 77)
    made("socket policy -1", ipn.SOCK_RAW, -1)
    made("socket policy 300", ipn.SOCK_RAW, 300)
    made("socket any", ipn.SOCK_RAW, ipn.IPN_ANY)
    made("socket switch", ipn.SOCK_RAW, ipn.IPN_VDESWITCH)
    made("socket flags", ipn.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, ipn.IPN_BROADCAST)
    net = new()
    row("send fresh", lambda: net.send(b"x"))
    row("recv fresh", lambda: net.recv(1, socket.MSG_DONTWAIT))
    polled("poll fresh", net)
    named("getsockname fresh", net.getsockname)
    named("getpeername fresh", net.getpeername)
    row("listen", lambda: net.listen(5))
    row("accept", net.accept)
    request("fresh", net, ipn.IPN_NODEFLAG_TAP)
    row("shutdown 7", lambda: net.shutdown(7))
    row("connect without path", net.connect)
    row("connect missing", lambda: net.connect(at("missing")))
    row("connect file", lambda: net.connect(at("file")))
    row("connect dead", lambda: net.connect(at("dead")))
    row("bind file", lambda: net.bind(at("file")))
    row("bind missing directory", lambda: net.bind(at("missing/net")))
    row("bind afterwards", lambda: net.bind(at("afterwards")))
    net.close()


OPTIONS: Final = (
    ("mtu", ipn.IPN_SO_MTU, 100),
    ("numnodes", ipn.IPN_SO_NUMNODES, 5),
    ("msgpoolsize", ipn.IPN_SO_MSGPOOLSIZE, 3),
    ("flags", ipn.IPN_SO_FLAGS, ipn.IPN_FLAG_LOSSLESS),
    ("mode", ipn.IPN_SO_MODE, 0o700),
    ("port", ipn.IPN_SO_PORT, 2),
    ("want_oob", ipn.IPN_SO_WANT_OOB_NUMNODES, 1),
    ("handle_oob", ipn.IPN_SO_HANDLE_OOB, 1),
    ("want_oob again", ipn.IPN_SO_WANT_OOB_NUMNODES, 1),
    ("change_numnodes", ipn.IPN_SO_CHANGE_NUMNODES, 6),
    ("unknown", 99, 1),
)


def try_options(when: str, net: ipn.Socket) -> None:
    for name, option, good in OPTIONS:
        get(f"{name} {when}", net, 0, option)
        for wrong in (0, -1, -2, 1 << 30):
            row(f"{name} {when} set {wrong}", put(net, option, wrong))
        row(f"{name} {when} set", put(net, option, good))
        get(f"{name} {when} afterwards", net, 0, option)


def describe(when: str, net: ipn.Socket) -> None:
    def read(room: int) -> Call:
        return lambda: net.getsockopt(0, ipn.IPN_SO_DESCR, room)

    def write(text: bytes) -> Call:
        return lambda: net.setsockopt(0, ipn.IPN_SO_DESCR, text)

    row(f"descr {when}", write(b"what a node is"))
    row(f"descr {when} read", read(ipn.IPN_DESCRLEN), lambda data: f"{len(data)} {data.rstrip(bytes(1)).decode()}")
    row(f"descr {when} too long", write(b"x" * (ipn.IPN_DESCRLEN + 1)))
    row(f"descr {when} longest", write(b"x" * ipn.IPN_DESCRLEN))
    row(f"descr {when} small room", read(ipn.IPN_DESCRLEN - 1))


def options() -> None:
    net, plain, hub = new(), new(), new(ipn.IPN_VDESWITCH)
    try_options("unbound", net)
    describe("unbound", net)
    row("option of 2 bytes", lambda: net.setsockopt(0, ipn.IPN_SO_PORT, bytes(2)))
    row("room of 2 bytes", lambda: net.getsockopt(0, ipn.IPN_SO_PORT, 2))
    row("level 2 unbound", lambda: net.setsockopt(2, 1, bytes(2)))
    row("bind", lambda: net.bind(at("options")))
    try_options("bound", net)
    describe("bound", net)
    row("connect", net.connect)
    try_options("connected", net)
    describe("connected", net)
    row("level of the policy", lambda: net.setsockopt(ipn.IPN_BROADCAST, 8, 4096))
    row("level of another policy", lambda: net.setsockopt(ipn.IPN_VDESWITCH, 8, 4096))
    get("level of another policy read", net, ipn.IPN_VDESWITCH, 8)
    row("bind with defaults", lambda: plain.bind(at("defaults")))
    try_options("default", plain)
    row("bind a switch", lambda: hub.bind(at("switch")))
    row("level 2 of a switch", lambda: hub.setsockopt(ipn.IPN_VDESWITCH, 1, 1))
    get("level 2 of a switch read", hub, ipn.IPN_VDESWITCH, 1)
    row("request of a switch", lambda: hub.ioctl(ipn.IPN_CONN_NETDEV - 202 + 5, 0))
    for each in (net, plain, hub):
        each.close()


def messages(net: ipn.Socket, other: ipn.Socket) -> None:
    data = b"long message".ljust(3000, b"\0")
    row("recv nothing", lambda: net.recv(1, socket.MSG_DONTWAIT))
    row("send", lambda: net.send(data[:4]))
    received("recv", other, 100, 0)
    row("send as long as the mtu", lambda: net.send(data[:1514]))
    received("recv as long as the mtu", other, 2000, 0)
    row("send longer than the mtu", lambda: net.send(data[:1515]))
    row("write longer than the mtu", lambda: net.send(data[:1515]))
    row("write", lambda: net.send(data[:5]))
    received("recv what was written", other, 100, 0)
    row("sendto somewhere", lambda: net.sendto(data[:6], at("elsewhere")))
    data_from = other.recvfrom(100)
    print("recvfrom", len(data_from[0]), 0, data_from[1][len(directory) + 1 :], sep="\t")
    row("send for a small room", lambda: net.send(b"0123456789"))
    received("recv in a small room", other, 4, 0)
    row("send the next", lambda: net.send(b"next"))
    received("recv the next", other, 100, 0)
    row("send for a look", lambda: net.send(b"look"))
    received("recv with a look ahead", other, 100, socket.MSG_PEEK)
    received("recv after a look ahead", other, 100, 0)
    polled("poll", other)
    row("send something to poll for", lambda: net.send(b"poll"))
    received("recv what poll was for", other, 100, 0)
    row("sendmsg longer than the mtu", lambda: net.sendmsg([data[:1000], data[:1000]]))
    row("send nothing", lambda: net.send(b""))
    row("send after that", lambda: net.send(b"that"))
    received("recv after that", other, 100, 0)


def joined() -> None:
    net, other, third = new(), new(ipn.IPN_ANY), new(ipn.IPN_VDESWITCH)
    row("numnodes", put(net, ipn.IPN_SO_NUMNODES, 3))
    row("bind", lambda: net.bind(at("joined")))
    row("bind twice", lambda: net.bind(at("joined")))
    row("bind another", lambda: net.bind(at("another")))
    row("send bound", lambda: net.send(b"x"))
    row("recv bound", lambda: net.recv(1, socket.MSG_DONTWAIT))
    named("getsockname bound", net.getsockname)
    named("getpeername bound", net.getpeername)
    request("bound", net, 0)
    row("bind with another policy", lambda: third.bind(at("joined")))
    row("connect with another policy", lambda: third.connect(at("joined")))
    row("connect bound to another", lambda: net.connect(at("another")))
    row("port", put(net, ipn.IPN_SO_PORT, 1))
    row("connect without path", net.connect)
    get("port connected", net, 0, ipn.IPN_SO_PORT)
    row("connect twice", lambda: net.connect(at("joined")))
    row("connect twice without path", net.connect)
    row("bind connected", lambda: net.bind(at("joined")))
    named("getpeername connected", net.getpeername)
    request("connected", net, ipn.IPN_NODEFLAG_TAP)

    row("port taken", put(other, ipn.IPN_SO_PORT, 1))
    row("connect port taken", lambda: other.connect(at("joined")))
    row("port too high", put(other, ipn.IPN_SO_PORT, 3))
    row("connect port too high", lambda: other.connect(at("joined")))
    row("port any", put(other, ipn.IPN_SO_PORT, ipn.IPN_PORTNO_ANY))
    row("connect any", lambda: other.connect(at("joined")))
    row("resize not bound", put(other, ipn.IPN_SO_CHANGE_NUMNODES, 5))
    row("resize below a used port", put(net, ipn.IPN_SO_CHANGE_NUMNODES, 1))
    get("numnodes after that", net, 0, ipn.IPN_SO_NUMNODES)
    row("resize", put(net, ipn.IPN_SO_CHANGE_NUMNODES, 2))
    get("numnodes resized", other, 0, ipn.IPN_SO_NUMNODES)
    third.close()
    third = new(ipn.IPN_ANY)
    row("connect full", lambda: third.connect(at("joined")))
    row("bind full", lambda: third.bind(at("joined")))
    named("getsockname of a manager", third.getsockname)
    messages(net, other)

    row("shutdown write", lambda: net.shutdown(ipn.SHUT_WR))
    row("send shut down", lambda: net.send(b"x"))
    row("send shut down too long", lambda: net.send(bytes(2000)))
    row("send to who has shut down", lambda: other.send(b"still"))
    received("recv shut down for writing", net, 100, 0)
    row("send unheard", lambda: other.send(b"unheard"))
    row("shutdown read", lambda: net.shutdown(ipn.SHUT_RD))
    received("recv shut down", net, 100, socket.MSG_DONTWAIT)
    for each in (net, other, third):
        each.close()

    net = new()
    row("shutdown both first", lambda: net.shutdown(ipn.SHUT_RDWR))
    row("bind for nothing", lambda: net.bind(at("nothing")))
    row("connect for nothing", net.connect)
    net.close()
    net = new(ipn.IPN_ANY)
    row("bind any", lambda: net.bind(at("any")))
    net.close()


def join_as_stranger(name: str) -> None:
    with new(ipn.IPN_ANY) as net:
        row(f"bind {name}", lambda: net.bind(at(name)))
    with new(ipn.IPN_ANY) as net:
        row(f"connect {name}", lambda: net.connect(at(name)))
        row(f"send {name}", lambda: net.send(b"x"))
        received(f"recv {name}", net, 10, socket.MSG_DONTWAIT)


def stranger() -> None:
    for name in ("r", "w", "rw", "none", "all", "dead"):
        join_as_stranger(name)
    with new() as net:
        row("shutdown read", lambda: net.shutdown(ipn.SHUT_RD))
        row("connect to r only to send", lambda: net.connect(at("r")))
        row("bind where nobody may write", lambda: net.bind(at("new")))
        row("bind its own", lambda: net.bind(at("open/own")))
        request("without privilege", net, ipn.IPN_NODEFLAG_TAP)


def end() -> None:
    with new(ipn.IPN_ANY) as net:
        row("connect", lambda: net.connect(at("end")))
        row("read a line", lambda: len(os.read(0, 1)))
        received("recv at the end", net, 100, 0)
        polled("poll at the end", net)
        row("send at the end", lambda: net.send(b"x"))
        named("getsockname at the end", net.getsockname)
        get("mtu at the end", net, 0, ipn.IPN_SO_MTU)
        row("shutdown at the end", lambda: net.shutdown(ipn.SHUT_WR))
        row("connect at the end", lambda: net.connect(at("end")))


SECTIONS: Final = {"here": here, "options": options, "joined": joined, "stranger": stranger, "end": end}

if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    directory = sys.argv[2]
    SECTIONS[sys.argv[1]]()
