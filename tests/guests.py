"""Real guests for a network of ours: QEMU and User-Mode Linux, with busybox in an initramfs that the test makes.

They boot in the background, so that several do so at once; each has one network card and runs commands that come on
its console::

    with qemu(directory / "a", f"stream,server=off,addr.type=unix,addr.path={net}", "10.0.0.1/24") as a:
        assert a.run("ping -c 1 10.0.0.2").status == 0

``qemu_options`` and ``uml_options`` are for a test that has the rest of the command itself and gives it to ``Guest``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import attrs
import pytest

from tests.initramfs import ENDED, READY, archive, kernel
from tests.peers import skip_or_fail

MEMORY_MIB: Final = {"qemu": 96, "uml": 96}
BOOT_SECONDS: Final = 90.0
"""It takes 2 to 4, but the processors are emulated, and the machine may be busy."""
COMMAND_SECONDS: Final = 30.0
END_SECONDS: Final = 10.0

QEMU: Final = "qemu-system-x86_64"
UML: Final = "linux.uml"
XSTATE: Final = Path(__file__).with_name("xstate.c")
AMX: Final = re.compile(r"^flags\b.*\bamx_tile\b", re.MULTILINE)


@attrs.frozen
class Ran:
    """A command that has ended on a guest: its exit status and what it said."""

    status: int
    text: str


class Guest:
    """A guest that ``command`` runs, with its console on standard input and output. A context manager: it ends there.

    What the guest's program writes to ``HOME`` and ``TMPDIR`` is in ``directory``.
    """

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        own = {"HOME": str(directory), "TMPDIR": str(directory), "TERM": "dumb"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **own, **(environment or {})},
        )
        self._said = ""
        self._taken = 0
        self._ended = False
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def wait_ready(self) -> Self:
        """Wait until it runs commands."""
        if READY not in self._said[: self._taken]:
            self._take(re.escape(READY) + "\n", BOOT_SECONDS, "it never was ready")
        return self

    def run(self, command: str, timeout: float = COMMAND_SECONDS) -> Ran:
        """Run a line of shell on the guest and return how it ended."""
        self.wait_ready()
        self._type(command)
        text, status = self._take(re.escape(ENDED) + r"(\d+)\n", timeout, f"{command!r} did not end")
        return Ran(int(status), text)

    def pings(self, address: str, count: int = 1) -> bool:
        """Tell whether the guest has an answer to one of ``count`` pings, a second apart."""
        return self.run(f"ping -q -c {count} -W 5 {address}").status == 0

    def close(self) -> None:
        """Switch it off, and kill what is left of it."""
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):  # then it is killed, as all the rest
            if READY in self._said and self.process.poll() is None:
                self._type("poweroff -f")
                self.process.wait(END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._listener.join(END_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the console -----------------------------------------------------------------------------------------------

    def _type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def _take(self, pattern: str, timeout: float, failure: str) -> tuple[str, str]:
        """Return what it said before ``pattern``, and the pattern's group (or all of it); fail without it."""

        def found() -> re.Match[str] | None:
            return re.compile(pattern).search(self._said, self._taken)

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, timeout)
            if match := found():
                before, self._taken = self._said[self._taken : match.start()], match.end()
                return before, match.group(match.lastindex or 0)
            said = self._said
        pytest.fail(f"{' '.join(map(str, self._command()))}: {failure}; it said:\n{said[-4000:]}")

    def _command(self) -> Sequence[str]:
        return self.process.args if isinstance(self.process.args, list | tuple) else [str(self.process.args)]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        while data := os.read(self.process.stdout.fileno(), 65536):
            self._hear(data.decode("utf-8", "replace").replace("\r", ""))
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _hear(self, text: str) -> None:
        with self._news:
            self._said += text
            self._news.notify_all()


# -- QEMU ----------------------------------------------------------------------------------------------------------


def qemu_options(directory: Path, address: str) -> list[str]:
    """Return the options of a QEMU without a card, none with a space in it. ``address``: for the card: 10.0.0.1/24."""
    _need(QEMU, "qemu-system-x86")
    linux = kernel()
    directory.mkdir(exist_ok=True)
    initrd, config = directory / "initramfs", directory / "qemu.conf"
    initrd.write_bytes(archive(linux.modules))
    append = f"console=ttyS0 quiet panic=-1 ipv6.disable=1 ipn.address={address}"
    config.write_text(f'[machine]\n kernel = "{linux.image}"\n initrd = "{initrd}"\n append = "{append}"\n')
    # Emulated: not every machine that runs tests can do KVM, and a guest that only pings hardly gains by it.
    machine = f"-accel tcg,tb-size=32 -m {MEMORY_MIB['qemu']} -nodefaults -no-user-config -no-reboot"
    return [*machine.split(), "-display", "none", "-serial", "stdio", "-readconfig", str(config)]


def qemu(directory: Path, netdev: str, address: str, mac: str, prefix: Sequence[str] = ()) -> Guest:
    """Boot a QEMU guest. ``netdev``: what stands behind ``-netdev``, without the id; ``prefix`` goes before all."""
    options = qemu_options(directory, address)
    kind, _, rest = netdev.partition(",")
    backend = ",".join(part for part in (kind, "id=net0", rest) if part)
    card = ["-netdev", backend, "-device", f"virtio-net-pci,netdev=net0,mac={mac}"]
    return Guest([*prefix, QEMU, *options, *card], directory)


# -- User-Mode Linux -----------------------------------------------------------------------------------------------


def uml_options(directory: Path, address: str) -> list[str]:
    """Return the options of a UML without a card, none with a space in it. ``address``: for the card: 10.0.0.1/24."""
    _need(UML, "user-mode-linux")
    directory.mkdir(exist_ok=True)
    initrd = directory / "initramfs"
    initrd.write_bytes(archive())
    console = "con=null con0=fd:0,fd:1 ssl=null quiet"
    return [f"mem={MEMORY_MIB['uml']}M", f"initrd={initrd}", *console.split(), f"ipn.address={address}"]


def uml_environment(directory: Path) -> dict[str, str]:
    """Return what a UML needs in its environment on this machine's processor."""
    if not AMX.search(Path("/proc/cpuinfo").read_text()):
        return {}
    _need("cc", "gcc")
    library = directory / "xstate.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, XSTATE], check=True, timeout=60)
    return {"LD_PRELOAD": str(library)}


def uml(directory: Path, device: str, address: str, prefix: Sequence[str] = ()) -> Guest:
    """Boot a UML guest. ``device``: its card, as ``eth0=vde,DIR`` or ``vec0:transport=bess,dst=PATH``."""
    options = uml_options(directory, address)
    return Guest([*prefix, UML, *options, device], directory, uml_environment(directory))


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        skip_or_fail(f"not installed: {program} (Debian: {package})")
