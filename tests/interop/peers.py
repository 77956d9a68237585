"""The peers that docs/interop.md has a recipe and a row for. A new one is a row here, a recipe there, and a test."""

from __future__ import annotations

import functools
import os
import subprocess
from typing import Final

import attrs

from .document import Row

KERNEL: Final = "linux"
"""Instead of a package: the kernel that runs."""


@attrs.frozen
class Peer:
    """A program and the way it comes to a network. ``packages``: Debian's, whose versions are told."""

    name: str
    way: str
    packages: tuple[str, ...]

    def row(self, recipe: str, seen: str) -> Row:
        """Return the row of the document that says what was seen."""
        return Row(self.name, self.way, ", ".join(map(_version, self.packages)), seen, recipe)


PEERS: Final[dict[str, Peer]] = {
    "run": Peer("a program for AF_IPN, `examples/peer2007.c`", "`ipnctl run`", (KERNEL,)),
    "qemu-stream": Peer("QEMU", "`-netdev stream`, the network's path", ("qemu-system-x86",)),
    "qemu-dgram": Peer("QEMU", "`-netdev dgram`, `--dgram`", ("qemu-system-x86",)),
    "qemu-vde": Peer("QEMU", "`-netdev vde`, `--vde`", ("qemu-system-x86", "libvdeplug2")),
    "uml-vde": Peer("User-Mode Linux", "`eth0=vde`, `--vde`", ("user-mode-linux", "libvdeplug2")),
    "uml-bess": Peer("User-Mode Linux", "`transport=bess`, `--seqpacket`", ("user-mode-linux",)),
    "vdens": Peer("vdens", "`--vde`", ("vdens", "libvdeplug2")),
    "vde-plug": Peer("vde_plug", "`--vde`", ("vdeplug", "libvdeplug2")),
    "vde-switch": Peer("vde_switch", "`vde_plug`, `--vde`", ("vde-switch", "vdeplug")),
    "plug": Peer("vde_switch", "`ipnctl plug`", ("vde-switch", "vdeplug")),
    "console": Peer("unixterm", "`--vde`, its console", ("vde2",)),
    "wirefilter": Peer("wirefilter", "`--vde` of two networks", ("vde-wirefilter", "libvdeplug2")),
    "slirp4netns": Peer("slirp4netns", "`ipnctl uplink`, which runs it", ("slirp4netns",)),
    "passt": Peer("passt", "`ipnctl uplink`, which connects to it", ("passt",)),
    "ssh": Peer("OpenSSH", "`ipnctl cable`", ("openssh-client", "openssh-server")),
    "vxlan": Peer("the kernel's vxlan device", "`ipnctl cable`", (KERNEL,)),
    "udp": Peer("vde_plug, its `udp://`", "`ipnctl cable`", ("vdeplug", "libvdeplug2")),
    "mode-000": Peer("SIMH's and 86Box's way to call libvdeplug", "`--vde`", ("libvdeplug2",)),
}
"""Recipe → who it is for."""


@functools.cache
def _version(package: str) -> str:
    """Return the name and the version of a package, or of the kernel."""
    if package == KERNEL:
        return f"Linux {os.uname().release}"
    asked = ["dpkg-query", "--show", "--showformat=${source:Upstream-Version}", package]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return f"{package} of unknown version"
    return f"{package} {done.stdout}"
