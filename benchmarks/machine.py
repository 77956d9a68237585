"""What a measurement was taken on: processor, kernel, and the versions of everything that took part."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from peers import SBIN

PACKAGES: Final = ("ipn", "trio", "pyzmq")
PROGRAMS: Final[dict[str, Sequence[str]]] = {
    "vde_switch": ("vde_switch", "--version"),
    "C compiler": ("cc", "--version"),
    "iperf3": ("iperf3", "--version"),
}


def describe() -> dict[str, str]:
    """Return the machine as it is now, name by name; "not installed" for what is missing."""
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {cores} core{'s' * (cores != 1)}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": f"{versions}{_libzmq()}",
        "load average at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        **{name: _first_line(command) for name, command in PROGRAMS.items()},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _libzmq() -> str:
    try:
        import zmq
    except ImportError:
        return ""
    return f" (libzmq {zmq.zmq_version()})"


def _first_line(command: Sequence[str]) -> str:
    if (path := shutil.which(command[0], path=SBIN)) is None:
        return "not installed"
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    said = (done.stdout or done.stderr).strip().splitlines()
    return said[0].strip() if said else "installed"
