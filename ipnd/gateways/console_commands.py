"""What can be said on the console of a network that is also a VDE switch: a table of commands. Pure.

The errno of a refusal becomes the status of the answer, and its sentence the lines before it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from . import console_actions as actions
from .console_actions import Console

LOGOUT: Final = -1
SHUTDOWN: Final = -2
"""Statuses below zero end the session; the second ends the network as well."""


@attrs.frozen
class Answer:
    """``lines``: None where there is no block of them. ``status``: 0, an errno, LOGOUT or SHUTDOWN."""

    lines: list[str] | None
    status: int = 0


Action = Callable[[Console, list[str]], list[str] | None]


@attrs.frozen
class Command:
    """A row of ``help``; a heading has no action. ``words``: how many arguments it takes, least and most."""

    path: str
    syntax: str
    help: str
    action: Action | None = None
    words: tuple[int, int] = (0, 0)


def answer(console: Console, line: str) -> Answer | None:
    """Return the answer to a line, None when it asks for nothing: it is empty, or a comment."""
    name, *words = line.split() or ["#"]
    if name.startswith("#"):
        return None
    if name in ENDS:
        return _end(console, ENDS[name])
    command = BY_PATH.get(name)
    if command is None or command.action is None:
        return Answer(None, errno.ENOSYS)
    try:
        least, most = command.words
        if not least <= len(words) <= most:
            raise actions.invalid(f"{name} takes {command.syntax or 'no arguments'}")
        return Answer(command.action(console, words))
    except OSError as refusal:
        return Answer([refusal.strerror or str(refusal)], refusal.errno or errno.EIO)


def _end(console: Console, status: int) -> Answer:
    try:
        if status == SHUTDOWN:
            console.require_manage()
    except OSError as refusal:
        return Answer([str(refusal.strerror)], refusal.errno or errno.EPERM)
    return Answer(None, status)


# -- the table -----------------------------------------------------------------------------------------------------


def _help(console: Console, words: list[str]) -> list[str]:
    beginning = words[0] if words else ""
    rows = [("COMMAND PATH", "SYNTAX", "HELP"), ("------------", "--------------", "------------")]
    rows += [(c.path, c.syntax, c.help) for c in COMMANDS if c.path.startswith(beginning)]
    return [f"{path:18} {syntax:15} {text}" for path, syntax, text in rows]


def _heading(path: str, text: str) -> Command:
    return Command(path, "============", text)


def _refused(path: str, syntax: str, why: str) -> Command:
    """Return a command of VDE's that a network of ours cannot carry out."""

    def refuse(console: Console, words: list[str]) -> None:
        raise OSError(errno.EOPNOTSUPP, f"{path} is not supported: {why}")

    return Command(path, syntax, f"not supported: {why}", refuse, (0, MOST_WORDS))


MOST_WORDS: Final = 1000
"""More than fit a line."""
ENDS: Final = {"logout": LOGOUT, "shutdown": SHUTDOWN}

COMMANDS: Final[Sequence[Command]] = (
    _heading("ds", "DATA SOCKET MENU"),
    Command("ds/showinfo", "", "show where clients connect", actions.show_data_sockets),
    Command("help", "[arg]", "this list, or what begins with arg", _help, (0, 1)),
    Command("logout", "", "end this session"),
    Command("shutdown", "", "end the network"),
    Command("showinfo", "", "show what network this is", actions.show_network),
    _refused("load", "path", "ipnd reads no files for others; send their lines instead"),
    _heading("hash", "ADDRESS TABLE MENU"),
    Command("hash/showinfo", "", "show the size of the table and its times", actions.show_hash),
    Command("hash/setsize", "N", "set how many addresses it holds", actions.set_hash_size, (1, 1)),
    _refused("hash/setgcint", "N", "it is a quarter of the expire time"),
    Command("hash/setexpire", "N", "set for how many seconds it holds them", actions.set_expire, (1, 1)),
    _refused("hash/setminper", "N", "addresses move at once"),
    Command("hash/print", "", "print the addresses", actions.print_hash),
    Command("hash/find", "MAC [VLAN]", "print one address", actions.find_address, (1, 2)),
    _heading("fstp", "FAST SPANNING TREE MENU"),
    Command("fstp/showinfo", "", "show whether there is a spanning tree: no", actions.show_fstp),
    Command("fstp/setfstp", "0/1", "0 is the only choice: off", actions.set_fstp, (1, 1)),
    _refused("fstp/setedge", "VLAN PORT 1/0", "there is no spanning tree"),
    _refused("fstp/bonus", "VLAN PORT COST", "there is no spanning tree"),
    Command("fstp/print", "[N]", "print the spanning tree of each VLAN: off", actions.print_fstp, (0, 1)),
    _heading("port", "PORT MENU"),
    Command("port/showinfo", "", "show the number of ports, and whether this is a hub", actions.show_ports),
    Command("port/setnumports", "N", "set the number of ports", actions.resize, (1, 1)),
    Command("port/sethub", "0/1", "make it a hub (1) or a switch (0)", actions.set_hub, (1, 1)),
    Command("port/setvlan", "N VLAN", "set a port's VLAN without tags (4095: none)", actions.set_vlan, (2, 2)),
    _refused("port/createauto", "", "ports are not reserved; connect without a number for any free one"),
    Command("port/create", "N", "check that port N is free and not set up", actions.create_port, (1, 1)),
    Command("port/remove", "N", "forget how the free port N is set up", actions.remove_port, (1, 1)),
    _refused("port/allocatable", "N 0/1", "all free ports are"),
    _refused("port/setuser", "N user", "the permissions of the network's socket file say who may join"),
    _refused("port/setgroup", "N group", "the permissions of the network's socket file say who may join"),
    Command("port/epclose", "N [ID]", "put out who is on port N", actions.close_endpoint, (1, 2)),
    _refused("port/resetcounter", "[N]", "counters only grow"),
    Command("port/print", "[N]", "print who is on the ports", actions.print_ports, (0, 1)),
    Command("port/allprint", "[N]", "print the ports, also free ones that are set up", actions.print_all_ports, (0, 1)),
    _heading("vlan", "VLAN MENU"),
    Command("vlan/create", "N", "check that no port is in VLAN N", actions.create_vlan, (1, 1)),
    Command("vlan/remove", "N", "check that VLAN N is gone: no port is in it", actions.remove_vlan, (1, 1)),
    Command("vlan/addport", "N PORT", "put a port into VLAN N, with tags", actions.add_port, (2, 2)),
    Command("vlan/delport", "N PORT", "take a port with tags out of VLAN N", actions.remove_from_vlan, (2, 2)),
    Command("vlan/print", "[N]", "print the VLANs and who is in them", actions.print_vlans, (0, 1)),
    Command("vlan/allprint", "[N]", "print them with free ports, too", actions.print_all_vlans, (0, 1)),
)
"""VDE's commands, in its order, less those for its debugging and its plug-ins."""

BY_PATH: Final = {command.path: command for command in COMMANDS}
assert len(BY_PATH) == len(COMMANDS), "two console commands have the same path"
