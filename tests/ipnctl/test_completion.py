"""Shell completion: the scripts, and what the program answers them."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.ipnctl.command import INSTALLED, IPNCTL, Ipnctl
from tests.peers import requires


def answers(ipnctl: Ipnctl, line: str) -> list[str]:
    """Return what the program offers to bash for the last word of ``line``."""
    words = line.split(" ")
    asked = {"_IPNCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(IPNCTL, env={**ipnctl.daemon.env, **asked}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_the_program_by_its_name(ipnctl: Ipnctl, shell: str) -> None:
    script = ipnctl.run("completion", shell).text
    assert f"_IPNCTL_COMPLETE={shell}_complete" in script
    assert "ipnctl" in script


@requires("bash")
def test_bash_takes_the_script(ipnctl: Ipnctl) -> None:
    script = ipnctl.run("completion", "bash").ok().text
    told = ["bash", "-c", f"{script}\ncomplete -p ipnctl"]
    assert "_ipnctl_completion" in subprocess.run(told, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_another_shell_is_wrong_usage(ipnctl: Ipnctl) -> None:
    assert ipnctl.run("completion", "tcsh").status == 2


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ipnctl mon", ["plain,monitor"]),
        ("ipnctl net res", ["plain,resize"]),
        ("ipnctl net create x --pol", ["plain,--policy"]),
        ("ipnctl net create x --policy broad", ["plain,broadcast"]),
        ("ipnctl net show /tm", ["file,/tm"]),
        ("ipnctl send /tm", ["file,/tm"]),
        ("ipnctl recv x -o /tm", ["file,/tm"]),
    ],
)
def test_commands_options_and_paths_complete(ipnctl: Ipnctl, line: str, offered: list[str]) -> None:
    assert answers(ipnctl, line) == offered


@requires("bash")
def test_bash_completes_a_real_command_line(ipnctl: Ipnctl) -> None:
    script = ipnctl.run("completion", "bash").ok().text
    typed = 'COMP_WORDS=(ipnctl net sh) COMP_CWORD=2; _ipnctl_completion ipnctl; echo "${COMPREPLY[@]}"'
    env = {**ipnctl.daemon.env, "PATH": f"{INSTALLED.parent}:{os.environ['PATH']}"}
    command = ["bash", "-c", f"{script}\n{typed}"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["show"]
