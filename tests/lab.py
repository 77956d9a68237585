"""Real network stacks on a network of ours: hosts that are Linux network namespaces, each with a TAP as its ``eth0``.

A small process per host (``tests/shuttle.py``) sits in the namespace and carries frames between the TAP and a raw
member connection, as QEMU would for a guest. ``vlans`` gives a host interfaces ``eth0.N``: the kernel's own where it
has them (8021q), else TAPs whose frames the shuttle tags and untags, so that the network carries the same::

    with Lab() as lab:
        a = lab.host("a", path, "10.0.0.1/24")
        b = lab.host("b", path, "10.0.0.2/24")
        assert a.pings("10.0.0.2")
"""

from __future__ import annotations

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
    """A network namespace on one network. ``port`` is its number there."""

    name: str
    namespace: str
    path: str
    shuttle: subprocess.Popen[str]

    def run(self, *arguments: str, timeout: float = 20.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program on this host and return what it said; ``check``: it must succeed."""
        return command("ip", "netns", "exec", self.namespace, *arguments, timeout=timeout, check=check)

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
        namespace = f"ipn-{self._label}-{name}"
        command("ip", "netns", "add", namespace)
        self._stack.callback(command, "ip", "netns", "del", namespace, check=False)
        command("ip", "netns", "exec", namespace, "sh", "-c", NO_DAD if ipv6 else NO_IPV6, check=ipv6)
        kernel = bool(vlans) and _kernel_has_vlans(namespace)
        taps = ["eth0", *([] if kernel else [f"eth0.{vid}={vid}" for vid in vlans])]
        host = Host(name, namespace, network_path, self._start(namespace, network_path, taps))
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
