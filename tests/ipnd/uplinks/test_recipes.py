"""The commands of docs/uplinks.md work as they are printed, but for the directory."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ipn import admin
from tests.ipnctl.command import INSTALLED
from tests.ipnd.uplinks.outside import GATEWAY, Outside, arp_answered, uplinks, wait_until_up
from tests.peers import requires
from tests.running import RunningDaemon

DOCUMENT: Final = Path(__file__).parents[3] / "docs/uplinks.md"
GATEWAYS: Final = {"--cidr 10.9.0.0/24": "10.9.0.2", "passt": GATEWAY, "--slirp": "10.0.2.2"}
"""What a command says → who answers then; the first that fits."""


def recipes() -> list[list[str]]:
    """Return the blocks of commands."""
    return [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)]


def test_there_are_recipes() -> None:
    commands = [command for recipe in recipes() for command in recipe]
    assert len([command for command in commands if command.startswith("ipnctl uplink add ")]) == 4


@requires("slirp4netns", "passt")
def test_each_recipe_works_as_printed(outside: Outside, ipnd: RunningDaemon) -> None:
    lab = Path(ipnd.path("lab"))
    lab.mkdir()
    lab.chmod(0o777)
    env = {**ipnd.env, "PATH": f"{INSTALLED.parent}:{os.environ['PATH']}"}
    net = str(lab / "net")
    for recipe in recipes():
        for uplink in uplinks(net) if os.path.exists(net) else []:
            admin.remove_fixture(net, uplink["kind"], uplink["address"])
        with ExitStack() as stack:
            for command in recipe:
                run(command.replace("/run/lab", str(lab)), env, stack)
                if " uplink add " in command:
                    wait_until_up(net)
                    assert arp_answered(net, next(who for word, who in GATEWAYS.items() if word in command))


def run(command: str, env: dict[str, str], stack: ExitStack) -> None:
    """Run a command of a recipe, to its end or, with ``&``, to that of the recipe."""
    words = shlex.split(command)
    if words[-1] != "&":
        subprocess.run(words, env=env, check=True, capture_output=True, timeout=20)
        return
    process = subprocess.Popen(words[:-1], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
