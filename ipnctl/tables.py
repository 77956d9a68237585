"""Tables for people: columns declared in rows. A terminal gets style and folding, a pipe plain whole lines.

Names that members chose themselves are shown without control characters: a description must not drive the
terminal of whoever looks at it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

Entry = Mapping[str, Any]

PLAIN_WIDTH: Final = 100_000
"""Width for a pipe: more than any line has."""


class Column(NamedTuple):
    """A column: its heading, what it shows of an entry, and whether it is a number (aligned right)."""

    heading: str
    cell: Callable[[Entry], object]
    number: bool = False


def _field(heading: str, name: str, number: bool = False) -> Column:
    return Column(heading, lambda entry: entry.get(name, ""), number)


def _yes(name: str) -> Callable[[Entry], str]:
    return lambda entry: "yes" if entry.get(name) else "no"


def _ports(entry: Entry) -> str:
    return f"{entry.get('members', '?')}/{entry.get('maxports', '?')}"


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
    _field("COMMAND", "command"),
    _field("DESCRIPTION", "description"),
    _field("RIGHTS", "rights"),
    _field("QUEUE", "queued", True),
    _field("SENT", "rx_frames", True),
    _field("RECEIVED", "tx_frames", True),
    _field("DROPPED", "dropped", True),
    _field("BLOCKED MS", "blocked_ms", True),
)

POLICIES: Final = (_field("NUMBER", "number", True), _field("NAME", "name"))


def network_list(networks: Sequence[Entry]) -> str:
    """Return the table of networks."""
    return render(NETWORKS, networks)


def policy_list(policies: Sequence[Entry]) -> str:
    """Return the table of delivery policies."""
    return render(POLICIES, policies)


def network(entry: Entry) -> str:
    """Return a network: its options, who holds up its senders, and the table of its ports."""
    ports: Sequence[Entry] = entry.get("ports", ())
    lines = [summary(entry), ""]
    if (blocker := worst_blocker(ports)) is not None:
        lines.append(f"held up most by port {blocker.get('port')}: {member(blocker)}, {blocker.get('blocked_ms')} ms\n")
    lines.append(render(PORTS, ports) if ports else "nobody is on it")
    return "\n".join(lines)


def summary(entry: Entry) -> str:
    """Return what there is to say of a network apart from its ports, in a few lines."""
    kind = "lossless" if entry.get("lossless") else "lossy"
    life = "persistent" if entry.get("persistent") else "ends with its last member"
    return "\n".join(
        (
            f"{printable(entry.get('path'))}: {printable(entry.get('policy'))}, {kind}, {life}",
            f"  mode {entry.get('mode')}, owner {entry.get('uid')}, group {entry.get('gid')}",
            f"  mtu {entry.get('mtu')}, pool {entry.get('pool')}, ports {_ports(entry)},"
            f" readers {entry.get('readers')}, writers {entry.get('writers')}",
        )
    )


def worst_blocker(ports: Sequence[Entry]) -> Entry | None:
    """Return the port that has kept senders waiting longest, or None when none has."""
    blockers = [port for port in ports if port.get("blocked_ms")]
    return max(blockers, key=lambda port: int(port["blocked_ms"]), default=None)


def member(port: Entry) -> str:
    """Return who is on a port: command, pid, user, and the description when there is one."""
    who = f"{port.get('command') or 'process'}[{port.get('pid')}] of user {port.get('uid')}"
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
