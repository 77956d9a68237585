"""The first and only file system of a guest: busybox, an ``/init``, and the kernel modules of a network card.

``/init`` gives the card the address that the kernel's command line names (``ipn.address=10.0.0.1/24``), says that the
guest is ready, and then runs each line that comes on its console, telling after it how it ended. The archive is of
the kind "newc" (cpio(5)), written here: it is a header of hexadecimal digits before each file.
"""

from __future__ import annotations

import functools
import lzma
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from tests.peers import skip_or_fail

READY: Final = "ipn-guest ready"
ENDED: Final = "ipn-guest ended "
"""What the guest says before a command's exit status."""
NEEDED_MODULES: Final = ("virtio_pci", "virtio_net")

INIT: Final = f"""\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev 2>/dev/null
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
stty raw -echo
for module in $(cat /modules/order 2>/dev/null); do insmod /modules/$module; done
address=$(sed -n 's/.*ipn.address=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
for card in eth0 vec0; do
    [ -e /sys/class/net/$card ] && ip address add $address dev $card && ip link set $card up
done
ip link set lo up
echo '{READY}'
while read -r line; do
    (eval "$line") </dev/null 2>&1
    echo "{ENDED}$?"
done
poweroff -f
"""


@attrs.frozen
class Kernel:
    """A kernel of the host's distribution, and where its modules are."""

    image: Path
    modules: Path


def kernel() -> Kernel:
    """Return the newest kernel that is installed with its modules. Skips the test where there is none."""
    for image in sorted(Path("/boot").glob("vmlinuz-*"), reverse=True):
        modules = Path("/lib/modules", image.name.removeprefix("vmlinuz-"))
        if os.access(image, os.R_OK) and (modules / "modules.dep").is_file():
            return Kernel(image, modules)
    skip_or_fail("no kernel in /boot that may be read (Debian: linux-image-cloud-amd64)")
    raise AssertionError


@functools.cache
def archive(modules: Path | None = None) -> bytes:
    """Return the initramfs; ``modules``: the directory of those of its kernel, when that needs any for its card."""
    busybox = shutil.which("busybox")
    if busybox is None:
        skip_or_fail("not installed: busybox (Debian: busybox-static)")
        raise AssertionError
    parts = [_entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "dev", "modules")]
    parts.append(_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    parts.append(_entry("bin/busybox", stat.S_IFREG | 0o755, Path(busybox).read_bytes()))
    parts.append(_entry("init", stat.S_IFREG | 0o755, INIT.encode()))
    files = list(_needed(modules)) if modules else []
    for file in files:
        parts.append(_entry(f"modules/{file.name}", stat.S_IFREG | 0o644, _module(file)))
    parts.append(_entry("modules/order", stat.S_IFREG | 0o644, "\n".join(file.name for file in files).encode()))
    return b"".join([*parts, _entry("TRAILER!!!", 0)])


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """Return a file of the archive."""
    path = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device of the file system (2), device it is (2), length of the name, 0
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def _needed(modules: Path) -> Iterator[Path]:
    """Give the module files in the order in which they must be loaded: a module comes after all that it needs."""
    lines = (line.partition(":") for line in (modules / "modules.dep").read_text().splitlines())
    needs = {file: others.split() for file, _, others in lines}
    by_name = {Path(file).name.split(".")[0].replace("-", "_"): file for file in needs}
    order: dict[str, None] = {}
    for name in NEEDED_MODULES:
        if name in by_name:  # else it is in the kernel itself
            order |= dict.fromkeys([*reversed(needs[by_name[name]]), by_name[name]])
    return (modules / file for file in order)


def _module(file: Path) -> bytes:
    """Return a module's bytes as the kernel wants them; later Debians compress them."""
    return lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
