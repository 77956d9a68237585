"""Real network stacks on a network of ours: hosts that are Linux network namespaces, each with a TAP as its ``eth0``.

``host``: a small process (``tests/shuttle.py``) sits in the namespace and carries frames between the TAP and a raw
member connection, as QEMU would for a guest. ``attached``: the TAP itself is the member. ``bare``: a namespace with
no network of ours. ``vlans`` gives a host interfaces ``eth0.N``: the kernel's own where it
has them (8021q), else TAPs whose frames the shuttle tags and untags, so that the network carries the same::

    with Lab() as lab:
        a = lab.host("a", path, "10.0.0.1/24")
        b = lab.host("b", path, "10.0.0.2/24")
        assert a.pings("10.0.0.2")
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import attrs

from ipn import admin
from tests.ipnctl.command import IPNCTL
from tests.peers import skip_or_fail
from tests.waiting import eventually

SHUTTLE: Final = Path(__file__).with_name("shuttle.py")
SBIN: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
NO_IPV6: Final = (
    "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"
)
NO_DAD: Final = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"


def command(*arguments: str, timeout: float = 20.0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said; ``check``: it must succeed."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout, env={**os.environ, "PATH": SBIN})
    assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done


@attrs.define(eq=False)
class Host:
    """A network namespace, on the network at ``path`` if it is on one. ``port`` is its number there."""

    name: str
    namespace: str
    path: str = ""
    shuttle: subprocess.Popen[str] | None = None
    attached: int | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        """What, put before a command, runs it on this host."""
        return ("ip", "netns", "exec", self.namespace)

    def run(self, *arguments: str, timeout: float = 20.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program on this host and return what it said; ``check``: it must succeed."""
        return command(*self.prefix, *arguments, timeout=timeout, check=check)

    def ip(self, *arguments: str, check: bool = True) -> str:
        """Run ip(8) on this host and return what it said."""
        return command("ip", "-n", self.namespace, *arguments, check=check).stdout

    def ipnctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``ipnctl`` on this host."""
        return self.run(*IPNCTL, *arguments, check=check)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program on this host that goes on running."""
        environment = {**os.environ, "PATH": SBIN}
        return subprocess.Popen([*self.prefix, *arguments], text=True, env=environment, **options)

    def pings(self, address: str, *options: str, count: int = 1, wait: int = 2) -> bool:
        """Tell whether each of ``count`` pings is answered within ``wait`` seconds."""
        done = self.run("ping", "-n", f"-c{count}", "-i0.1", f"-W{wait}", *options, address, check=False)
        return done.returncode == 0

    @property
    def mac(self) -> str:
        """The address of ``eth0``."""
        return self.run("cat", "/sys/class/net/eth0/address").stdout.strip()

    def row(self) -> dict[str, Any]:
        """Return this host's port as ``net show`` has it."""
        if self.attached is not None:
            return next(port for port in admin.show_network(self.path)["ports"] if port["port"] == self.attached)
        assert self.shuttle is not None
        pid = self.shuttle.pid
        return eventually(
            lambda: next((port for port in admin.show_network(self.path)["ports"] if port["pid"] == pid), {}),
            message=f"{self.name} is on no port of {self.path}",
        )

    @property
    def port(self) -> int:
        """The number of this host's port."""
        number: int = self.row()["port"]
        return number


class Lab:
    """Makes hosts and takes them down at the end. Skips the test where it cannot: it needs root, TAPs and iproute2."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._label = uuid.uuid4().hex[:8]

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            skip_or_fail("needs root")
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            skip_or_fail("needs /dev/net/tun")
        if missing := [program for program in ("ip", "ping") if shutil.which(program, path=SBIN) is None]:
            skip_or_fail(f"not installed: {', '.join(missing)}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def host(
        self,
        name: str,
        network_path: str,
        address: str | Sequence[str] | None = None,
        mac: str | None = None,
        *,
        vlans: Sequence[int] = (),
        ipv6: bool = False,
        mtu: int | None = None,
        second_tap: bool = False,
    ) -> Host:
        """Return a new host on a network. ``address``: one or several ``10.0.0.1/24``; ``ipv6``: it speaks that, too.

        ``second_tap``: it is a member twice, by ``eth0`` and ``eth1``.
        """
        host = self.bare(name, ipv6=ipv6)
        namespace, host.path = host.namespace, network_path
        kernel = bool(vlans) and _kernel_has_vlans(namespace)
        taps = ["eth0", *([] if kernel else [f"eth0.{vid}={vid}" for vid in vlans])]
        host.shuttle = self._start(namespace, network_path, taps)
        if second_tap:
            self._start(namespace, network_path, ["eth1"])
            host.run("ip", "link", "set", "eth1", "up")
        if mac:
            host.run("ip", "link", "set", "eth0", "address", mac)
        for vid in vlans if kernel else ():
            host.run("ip", "link", "add", "link", "eth0", "name", f"eth0.{vid}", "type", "vlan", "id", str(vid))
        for device in ("lo", "eth0", *(f"eth0.{vid}" for vid in vlans)):
            host.run("ip", "link", "set", device, "up", *(["mtu", str(mtu)] if mtu and device != "lo" else []))
        for one in [address] if isinstance(address, str) else address or ():
            host.run("ip", "address", "add", one, "dev", "eth0")
        host.row()
        return host

    def bare(self, name: str, *, ipv6: bool = False) -> Host:
        """Return a new host that is on no network of ours."""
        namespace = f"ipn-{self._label}-{name}"
        command("ip", "netns", "add", namespace)
        self._stack.callback(command, "ip", "netns", "del", namespace, check=False)
        host = Host(name, namespace)
        host.run("sh", "-c", NO_DAD if ipv6 else NO_IPV6, check=ipv6)
        host.ip("link", "set", "lo", "up")
        return host

    def attached(self, name: str, network_path: str, address: str, *options: str, ipv6: bool = False) -> Host:
        """Return a new host whose ``eth0`` is a TAP on the network; ``options`` of ``ipnctl net attach-tap``."""
        host = self.bare(name, ipv6=ipv6)
        given = ("--name", "eth0", "--up", "--address", address, "--json", *options)
        host.path = network_path
        host.attached = json.loads(host.ipnctl("net", "attach-tap", network_path, *given).stdout)["port"]
        return host

    def wire(self, one: Host, end: str, other: Host, other_end: str) -> None:
        """Lay a cable between two hosts: a veth pair, both ends up."""
        one.ip("link", "add", end, "type", "veth", "peer", "name", other_end, "netns", other.namespace)
        one.ip("link", "set", end, "up")
        other.ip("link", "set", other_end, "up")

    def _start(self, namespace: str, path: str, taps: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-S", str(SHUTTLE), path, *taps],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": SBIN},
        )
        self._stack.callback(_end, process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", f"the shuttle of {namespace} did not start"
        return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _kernel_has_vlans(namespace: str) -> bool:
    """Tell whether the kernel makes VLAN interfaces (module 8021q)."""
    ip = ("ip", "-n", namespace, "link")
    made = command(*ip, "add", "link", "lo", "name", "probe", "type", "vlan", "id", "1", check=False)
    if made.returncode == 0:
        command(*ip, "del", "probe")
    unknown = "Unknown device type" in made.stderr or "not supported" in made.stderr
    return not unknown
