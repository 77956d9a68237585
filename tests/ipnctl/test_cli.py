"""The program as a whole: its help, its ways to end, its man pages."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import ipnctl.cli
import ipnd.cli
from ipn import __version__
from tests.ipnctl.command import INSTALLED, Ipnctl
from tests.peers import requires

ROOT = Path(__file__).parents[2]
MAN = {"ipnctl": ROOT / "docs/man/ipnctl.1", "ipnd": ROOT / "docs/man/ipnd.8"}
MAIN = {"ipnctl": ipnctl.cli.main, "ipnd": ipnd.cli.main}


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below ``command`` with its words."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    for name, below in command.commands.items():
        yield from commands(below, (*words, name))


ALL = dict(commands(ipnctl.cli.main))


def options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield from parameter.opts


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_explains_itself(ipnctl: Ipnctl, words: tuple[str, ...]) -> None:
    text = ipnctl.run(*words, "--help").ok().text
    assert text.startswith(f"Usage: ipnctl {' '.join(words)} ")
    assert all(option in text for option in options(ALL[words]))


def test_the_version_is_the_packages(ipnctl: Ipnctl) -> None:
    assert ipnctl.run("--version").ok().text == f"ipnctl, version {__version__}\n"


def test_python_dash_m_is_the_installed_command(ipnctl: Ipnctl) -> None:
    installed = subprocess.run([INSTALLED, "--help"], stdout=subprocess.PIPE, check=True)
    assert installed.stdout == ipnctl.run("--help").ok().out


@pytest.mark.parametrize("wrong", [("teleport",), ("net", "paint"), ("net", "show"), ("recv", "x", "--loud")])
def test_wrong_usage_ends_with_2_and_says_how_to_get_help(ipnctl: Ipnctl, wrong: tuple[str, ...]) -> None:
    ran = ipnctl.run(*wrong)
    assert (ran.status, ran.out) == (2, b"")
    assert "--help" in ran.err


def test_the_command_line_imports_nothing_of_the_daemon() -> None:
    for file in (ROOT / "ipnctl").glob("**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("ipnd", "trio") for name in names), file


@pytest.mark.parametrize("program", ["ipnctl", "ipnd"])
def test_the_man_page_has_every_command_and_option(program: str) -> None:
    page = MAN[program].read_text().replace("\\-", "-")
    for words, command in commands(MAIN[program]):
        assert " ".join(words) in page
        for option in options(command):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", page), (words, option)


@requires("man", "groff")
@pytest.mark.parametrize("program", ["ipnctl", "ipnd"])
def test_the_man_page_is_well_formed(program: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(MAN[program])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
