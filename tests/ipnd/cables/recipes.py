"""The commands of docs/cables.md, by the names of their code blocks: the tests run them as they stand there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests.interop.document import recipes
from tests.ipnctl.command import INSTALLED
from tests.running import RunningDaemon

RECIPES: Final = recipes((Path(__file__).parents[3] / "docs" / "cables.md").read_text())


def run_recipe(commands: str, daemon: RunningDaemon, **variables: str) -> None:
    """Run commands that must succeed, with the ``variables`` that they name."""
    path = os.pathsep.join((str(INSTALLED.parent), os.environ.get("PATH", os.defpath)))
    subprocess.run(["sh", "-euc", commands], env={**daemon.env, "PATH": path, **variables}, check=True, timeout=20)
