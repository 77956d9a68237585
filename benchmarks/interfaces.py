"""Interfaces on a network: two hosts that are network namespaces, each by a TAP, or by a raw member as a guest is.

A host's ``eth0`` is a TAP that the switch itself reads ("tap"), or one of a process of its own that is a member
("stream", see ``shuttle.c``, the same program on either switch). The namespaces have no names: a process holds each,
and they end with it, however the benchmark ends. Figures are iperf3's, and those of ``load.c`` for round trips.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from pairing import Figures, Measure, MeasureError
from peers import SBIN, Bench, Process, Starter, Switch, ipn_network, load, program, running, vde_switch

TAP: Final = "tap"
STREAM: Final = "stream"
PACKAGES: Final = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
}
"""Programs that are used here → the Debian packages they are in."""
TUN: Final = "/dev/net/tun"
PORT: Final = 5201
LISTENING: Final = "0A"
HOLD: Final = """\
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up && echo held && exec cat
"""
"""What holds a namespace: without IPv6, whose announcements would be traffic of their own, until its input ends."""
HEADERS: Final = 14 + 20 + 8
"""Bytes of Ethernet, IPv4 and UDP ahead of a datagram's."""
PINGS_PER_SECOND: Final = 4000
GRACE_SECONDS: Final = 30.0
MEET_SECONDS: Final = 10


def impossible() -> str:
    """Return why these cases cannot be measured here; "" when they can."""
    if os.geteuid() != 0:
        return "network namespaces and TAPs need root (or: unshare -Urn)"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} is missing or may not be opened (modprobe tun)"
    missing = sorted({package for name, package in PACKAGES.items() if shutil.which(name, path=SBIN) is None})
    return f"not installed: apt install {' '.join(missing)}" if missing else ""


# -- hosts -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Host:
    """A network namespace, held by ``process``; it is to have ``address`` on ``eth0``, which is of the kind ``end``."""

    end: str
    address: str
    process: Process

    def within(self, *command: object) -> list[str]:
        """Return ``command`` as it is run in the namespace: by the process itself that is started, not a child."""
        return [program("nsenter", "util-linux"), f"--net=/proc/{self.process.pid}/ns/net", *map(str, command)]

    def run(self, *command: object) -> str:
        """Run ``command`` here and return what it printed."""
        return _run(self.within(*command))

    def interfaces(self) -> set[str]:
        """Return the names of its interfaces."""
        lines = Path(f"/proc/{self.process.pid}/net/dev").read_text().splitlines()
        return {line.partition(":")[0].strip() for line in lines[2:]}

    def set_up(self) -> None:
        """Give ``eth0`` the address, up."""
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "PATH": SBIN}, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise MeasureError(f"{' '.join(command)} ended with {done.returncode}{': ' if said else ''}{' / '.join(said)}")
    return done.stdout


@contextmanager
def _host(bench: Bench, number: int, end: str) -> Iterator[Host]:
    command = [program("unshare", "util-linux"), "--net", "sh", "-c", HOLD]
    with running(bench.scratch, f"host-{number}", command, {**os.environ, "PATH": SBIN}) as process:
        process.wait_until(lambda: "held" in process.said(), "it had made a network namespace")
        yield Host(end, f"10.4.0.{number}", process)


# -- switches ----------------------------------------------------------------------------------------------------


Wiring = Callable[[Bench, Sequence[Host]], AbstractContextManager[Switch]]
"""Starts a switch whose TAPs are the ``eth0`` of those hosts that are to have one."""


def vde_wires(*arguments: str) -> Wiring:
    """Return what starts a vde_switch with ``arguments``. It makes TAPs where it runs; each is moved to its host."""

    @contextmanager
    def start(bench: Bench, hosts: Sequence[Host]) -> Iterator[Switch]:
        home = hosts[0]
        taps = {f"tap{number}": host for number, host in enumerate(hosts) if host.end == TAP}
        options = [word for name in taps for word in ("--tap", name)]
        with vde_switch(*arguments, *options, within=home.within())(bench) as switch:
            switch.process.wait_until(lambda: taps.keys() <= home.interfaces(), "it had made its TAPs")
            for name, host in taps.items():
                if host is not home:
                    home.run("ip", "link", "set", name, "netns", host.process.pid)
                host.run("ip", "link", "set", name, "name", "eth0")
            yield switch

    return start


def ipn_wires(**options: Any) -> Wiring:
    """Return what starts an ipnd with one network, as ``peers.ipn_network`` does. TAPs: by ipnctl, in each host."""
    network: Starter = ipn_network(**options)

    @contextmanager
    def start(bench: Bench, hosts: Sequence[Host]) -> Iterator[Switch]:
        with network(bench) as switch:
            for host in hosts:
                if host.end == TAP:
                    attach = ("net", "attach-tap", switch.address, "--name", "eth0")
                    host.run(sys.executable, "-m", "ipnctl", *attach)
            yield switch

    return start


@contextmanager
def _wired(
    bench: Bench, wiring: Wiring, ends: tuple[str, str], listeners: int = 0
) -> Iterator[tuple[Switch, Host, Host]]:
    """Give the switch, and two hosts on it that reach each other. ``listeners`` more members get what is for all."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(_host(bench, number, end)) for number, end in enumerate(ends, start=1)]
        switch = stack.enter_context(wiring(bench, hosts))
        for host in hosts:
            if host.end == STREAM:
                stack.enter_context(_guest(bench, switch, host))
        for _ in range(listeners):
            stack.enter_context(load(bench, switch, "recv"))
        for host in hosts:
            host.set_up()
        one, other = hosts
        one.run("ping", "-n", "-q", "-c1", "-i0.2", f"-w{MEET_SECONDS}", other.address)
        yield switch, one, other


@contextmanager
def _guest(bench: Bench, switch: Switch, host: Host) -> Iterator[Process]:
    """Run the shuttle as the owner of the host's ``eth0``; given when it has joined."""
    command = host.within(bench.shuttle, switch.kind, switch.address, "eth0")
    with running(bench.scratch, "shuttle", command) as process:
        process.wait_until(lambda: "joined" in process.said(), "it had joined")
        yield process


# -- measurements ------------------------------------------------------------------------------------------------


Cores = tuple[int, int] | None
"""Where the switch is kept, and where both hosts' programs are (numbers among the cores we may use); None: the kernel
places them, and what is measured depends much on which of them it puts on one core."""


def _place(cores: Cores, switch: Process, program_of_host: Process) -> None:
    if cores:
        switch.keep_on(cores[0])
        program_of_host.keep_on(cores[1])


def tcp(wiring: Wiring, ends: tuple[str, str], *, listeners: int = 0, cores: Cores = None) -> Measure:
    """Measure one TCP connection, from the first end to the second.

    ``listeners``: more raw members, that hear what the switch gives to all. Figures: rate (bits/s received), cpu (s of
    the switch's process for a GB received), resent (TCP segments for a GB received).
    """

    def measure(bench: Bench) -> Figures:
        with _wired(bench, wiring, ends, listeners) as (switch, one, other):
            end, cpu_ns = _iperf(bench, switch, one, other, cores=cores)
        received = end["sum_received"]["bytes"]
        if not received:
            raise MeasureError(f"of {end['sum_sent']['bytes']} bytes sent none arrived")
        return {
            "rate": end["sum_received"]["bits_per_second"],
            "cpu": cpu_ns / received,
            "resent": end["sum_sent"]["retransmits"] * 1e9 / received,
        }

    return measure


def datagrams(wiring: Wiring, ends: tuple[str, str], size: int) -> Measure:
    """Measure UDP datagrams of ``size`` bytes, sent as fast as the sender can.

    Figures: rate (datagrams/s received), lost (%), cpu (µs of the switch's process for a datagram received).
    """

    def measure(bench: Bench) -> Figures:
        with _wired(bench, wiring, ends) as (switch, one, other):
            end, cpu_ns = _iperf(bench, switch, one, other, "--udp", "--length", size, "--bitrate", 0)
        total = end["sum"]
        received = total["packets"] - total["lost_packets"]
        if not received:
            raise MeasureError(f"of {total['packets']} datagrams sent none arrived")
        return {"rate": received / total["seconds"], "lost": total["lost_percent"], "cpu": cpu_ns / 1000 / received}

    return measure


def udp_round_trips(wiring: Wiring, ends: tuple[str, str], size: int, cores: Cores = None) -> Measure:
    """Measure a process of the second host that answers every datagram of the first's, in frames of ``size`` bytes.

    Figures: p50, p99 (µs), cpu (µs of the switch for a frame delivered).
    """
    payload = size - HEADERS

    def measure(bench: Bench) -> Figures:
        count = int(PINGS_PER_SECOND * bench.seconds)
        with _wired(bench, wiring, ends) as (switch, one, other):
            answer = other.within(bench.load, "udp", f"{other.address}:{one.address}", "pong")
            ask = one.within(bench.load, "udp", f"{one.address}:{other.address}", "ping", payload, count)
            with running(bench.scratch, "load-pong", answer) as answerer:
                answerer.wait_until(lambda: "joined" in answerer.said(), "it had its socket")
                _place(cores, switch.process, answerer)
                before = switch.process.cpu_ns()
                with running(bench.scratch, "load-ping", ask) as asker:
                    _place(cores, switch.process, asker)
                    report = asker.finish(bench.seconds + GRACE_SECONDS)
                cpu_ns = switch.process.cpu_ns() - before
        return {"p50": report["p50_us"], "p99": report["p99_us"], "cpu": cpu_ns / 1000 / (2 * count)}

    return measure


def _iperf(
    bench: Bench, switch: Switch, one: Host, other: Host, *options: object, cores: Cores = None
) -> tuple[dict[str, Any], int]:
    """Run iperf3 from ``one`` to ``other``; return the end of its report and the ns of CPU that the switch took.

    iperf3 counts whole seconds: at least one.
    """
    iperf3 = program("iperf3", "iperf3")
    serve = other.within(iperf3, "--server", "--one-off", "--bind", other.address, "--port", PORT)
    seconds = max(1, round(bench.seconds))
    ask = (iperf3, "--client", other.address, "--port", PORT, "--json", "--time", seconds, "--connect-timeout", 5000)
    with running(bench.scratch, "iperf3-server", serve) as server:
        server.wait_until(lambda: _listens(server), "it listened")
        _place(cores, switch.process, server)
        before = switch.process.cpu_ns()
        with running(bench.scratch, "iperf3", one.within(*ask, *options)) as client:
            _place(cores, switch.process, client)
            report = client.finish(seconds + GRACE_SECONDS)
        return report["end"], switch.process.cpu_ns() - before


def _listens(server: Process) -> bool:
    """Tell whether somebody listens at PORT in the server's namespace (/proc/net/tcp of proc(5))."""
    lines = Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]
    return any((row := line.split())[1].endswith(f":{PORT:04X}") and row[3] == LISTENING for line in lines)
