"""The report: results as tables of text, shown by rich, written as Markdown, or as JSON. Pure but for ``show``.

A section of the report is a row of ``SECTIONS``: its columns say which figures it shows and how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from pairing import Result, Spread, Verdict, verdicts
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

INTRODUCTION: Final = """\
# Benchmarks

Measured by `make bench` (`benchmarks/run.py`), side by side with the C programs in one run, on the machine named in
each part. A figure is the median over the rounds, with the lowest and the highest in brackets. A ratio is taken round
by round, between measurements that follow one another, and then its median: what slows the machine down for a while
slows both. On another machine the absolute figures differ; the ratios are what to look at.

"""
WIDE: Final = 150
"""Columns that the widest table takes; in less its cells are folded."""
BEGIN: Final = "<!-- bench:begin {} -->"
END: Final = "<!-- bench:end {} -->"


@attrs.frozen
class Column:
    """A figure, its heading (with its unit), how a value is written, and whether it is compared with the base."""

    figure: str
    heading: str
    write: Callable[[float], str]
    compared: bool = False


@attrs.frozen
class Section:
    """A table of the report: what its cases are, what must be known to read it, and its columns."""

    title: str
    note: str
    columns: tuple[Column, ...]


@attrs.frozen
class Table:
    """A table of text: the first ``left`` columns are words, the others numbers."""

    title: str
    note: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 2


def _thousands(value: float) -> str:
    return f"{value / 1000:,.0f}"


def _gigabits(value: float) -> str:
    return f"{value / 1e9:,.2f}"


def _decimals(digits: int) -> Callable[[float], str]:
    return lambda value: f"{value:,.{digits}f}"


FRAMES: Final = (
    Column("rate", "delivered, 1000/s", _thousands, compared=True),
    Column("lost", "lost, %", _decimals(2)),
    Column("reordered", "reordered", _decimals(0)),
    Column("cpu", "CPU, µs", _decimals(2), compared=True),
)
TRIPS: Final = (
    Column("p50", "p50, µs", _decimals(1), compared=True),
    Column("p99", "p99, µs", _decimals(1), compared=True),
    Column("cpu", "CPU, µs a frame", _decimals(1), compared=True),
)
STREAMS: Final = (
    Column("rate", "received, Gbit/s", _gigabits, compared=True),
    Column("cpu", "CPU, s a GB", _decimals(2), compared=True),
    Column("resent", "segments resent a GB", _decimals(0)),
)
SECTIONS: Final[Mapping[str, Section]] = {
    "frames": Section(
        "Frames through a switch",
        "One sender, one system call a frame, a C program each for it and every receiver; delivered: summed over the"
        " receivers; CPU: of the switch's process, for a frame delivered.",
        FRAMES,
    ),
    "round trip": Section(
        "Round trips",
        "A C program sends a frame, another answers it. Waking another core costs several times as much as waking"
        " a process on the same one, so where they run decides more than what they do.",
        TRIPS,
    ),
    "programs": Section(
        "Messages of programs for AF_IPN",
        "A C program sends, another receives, one system call a message: both as members that exchange packets"
        " natively (they connect to the network's SEQPACKET socket), and both as programs for AF_IPN under"
        " `ipnctl run`. CPU: of ipnd's process, for a message delivered.",
        FRAMES,
    ),
    "program round trip": Section(
        "Round trips of programs for AF_IPN",
        "One sends a message, the other answers it; as above.",
        TRIPS,
    ),
    "start-up": Section(
        "Start-up",
        "A whole run of the command, by the clock: the median of those that fit into the time of a measurement.",
        (Column("wall", "seconds", _decimals(3), compared=True), Column("cpu", "CPU, s", _decimals(3), compared=True)),
    ),
    "tcp": Section(
        "TCP between hosts",
        "iperf3, one connection, from a network namespace to another; MTU 1500. TAP: the switch itself reads it. Stream"
        " member: a C program (`benchmarks/shuttle.c`, the same for both switches) that has a TAP without offloads and"
        " is a member as a guest is. CPU: of the switch's process, for a GB received; the kernel's work for a frame"
        " written to a TAP, often as far as the receiver's socket, is in it. Three processes or more want the"
        " machine's cores: where they run decides much, and the kernel, left alone, does not always choose the same.",
        STREAMS,
    ),
    "overheard tcp": Section(
        "TCP between hosts, overheard",
        "As above from TAP to TAP, but on a broadcast network (a hub) with a raw member more, a C program that reads"
        " all of it and takes plain frames only.",
        STREAMS,
    ),
    "datagrams": Section(
        "Datagrams between hosts",
        "iperf3, UDP as fast as it can send, from a network namespace to another; lost: in the queue of the"
        " sender's TAP and in that of the receiver's socket. CPU: of the switch's process, for a datagram received.",
        (
            Column("rate", "received, 1000/s", _thousands, compared=True),
            Column("lost", "lost, %", _decimals(2)),
            Column("cpu", "CPU, µs", _decimals(2), compared=True),
        ),
    ),
    "udp round trip": Section(
        "Round trips between hosts",
        "A C program sends a datagram, another in the other network namespace answers it.",
        TRIPS,
    ),
    "stuck": Section(
        "A member that never reads",
        "Four receivers of 1500 bytes, without and with a fifth member that never reads; the figures are the four's.",
        (
            Column("rate", "delivered, 1000/s", _thousands, compared=True),
            Column("lost", "lost, %", _decimals(2)),
            Column("cpu", "CPU, µs", _decimals(2)),
        ),
    ),
    "learned": Section(
        "Many learned addresses",
        "One flow of 1500 bytes; four more members have announced 2,500 addresses each, or as many members none.",
        (
            Column("rate", "delivered, 1000/s", _thousands, compared=True),
            Column("lost", "lost, %", _decimals(2)),
            Column("cpu", "CPU, µs", _decimals(2), compared=True),
        ),
    ),
    "idle": Section(
        "At rest",
        "Members joined with `ipn.connect` (a control and a data connection each), in one process.",
        (
            Column("rss", "daemon alone, MiB", _decimals(1)),
            Column("member", "a member more, KiB", _decimals(1)),
            Column("network", "a network more, KiB", _decimals(1)),
            Column("reached", "of them work", _decimals(0)),
            Column("rest", "CPU in 3 s, ms", _decimals(3)),
        ),
    ),
    "messages": Section(
        "Python to Python",
        "A process each for the sender and every receiver, pyzmq over `ipc://`. Nobody may lose: the ipn network is"
        " lossless, the publisher (XPUB) waits at a high-water mark of 10,000 messages (ZMQ_XPUB_NODROP). `send_many`"
        " is given 64 messages at a time.",
        (
            Column("rate", "delivered, 1000/s", _thousands, compared=True),
            Column("lost", "lost, %", _decimals(2)),
        ),
    ),
}


# -- tables ------------------------------------------------------------------------------------------------------


def tables(results: Sequence[Result]) -> list[Table]:
    """Return a table for each section that has results, then the one of the bars."""
    made = []
    for name, section in SECTIONS.items():
        if mine := [result for result in results if result.case.section == name]:
            made.append(_section_table(section, mine))
    if judged := verdicts(results):
        made.append(_bar_table(judged))
    return made


def _section_table(section: Section, results: Sequence[Result]) -> Table:
    columns = [c for c in section.columns if any(r.has(side, c.figure) for r in results for side in r.case.sides)]
    headings = ["", ""]
    for column in columns:
        headings += [column.heading, "ratio"] if column.compared else [column.heading]
    rows = []
    for result in results:
        if result.failure:
            rows.append([result.case.title, f"failed: {result.failure}", *[""] * (len(headings) - 2)])
            continue
        for side in result.case.sides:
            title = result.case.title if side == result.case.base else ""
            rows.append([title, side, *(cell for column in columns for cell in _cells(column, result, side))])
    return Table(section.title, section.note, headings, rows)


def _cells(column: Column, result: Result, side: str) -> list[str]:
    if not result.has(side, column.figure):
        return ["", ""] if column.compared else [""]
    cells = [written(result.spread(side, column.figure), column.write)]
    if column.compared:
        is_base = side == result.case.base
        ratio = result.spread(side, column.figure, "ratio")
        cells.append("" if is_base else written(ratio, lambda value: f"{value:.2f}") + " ×")
    return cells


def written(spread: Spread, write: Callable[[float], str]) -> str:
    """Return "median (low–high)", or the median alone when nothing else would be said."""
    median, low, high = write(spread.median), write(spread.low), write(spread.high)
    return median if low == high else f"{median} ({low}–{high})"


def _bar_table(judged: Sequence[Verdict]) -> Table:
    rows = []
    for verdict in judged:
        bar = verdict.bar
        limit = f"≥ {bar.at_least:g}" if bar.at_least is not None else f"≤ {bar.at_most:g}"
        reached = f"{verdict.reached:.4g}" if verdict.reached < 1000 else f"{verdict.reached:,.0f}"
        rows.append([bar.text, "ok" if verdict.met else "MISSED", f"{limit} {bar.unit}".strip(), reached])
    return Table("Must reach", "The lines of the issue.", ["", "", "bar", "reached"], rows)


def show(console: Console, made: Iterable[Table]) -> None:
    """Print tables on a terminal, or plainly into a pipe."""
    for table in made:
        shown = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, header_style="bold")
        for index, heading in enumerate(table.headings):
            left = index < table.left
            shown.add_column(heading, justify="left" if left else "right", no_wrap=console.width >= WIDE)
        for row in table.rows:
            shown.add_row(*row, style="bold red" if "MISSED" in row or row[1].startswith("failed") else None)
        console.print(shown)


# -- files -------------------------------------------------------------------------------------------------------


def markdown(made: Iterable[Table], machine: Mapping[str, str], taken: str, plot: str | None) -> str:
    """Return the part of docs/benchmarks.md between its markers. ``plot``: the picture, relative to the file."""
    lines = [f"{taken}.", ""]
    lines += [f"* {name}: {value}" for name, value in machine.items()]
    if plot:
        lines += ["", f"![The figures below as bars]({plot})"]
    for table in made:
        lines += ["", f"### {table.title}", "", table.note, "", _row(table.headings)]
        lines.append(_row([":--" if i < table.left else "--:" for i in range(len(table.headings))]))
        lines += [_row([_emphasised(cell) for cell in row]) for row in table.rows]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _emphasised(cell: str) -> str:
    return "**MISSED**" if cell == "MISSED" else cell


def with_part(document: str, part: str, heading: str, text: str) -> str:
    """Return ``document`` with the text between the markers of ``part`` replaced, or the part added at its end."""
    begin, end = BEGIN.format(part), END.format(part)
    block = f"{begin}\n{text}{end}"
    before, found, rest = document.partition(begin)
    if not found:
        return f"{(document or INTRODUCTION).rstrip()}\n\n## {heading}\n\n{block}\n"
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"it has {begin} but not {end}")
    return before + block + after


def as_json(results: Sequence[Result], machine: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that was measured, round by round, with medians, ratios and verdicts."""
    return {
        "machine": dict(machine),
        "settings": dict(settings),
        "cases": {result.case.name: _case_json(result) for result in results},
        "bars": [
            {**attrs.asdict(verdict.bar), "reached": verdict.reached, "met": verdict.met}
            for verdict in verdicts(results)
        ],
    }


def _case_json(result: Result) -> dict[str, Any]:
    if result.failure:
        return {"title": result.case.title, "failure": result.failure, "rounds": result.rounds}
    sides = {
        side: {
            figure: {
                "rounds": values,
                **attrs.asdict(result.spread(side, figure)),
                "ratio": attrs.asdict(result.spread(side, figure, "ratio")),
            }
            for figure, values in figures.items()
        }
        for side, figures in result.rounds.items()
    }
    return {"title": result.case.title, "base": result.case.base, "sides": sides}
