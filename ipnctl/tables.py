"""Tables for people: columns declared in rows. A terminal gets style and folding, a pipe plain whole lines.

Names that members chose themselves are shown without control characters: a description must not drive the
terminal of whoever looks at it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

Entry = Mapping[str, Any]

PLAIN_WIDTH: Final = 100_000
"""Width for a pipe: more than any line has."""


class Column(NamedTuple):
    """A column: its heading, what it shows of an entry, and whether it is a number (aligned right).

    A ``spare`` one is left out on a terminal when no entry has anything for it.
    """

    heading: str
    cell: Callable[[Entry], object]
    number: bool = False
    spare: bool = False


def _field(heading: str, name: str, number: bool = False, *, spare: bool = False) -> Column:
    return Column(heading, lambda entry: entry.get(name, ""), number, spare)


def _yes(name: str) -> Callable[[Entry], str]:
    return lambda entry: "yes" if entry.get(name) else "no"


def _seconds(name: str) -> Callable[[Entry], str]:
    """Whole seconds; nothing where there is no such time."""
    return lambda entry: "" if entry.get(name) is None else f"{entry[name]:.0f}"


def _plain(heading: str, name: str, number: bool = False) -> Column:
    """A value in a person's words: see ``plain``."""
    return Column(heading, lambda entry: plain(entry.get(name)), number)


def _ports(entry: Entry) -> str:
    return f"{entry.get('members', '?')}/{entry.get('maxports', '?')}"


def interface(port: Entry) -> str:
    """Return the interface that a port is, with its state, as "ipn0 (up)"; nothing for other kinds."""
    device = port.get("interface")
    if not device:
        return ""
    if device.get("up") is None:
        state = "moved"  # to another network namespace, where its state cannot be seen
    elif device["up"]:
        state = "up" if device.get("running", True) else "no carrier"
    else:
        state = "down"
    return f"{device.get('name')} ({state})"


NETWORKS: Final = (
    _field("PATH", "path"),
    _field("POLICY", "policy"),
    _field("MODE", "mode"),
    _field("UID", "uid", True),
    _field("MTU", "mtu", True),
    Column("PORTS", _ports, True),
    _field("READERS", "readers", True),
    _field("WRITERS", "writers", True),
    Column("LOSSLESS", _yes("lossless")),
    Column("PERSISTENT", _yes("persistent")),
)
"""The rest of a network is shown by ``net show``; these fit a terminal of 100 columns."""

PORTS: Final = (
    _field("PORT", "port", True),
    _field("KIND", "kind"),
    _field("UID", "uid", True),
    _field("PID", "pid", True),
    Column("COMMAND", lambda port: interface(port) or port.get("command", "")),
    _field("DESCRIPTION", "description", spare=True),
    _field("RIGHTS", "rights"),
    _field("QUEUE", "queued", True),
    _field("SENT", "rx_frames", True),
    _field("RECEIVED", "tx_frames", True),
    _field("DROPPED", "dropped", True),
    _field("BLOCKED MS", "blocked_ms", True),
)

FIXTURES: Final = (
    _field("KIND", "kind"),
    _field("ADDRESS", "address"),
    _field("STATE", "state"),
    Column("COUNTS", lambda entry: plain(entry.get("counts")), spare=True),
    _field("PROBLEM", "problem", spare=True),
)

POLICIES: Final = (_field("NUMBER", "number", True), _field("NAME", "name"))

ADDRESSES_OF_A_SWITCH: Final = (
    _field("VLAN", "vlan", True),
    _field("MAC", "mac"),
    _field("PORT", "port", True),
    Column("AGE", _seconds("age"), True),
    Column("STATIC", _yes("static")),
)

PORTS_OF_A_SWITCH: Final = (
    _field("PORT", "port", True),
    Column("IN USE", _yes("used")),
    _field("PVID", "pvid", True),
    Column("TAGGED", lambda entry: ranges(entry.get("tagged", ()))),
    Column("ISOLATED", _yes("isolated")),
    _field("ADDRESSES", "addresses", True),
    _plain("ADDRESS LIMIT", "address_limit", True),
    _plain("BROADCAST RATE", "broadcast_rate", True),
    _plain("BLOCKED", "blocked"),
)

ADDRESSES_OF_A_ROUTER: Final = (_field("ADDRESS", "address"), _plain("VLAN", "vlan", True))

ROUTES: Final = (_field("PREFIX", "prefix"), _plain("VIA", "via"), _plain("VLAN", "vlan", True), _field("KIND", "kind"))

NEIGHBOURS: Final = (
    _field("ADDRESS", "address"),
    _plain("MAC", "mac"),
    _plain("VLAN", "vlan", True),
    _field("STATE", "state"),
    Column("AGE", _seconds("age"), True),
    _field("QUEUED", "queued", True),
)


def network_list(networks: Sequence[Entry]) -> str:
    """Return the table of networks."""
    return render(NETWORKS, networks)


def policy_list(policies: Sequence[Entry]) -> str:
    """Return the table of delivery policies."""
    return render(POLICIES, policies)


def fixture_list(fixtures: Sequence[Entry]) -> str:
    """Return the table of gateways, uplinks or cables."""
    return render(FIXTURES, fixtures)


def network(entry: Entry) -> str:
    """Return a network: its options, who holds up its senders, whose line is impaired, its fixtures and its ports."""
    ports: Sequence[Entry] = entry.get("ports", ())
    lines = [summary(entry), ""]
    if (blocker := worst_blocker(ports)) is not None:
        lines.append(f"held up most by port {blocker.get('port')}: {member(blocker)}, {blocker.get('blocked_ms')} ms\n")
    if worse := [
        f"port {port.get('port')} is impaired, {way}: {line(how)}"
        for port in ports
        for way, how in port.get("impairment", {}).items()
    ]:
        lines.append("\n".join(worse) + "\n")
    if fixed := entry.get("fixtures"):
        lines.append(fixture_list(fixed) + "\n")
    lines.append(render(PORTS, ports) if ports else "nobody is on it")
    return "\n".join(lines)


def summary(entry: Entry) -> str:
    """Return what there is to say of a network apart from its ports, in a few lines."""
    kind = "lossless" if entry.get("lossless") else "lossy"
    life = "persistent" if entry.get("persistent") else "ends with its last member"
    lines = [
        f"{printable(entry.get('path'))}: {printable(entry.get('policy'))}, {kind}, {life}",
        f"  mode {entry.get('mode')}, owner {entry.get('uid')}, group {entry.get('gid')}",
        f"  mtu {entry.get('mtu')}, pool {entry.get('pool')}, ports {_ports(entry)},"
        f" readers {entry.get('readers')}, writers {entry.get('writers')}",
    ]
    lines += _policy_lines(str(entry.get("policy")), entry.get("policy_state") or {})
    if missing := entry.get("missing"):
        lines.append(f"  missing: {printable(', '.join(missing))}, which ipnd could not have again when it started")
    if dropped := {reason: count for reason, count in entry.get("drops", {}).items() if count}:
        most_first = sorted(dropped.items(), key=lambda item: -item[1])
        lines.append("  dropped: " + printable(", ".join(f"{count} {reason}" for reason, count in most_first)))
    return "\n".join(lines)


def _policy_lines(policy: str, state: Entry) -> list[str]:
    """Return what a policy tells of itself, on a line, and each part of it that has several fields on one more."""
    parts: dict[str, Entry] = {policy: {name: value for name, value in state.items() if not isinstance(value, Mapping)}}
    parts |= {name: value for name, value in state.items() if isinstance(value, Mapping)}
    return [f"  {printable(name)}: {printable(_fields(part))}" for name, part in parts.items() if part]


def _fields(entry: Entry) -> str:
    return ", ".join(f"{_words(name)} {plain(value) or 'none'}" for name, value in entry.items())


def line(entry: Entry) -> str:
    """Return an object on one line, without what is zero or empty: "delay ms 10, loss 0.5"."""
    return printable(_fields({name: value for name, value in entry.items() if value}))


def details(entry: Entry) -> str:
    """Return an object that is no row of a table: a line for each field."""
    width = max((len(name) for name in entry), default=0) + 1
    lines = (f"{_words(name) + ':':{width}} {plain(value) or 'none'}" for name, value in entry.items())
    return "\n".join(map(printable, lines))


def plain(value: object) -> str:
    """Return a JSON value as a person writes it: "yes", "1.5", "10,20"; nothing for null and what is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Mapping):
        return _fields(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(plain(below) for below in value)
    return str(value)


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as "10,20-29"; nothing for none."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _words(name: str) -> str:
    return name.replace("_", " ")


def worst_blocker(ports: Sequence[Entry]) -> Entry | None:
    """Return the port that has kept senders waiting longest, or None when none has."""
    blockers = [port for port in ports if port.get("blocked_ms")]
    return max(blockers, key=lambda port: int(port["blocked_ms"]), default=None)


def member(port: Entry) -> str:
    """Return who is on a port: command and pid or interface, user, and the description when there is one."""
    who = interface(port) or f"{port.get('command') or 'process'}[{port.get('pid')}]"
    who += f" of user {port.get('uid')}"
    description = port.get("description")
    return printable(f'{who} "{description}"' if description else who)


def printable(value: object) -> str:
    """Return the text of ``value`` with control characters and the like escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def render(columns: Sequence[Column], entries: Sequence[Entry]) -> str:
    """Return a table: for a terminal in its width and with style, else one plain line an entry."""
    # Here, as rich takes longer to import than all the rest, and most commands print no table.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout is not None and sys.stdout.isatty()
    if terminal:
        columns = [column for column in columns if not column.spare or any(column.cell(entry) for entry in entries)]
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Any = "right" if column.number else "left"
        table.add_column(column.heading, justify=justify, no_wrap=not terminal, overflow="fold")
    for entry in entries:
        table.add_row(*(Text(printable(column.cell(entry))) for column in columns))
    text = io.StringIO()
    width = None if terminal else PLAIN_WIDTH
    Console(file=text, force_terminal=terminal, width=width, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
