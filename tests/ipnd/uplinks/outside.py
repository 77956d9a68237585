"""The world that an uplink leads to, in a network namespace of the test's own, and guests that look for it.

The namespace has an interface with an address and a default route, as passt wants it, and the address that this
machine's resolv.conf names as its DNS server; there and on the loopback small servers answer.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from ipn import admin
from tests.lab import Host
from tests.netns import ip, own_namespace
from tests.raw import RawMember
from tests.running import RunningDaemon
from tests.waiting import eventually

ADDRESS: Final = "198.51.100.7"
GATEWAY: Final = "198.51.100.1"
MAC: Final = bytes.fromhex("020000000007")
ANSWER: Final = b"the host's loopback"

LEASE: Final = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "LEASE $ip $router $dns"
"""
ASK_TCP: Final = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as sock:
    print(sock.makefile().read(), end="")
"""
ASK_UDP: Final = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
sock.connect((sys.argv[1], 53))
for _ in range(5):
    try:
        sock.send(b"question")
        print(sock.recv(100).decode(), end="")
        break
    except OSError:
        pass
"""


@attrs.frozen
class Outside:
    """The servers: ``port`` of the one on 127.0.0.1, which says ``ANSWER``; ``resolver``: address of the DNS server."""

    port: int
    resolver: str


@contextmanager
def outside_world() -> Iterator[Outside]:
    """Be in a namespace of its own, with servers."""
    with own_namespace(), ExitStack() as stack:
        ip("link", "set", "lo", "up")
        ip("link", "add", "out0", "type", "veth", "peer", "name", "out1")
        ip("link", "set", "out1", "up")
        ip("link", "set", "out0", "up")
        ip("address", "add", f"{ADDRESS}/24", "dev", "out0")
        ip("route", "add", "default", "via", GATEWAY)
        resolver = _resolver()
        if not resolver.startswith("127."):
            ip("address", "add", f"{resolver}/32", "dev", "out0")
        tcp = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        udp = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        udp.bind((resolver, 53))
        threads = [threading.Thread(target=_serve_tcp, args=(tcp,)), threading.Thread(target=_serve_udp, args=(udp,))]
        for thread in threads:
            thread.start()
        try:
            yield Outside(tcp.getsockname()[1], resolver)
        finally:
            tcp.shutdown(socket.SHUT_RDWR)
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as last:
                last.sendto(b"", (resolver, 53))
            for thread in threads:
                thread.join()


def _resolver() -> str:
    found = re.search(r"^nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$", Path("/etc/resolv.conf").read_text(), re.MULTILINE)
    return found[1] if found else "127.0.0.1"


def _serve_tcp(listener: socket.socket) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock:
            sock.sendall(ANSWER)


def _serve_udp(sock: socket.socket) -> None:
    while True:
        data, sender = sock.recvfrom(1000)
        if not data:
            return
        sock.sendto(b"answer to " + data, sender)


# -- guests ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Lease:
    """What DHCP gave."""

    address: str
    router: str
    dns: str


def lease_of(guest: Host, directory: Path) -> Lease:
    """Have a guest ask by DHCP, with the real udhcpc, and configure itself with the answer."""
    script = directory / "lease"
    script.write_text(LEASE)
    script.chmod(0o755)
    done = guest.run("udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-s", str(script), timeout=30)
    found = re.search(r"LEASE (\S+) (\S+) (\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    return Lease(*found.groups())


def tcp(guest: Host, address: str, port: int) -> bytes:
    """Return what a TCP server says to a guest; empty when it cannot be reached."""
    return guest.run("python3", "-c", ASK_TCP, address, str(port), check=False).stdout.encode()


def udp(guest: Host, address: str) -> str:
    """Return what a server on the DNS port answers to a guest's question."""
    return guest.run("python3", "-c", ASK_UDP, address).stdout


def arp_answered(path: str, address: str, timeout: float = 5.0) -> bool:
    """Tell whether somebody on the network at ``path`` says that the IPv4 address is his."""
    parts = bytes(map(int, address.split(".")))
    head = bytes.fromhex("0806 0001 0800 0604 0001")
    request = b"\xff" * 6 + MAC + head + MAC + parts[:3] + bytes([parts[3] + 60]) + bytes(6) + parts
    with RawMember(path) as member:
        member.settimeout(0.2)

        def asked() -> bool:
            member.send_frame(request)
            try:
                while frame := member.recv_frame():
                    if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02" and frame[28:32] == parts:
                        return True
            except TimeoutError:
                pass
            return False

        return eventually(asked, timeout, f"nobody on {path} is {address}")


# -- what ipnd does --------------------------------------------------------------------------------------------------


def uplinks(path: str) -> list[dict[str, Any]]:
    """Return the uplinks of a network."""
    return [fixture for fixture in admin.show_network(path)["fixtures"] if fixture["group"] == "uplink"]


def wait_until_up(path: str) -> dict[str, Any]:
    """Wait until the one uplink of a network is up; return its port."""
    eventually(lambda: [uplink["state"] for uplink in uplinks(path)] == ["up"], 10, f"not up: {path}")
    return next(port for port in admin.show_network(path)["ports"] if port["kind"] in ("passt", "slirp"))


def programs_of(ipnd: RunningDaemon) -> dict[int, list[str]]:
    """Return the programs that the daemon runs: pid → command line."""
    tasks = Path(f"/proc/{ipnd.process.pid}/task").iterdir()
    pids = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    lines = {}
    for pid in pids:
        try:
            lines[pid] = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
        except OSError:
            continue
    return {pid: line for pid, line in lines.items() if line}


def is_alive(pid: int) -> bool:
    """Tell whether a process runs (one that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def only_program(ipnd: RunningDaemon) -> int:
    """Wait until the daemon runs one program, and return its pid."""
    return eventually(lambda: len(found := list(programs_of(ipnd))) == 1 and found[0])
