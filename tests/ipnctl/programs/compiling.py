"""The programs in tests/programs, compiled as somebody would compile them today."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import attrs

from tests.peers import skip_or_fail

SOURCES: Final = Path(__file__).parents[2] / "programs"
COMPILER: Final = ("cc", "-O1", "-Wall", "-Werror")


@attrs.frozen
class Compiler:
    """Compiles into ``directory``; what it has made already is there."""

    directory: Path

    def __call__(self, name: str, *flags: str) -> str:
        """Return the path of the program that ``name``.c becomes with ``flags`` (``-static``, ``-DAF_IPN=33``)."""
        target = self.directory / "-".join((name, *(flag.strip("-").replace("=", "-") for flag in flags)))
        if not target.exists():
            command = [*COMPILER, *flags, "-o", str(target), str(SOURCES / f"{name}.c")]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            except FileNotFoundError:
                skip_or_fail("not installed: cc (gcc)")
            assert done.returncode == 0, done.stderr
        return str(target)
