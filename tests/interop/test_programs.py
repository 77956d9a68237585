"""A program of 2007 under ``ipnctl run``, beside a guest, a Python member and a second such program on one network.

By the recipe of docs/interop.md, and with the very commands of README.md.
"""

from __future__ import annotations

import contextlib
import re
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import ipn
from tests.conftest import RunningDaemon
from tests.guests import Guest, uml_environment, uml_options
from tests.peers import requires

from .lab import SECONDS, Network

ROOT: Final = Path(__file__).parents[2]
SOURCE: Final = ROOT / "examples" / "peer2007.c"
FIRST, SECOND, GUEST = "10.0.0.7", "10.0.0.8", "10.0.0.1"
TEXT: Final = b"\x88\xb5"
"""The type of the frames with lines in them."""
PYTHON_MAC: Final = bytes((2, 0, 0, 0, 0, 1))

Networks = Callable[[str], Network]
Seen = Callable[[str, str], None]


def mac_of(address: str) -> bytes:
    """Return the address that the program's card has when the program has ``address``."""
    return bytes((2, 0, *map(int, address.split("."))))


def line_of(process: subprocess.Popen[bytes]) -> str:
    """Return the next line that a program writes."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    assert poll.poll(SECONDS * 1000), "it wrote nothing"
    return process.stdout.readline().decode()


def say(process: subprocess.Popen[bytes], text: str) -> None:
    """Give a program a line for the others."""
    assert process.stdin is not None
    process.stdin.write(text.encode() + b"\n")


def text_to(member: ipn.Socket) -> tuple[bytes, str]:
    """Return the next line that comes to a member, and its sender."""
    while True:
        frame = member.recv(1514)
        if frame[12:14] == TEXT:
            return frame[6:12], frame[14:].rstrip(b"\0").decode()


@requires("cc")
def test_it_talks_to_a_guest_to_a_python_member_and_to_a_second_one(networks: Networks, seen: Seen) -> None:
    network = networks("net")
    guest = network.boot("uml-bess", "guest", f"{GUEST}/24")
    program = network.directory / "peer2007"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE], check=True, timeout=SECONDS)
    first, second = (network.start("run", PROGRAM=program, ADDRESS=address) for address in (FIRST, SECOND))
    for process, address in ((first, FIRST), (second, SECOND)):
        assert line_of(process) == f"{address} is on {network.path}\n"
    with ipn.connect(network.path) as member:
        member.settimeout(SECONDS)
        member.send(b"\xff" * 6 + PYTHON_MAC + TEXT + b"from Python")
        for process in (first, second):
            assert line_of(process) == f"{PYTHON_MAC.hex(':')}: from Python\n"
        say(first, "from the first")
        assert text_to(member) == (mac_of(FIRST), "from the first")
        assert line_of(second) == f"{mac_of(FIRST).hex(':')}: from the first\n"
        say(second, "from the second")
        assert text_to(member) == (mac_of(SECOND), "from the second")
        assert line_of(first) == f"{mac_of(SECOND).hex(':')}: from the second\n"
    guest.wait_ready()
    assert [address for address in (FIRST, SECOND) if guest.pings(address)] == [FIRST, SECOND]
    assert {port["kind"] for port in network.ports("program", "seqpacket")} == {"program", "seqpacket"}
    seen("run", "two talk to each other and to a Python member, and answer the pings of a User-Mode Linux guest")


# -- README.md -----------------------------------------------------------------------------------------------------


def readme(language: str) -> str:
    """Return the README's code about a program of 2007."""
    found = re.search(rf"^```{language} 2007\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def commands(path: str) -> list[str]:
    """Return the commands of the README without what it says of them, their network being at ``path``."""
    lines = (line.partition("#")[0].strip() for line in readme("sh").splitlines())
    return [line.replace("/tmp/old", path) for line in lines]


def run(network: Network, command: Sequence[str]) -> str:
    """Run a command in the network's directory to its end, which must be a good one, and return what it wrote."""
    done = subprocess.run(
        command,
        cwd=network.directory,
        env=network.environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def start(network: Network, command: str) -> subprocess.Popen[bytes]:
    """Start a line of shell in the network's directory."""
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd=network.directory,
        env=network.environment(),
        start_new_session=True,
    )
    network.running.append(process)
    return process


def boot(network: Network, command: str) -> Guest:
    """Boot the guest of a line of shell, in which the options that any guest needs are left out."""
    directory = network.directory / "guest"
    whole = command.replace("…", " ".join(uml_options(directory, f"{GUEST}/24")))
    guest = Guest(["sh", "-c", whole], directory, {**network.environment(), **uml_environment(directory)})
    network.guests["guest"] = guest
    return guest


@requires("cc")
def test_what_the_readme_shows_of_it_happens(ipnd: RunningDaemon) -> None:
    network = Network(ipnd, ipnd.directory)
    compiling, creating, first, second, booting = commands(network.path)
    (network.directory / "examples").symlink_to(SOURCE.parent)
    with contextlib.closing(network):
        run(network, ["sh", "-c", compiling])
        run(network, ["sh", "-c", creating])
        guest = boot(network, booting)
        process = start(network, first.removesuffix("&"))
        assert line_of(process) == f"{FIRST} is on {network.path}\n"
        assert run(network, ["sh", "-c", second]) == f"{SECOND} is on {network.path}\n{FIRST} answers\n"
        run(network, [sys.executable, "-c", readme("python").replace("/tmp/old", network.path)])
        assert line_of(process) == f"{PYTHON_MAC.hex(':')}: hello\n"
        assert guest.pings(FIRST)
