"""The processes that a measurement needs: ipnd, vde_switch, our C programs; started, watched, ended.

Each is a context manager: leaving it ends the process (SIGTERM, then SIGKILL), and should the benchmark itself be
killed, the kernel ends it (PR_SET_PDEATHSIG of prctl(2)). Output goes to files of the scratch directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
from pairing import MeasureError

import ipn
from ipn import admin

HERE: Final = Path(__file__).parent
SBIN: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
START_SECONDS: Final = 15.0
END_SECONDS: Final = 5.0
QUIET_SECONDS: Final = 0.03
"""All is delivered when nobody has worked for so long …"""
QUIET_NS: Final = 300_000
"""… longer than this."""
PR_SET_PDEATHSIG: Final = 1
IPNCTL: Final = (sys.executable, "-m", "ipnctl")
GATEWAYS: Final = frozenset({"vde", "dgram", "seqpacket"})
"""Kinds of load.c that join by a gateway."""
WITHIN: Final[Mapping[str, Sequence[str]]] = {"ipn": (*IPNCTL, "run", "--")}
"""Kind of load.c → what runs it."""
_libc: Final = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class Bench:
    """What every measurement is given: the compiled C programs, a directory for its files, how long to send."""

    load: Path
    shuttle: Path
    scratch: Path
    seconds: float


# -- processes ---------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Process:
    """A started process; ``said`` is what it has written to stdout and stderr so far.

    ``program``: its child that does the work, where it only runs that one: CPU time and cores are that one's.
    """

    name: str
    popen: subprocess.Popen[bytes]
    out: Path
    err: Path
    program: int = 0

    @property
    def pid(self) -> int:
        return self.program or self.popen.pid

    def has_child(self) -> bool:
        """Return whether it has a child, which from then on is its ``program``."""
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        self.program = int(children[0]) if children else 0
        return bool(children)

    def said(self) -> str:
        return self.err.read_text(errors="replace") + self.out.read_text(errors="replace")

    def wait_until(self, true: Callable[[], bool], what: str, timeout: float = START_SECONDS) -> None:
        """Return when ``true()`` is; MeasureError when the process ends or ``timeout`` seconds pass before."""
        deadline = time.monotonic() + timeout
        while not true():
            if (status := self.popen.poll()) is not None:
                raise MeasureError(f"{self.name} ended with {status} before {what}{self._told()}")
            if time.monotonic() > deadline:
                raise MeasureError(f"{self.name}: not {what} within {timeout:.0f} s{self._told()}")
            time.sleep(0.002)

    def finish(self, timeout: float) -> dict[str, Any]:
        """Wait until it ends by itself and return the JSON object it printed."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise MeasureError(f"{self.name} had not ended after {timeout:.0f} s{self._told()}") from None
        if status:
            raise MeasureError(f"{self.name} ended with {status}{self._told()}")
        try:
            return dict(json.loads(self.out.read_text()))
        except ValueError:
            raise MeasureError(f"{self.name} printed no result{self._told()}") from None

    def stop(self) -> dict[str, Any]:
        """End it with SIGTERM and return the JSON object it printed."""
        self.popen.send_signal(signal.SIGTERM)
        return self.finish(END_SECONDS)

    def cpu_ns(self) -> int:
        """Return the CPU time it has used, all threads, in nanoseconds (clock_getcpuclockid(3))."""
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def rss_kib(self) -> int:
        """Return its resident memory in KiB (VmRSS of proc(5))."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def keep_on(self, core: int) -> None:
        """Keep it on one core: the one of that number among those that we may use."""
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self.pid, {usable[core % len(usable)]})

    def _told(self) -> str:
        last = self.said().strip().splitlines()[-3:]
        return "; it said: " + " / ".join(last) if last else ""


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def running(
    scratch: Path, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run ``command`` until the context is left. It has a standard input that stays open and silent."""
    with contextlib.ExitStack() as stack:
        paths = [scratch / f"{name}.{time.monotonic_ns()}.{kind}" for kind in ("out", "err")]
        out, err = (stack.enter_context(path.open("wb")) for path in paths)
        popen = stack.enter_context(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=env,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )
        )
        try:
            yield Process(name, popen, *paths)
        finally:
            popen.terminate()
            try:
                popen.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                popen.kill()


def wait_quiet(processes: Sequence[Process], timeout: float = 20.0) -> None:
    """Return when none of ``processes`` works any more: all that was sent is delivered."""
    deadline = time.monotonic() + timeout
    used = sum(process.cpu_ns() for process in processes)
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        before, used = used, sum(process.cpu_ns() for process in processes)
        if used - before < QUIET_NS:
            return
    raise MeasureError(f"{processes[0].name} was still busy {timeout:.0f} s after the sender had ended")


# -- switches ----------------------------------------------------------------------------------------------------


class Switch(Protocol):
    """A running switch: how load reaches it (``kind``, ``address``), and the process whose CPU time counts."""

    kind: str
    address: str
    process: Process

    def door(self, role: str) -> tuple[str, str]:
        """Return the kind and the address by which load in that role (see load.c) joins."""

    def wait_members(self, count: int) -> None:
        """Return when ``count`` members hear what is sent."""


@attrs.frozen
class IpnNetwork:
    """A network of an ipnd of its own. ``doors``: role of load.c → the kind by which it comes: a gateway's, or IPN."""

    address: str
    process: Process
    doors: Mapping[str, str] = {}
    kind: str = "stream"

    def door(self, role: str) -> tuple[str, str]:
        kind = self.doors.get(role) or self.kind
        return kind, f"{self.address}.{kind}" if kind in GATEWAYS else self.address

    def wait_members(self, count: int) -> None:
        self.process.wait_until(
            lambda: admin.show_network(self.address)["members"] >= count, f"{count} members had joined"
        )


@attrs.frozen
class VdeSwitch:
    """A vde_switch: its answer to a member's request says that the member is in."""

    address: str
    process: Process
    kind: str = "vde"

    def door(self, role: str) -> tuple[str, str]:
        del role
        return self.kind, self.address

    def wait_members(self, count: int) -> None:
        del count


Starter = Callable[[Bench], contextlib.AbstractContextManager[Switch]]


@contextlib.contextmanager
def daemon(scratch: Path) -> Iterator[Process]:
    """Run an ipnd that ``ipn`` finds, in this process and those it starts."""
    directory = scratch / f"ipnd.{time.monotonic_ns()}"
    directory.mkdir()
    control = str(directory / "control")
    command = [sys.executable, "-m", "ipnd", "--control", control]
    with running(directory, "ipnd", command) as process, _environment(control):
        process.wait_until(lambda: "ready" in process.said(), "it was ready")
        yield process


@contextlib.contextmanager
def _environment(control: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(IPND_SOCKET=control, IPN_AUTOSTART="0")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def ipn_network(*, doors: Mapping[str, str] | None = None, **options: Any) -> Starter:
    """Return what starts an ipnd with one network; ``options`` are those of ``ipn.bind`` (policy, lossless, …).

    ``doors``: roles of load.c that join by a gateway of a kind (vde, dgram, seqpacket), or as a program for AF_IPN
    ("ipn"); the others are stream members.
    """

    @contextlib.contextmanager
    def start(bench: Bench) -> Iterator[Switch]:
        with daemon(bench.scratch) as process:
            path = str(bench.scratch / f"net.{time.monotonic_ns()}")
            with ipn.bind(path, **options):
                for kind in sorted(GATEWAYS.intersection((doors or {}).values())):
                    admin.add_gateway(path, kind, f"{path}.{kind}")
                yield IpnNetwork(path, process, doors or {})

    return start


def vde_switch(*arguments: str, within: Sequence[str] = ()) -> Starter:
    """Return what starts a vde_switch with ``arguments`` (``--hub``; nothing: a learning switch).

    ``within``: a command that runs, as itself, the one given after it (``nsenter …``).
    """

    @contextlib.contextmanager
    def start(bench: Bench) -> Iterator[Switch]:
        directory = bench.scratch / f"vde.{time.monotonic_ns()}"
        command = [*within, program("vde_switch"), "--sock", str(directory), *arguments]
        with running(bench.scratch, "vde_switch", command) as process:
            process.wait_until((directory / "ctl").exists, "it had made its socket")
            yield VdeSwitch(str(directory), process)

    return start


# -- load --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def load(bench: Bench, switch: Switch, role: str, *arguments: object) -> Iterator[Process]:
    """Run the load generator on ``switch`` in a role of load.c; given when it has joined."""
    kind, address = switch.door(role)
    within = WITHIN.get(kind, ())
    command = [*within, str(bench.load), kind, address, role, *map(str, arguments)]
    with running(bench.scratch, f"load-{role}", command) as process:
        if within:
            process.wait_until(process.has_child, "it had started")
        if role not in ("send", "ping"):
            process.wait_until(lambda: "joined" in process.said(), "it had joined")
        yield process


def compiled(directory: Path, name: str) -> Path:
    """Compile the C program ``name`` into ``directory`` and return it; MeasureError without a compiler."""
    source = HERE / f"{name}.c"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MeasureError(f"no C compiler (cc) for benchmarks/{source.name}; on Debian: apt install gcc libc6-dev")
    target = directory / name
    done = subprocess.run([compiler, "-O2", "-o", target, source], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasureError(f"{compiler} cannot compile {source}: {done.stderr.strip().splitlines()[0]}")
    return target


def program(name: str, package: str = "vde2") -> str:
    """Return where the program ``name`` is, in PATH or an sbin directory; MeasureError when it is not installed."""
    if (path := shutil.which(name, path=SBIN)) is None:
        raise MeasureError(f"{name} is not installed; on Debian: apt install {package}")
    return path
