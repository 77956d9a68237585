"""Hosts of their own for tests: network namespaces, with what the machine needs so that interfaces can be made."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any, Final

import attrs

from ipn.netdev import TUN_PATH
from tests.peers import skip_or_fail

_NUMBERS: Final = itertools.count()

OVER_TUN: Final = f'mount --bind "$0" {TUN_PATH} && exec "$@"'
"""Puts a device file before /dev/net/tun, for one command in a mount namespace of its own."""


@attrs.define(eq=False)
class Host:
    """A network namespace, made and deleted by root."""

    name: str = attrs.field(factory=lambda: f"ipn-{os.getpid()}-{next(_NUMBERS)}")

    def __attrs_post_init__(self) -> None:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.ip("link", "set", "lo", "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What, put before a command, runs it on this host."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *command: str) -> str:
        """Run a command there, which must succeed, and return its output."""
        return subprocess.run([*self.prefix, *command], stdout=subprocess.PIPE, text=True, check=True).stdout

    def ip(self, *arguments: str) -> None:
        """Run ip(8) there."""
        subprocess.run(["ip", "-n", self.name, *arguments], check=True)

    def link(self, interface: str) -> dict[str, Any] | None:
        """Return what ip(8) says of an interface, with its addresses, or None when there is none."""
        command = ["ip", "-n", self.name, "-json", "address", "show", "dev", interface]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return dict(json.loads(done.stdout)[0]) if done.returncode == 0 else None

    def addresses(self, interface: str) -> set[str]:
        """Return the addresses that were given to an interface, with their lengths."""
        info = (self.link(interface) or {}).get("addr_info", [])
        return {f"{entry['local']}/{entry['prefixlen']}" for entry in info if entry["scope"] == "global"}

    def delete(self) -> None:
        """End it."""
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


def need_tun() -> None:
    """Skip or fail the test where no TAP can be made."""
    if not os.path.exists(TUN_PATH):
        skip_or_fail(f"there is no {TUN_PATH}")


def open_tun(directory: Path) -> tuple[str, ...]:
    """Return what, put before a command of root, lets every user open /dev/net/tun, as udev does on most machines."""
    need_tun()
    if os.stat(TUN_PATH).st_mode & 0o006 == 0o006:
        return ()
    node = directory / "tun"
    if not node.exists():
        try:
            os.mknod(node, stat.S_IFCHR, os.stat(TUN_PATH).st_rdev)
        except OSError as error:
            skip_or_fail(f"{TUN_PATH} is not for everybody here, and no other can be made: {error}")
        node.chmod(0o666)
    return ("unshare", "--mount", "sh", "-c", OVER_TUN, str(node))
