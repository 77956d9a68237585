"""Side by side with the C programs: ``python benchmarks/run.py``, or ``make bench``. See docs/benchmarks.md.

Every case is measured in rounds, its sides in turn, each side with processes of its own, started for it and ended
after it. Results go to standard output (a table) and to the files asked for; progress to standard error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click
import interfaces
import machine
import plot
import report
from cases import PARTS
from pairing import Case, MeasureError, Result, paired
from peers import Bench, compiled, program
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

HEADINGS: Final = {
    "hub": "Hub: broadcast networks",
    "switch": "Switch: learning networks",
    "interfaces": "Interfaces: TAPs on a network",
    "vde": "VDE clients",
    "run": "Programs for AF_IPN",
}
QUICK: Final = (1, 0.5)
"""Rounds and seconds of --quick."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--part", type=click.Choice(list(PARTS)), default="hub", show_default=True, help="Which table of cases.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this case, or cases that begin so; repeatable.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Measurements of each side.")
@click.option("--seconds", type=click.FloatRange(0.05), default=2.0, show_default=True, help="Sending time of each.")
@click.option("--quick", is_flag=True, help=f"Same as --rounds {QUICK[0]} --seconds {QUICK[1]}: does it run at all?")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Put the tables into this file, between its markers for the part.",
)
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw bars here (SVG).")
@click.option("--list", "names_only", is_flag=True, help="Print the names of the cases.")
def main(
    part: str,
    only: tuple[str, ...],
    rounds: int,
    seconds: float,
    quick: bool,
    json_file: Path | None,
    markdown: Path | None,
    picture: Path | None,
    names_only: bool,
) -> None:
    """Measure ipn side by side with the C vde_switch and with pyzmq, in turn, and say what was reached."""
    if quick:
        rounds, seconds = QUICK
    if only and markdown:
        raise click.UsageError("--markdown replaces the whole part; it does not go with --only.")
    cases = _selected(PARTS[part], only)
    if names_only:
        click.echo("\n".join(case.name for case in cases))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not (cases := _possible(cases)):
        raise click.ClickException("no case is left to measure")
    host = machine.describe()
    results = _measure(cases, rounds, seconds)
    tables = report.tables(results)
    report.show(Console(width=None if sys.stdout.isatty() else 200), tables)
    taken = f"{rounds} round{'s' * (rounds > 1)}, {seconds:g} s of sending a measurement"
    if json_file:
        settings = {"part": part, "rounds": rounds, "seconds": seconds}
        _write(json_file, json.dumps(report.as_json(results, host, settings), indent=1) + "\n")
    if picture:
        _draw(results, picture, f"ipn beside the C vde_switch — {host['processor']}, {host['date'][:10]}")
    if markdown:
        shown = os.path.relpath(picture, markdown.parent) if picture else None
        _write_part(markdown, part, report.markdown(tables, host, taken, shown))
    if any(result.failure for result in results):
        sys.exit(1)


def _selected(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    if not only:
        return list(cases)
    chosen: set[str] = set()
    for wanted in only:
        exact = {case.name for case in cases if case.name == wanted}
        begun = {case.name for case in cases if case.name.startswith(wanted)}
        if not begun:
            raise click.UsageError(f"no case is named {wanted!r}; there are: {', '.join(c.name for c in cases)}")
        chosen |= exact or begun
    return [case for case in cases if case.name in chosen]


def _possible(cases: Sequence[Case]) -> list[Case]:
    """Return the cases that can be measured here; say which are left out, and for want of what."""
    wanting = {case.name: reason for case in cases if (reason := OBSTACLES.get(case.section, _nothing)())}
    for reason in dict.fromkeys(wanting.values()):
        left_out = ", ".join(name for name in wanting if wanting[name] == reason)
        click.echo(f"{reason}; left out: {left_out}", err=True)
    return [case for case in cases if case.name not in wanting]


def _nothing() -> str:
    return ""


def _no_pyzmq() -> str:
    return "" if importlib.util.find_spec("zmq") else "pyzmq is not installed (pip install pyzmq)"


OBSTACLES: Final[Mapping[str, Callable[[], str]]] = {
    "messages": _no_pyzmq,
    "tcp": interfaces.impossible,
    "overheard tcp": interfaces.impossible,
    "datagrams": interfaces.impossible,
    "udp round trip": interfaces.impossible,
}
"""Section of the report → what tells why its cases cannot be measured here, or nothing."""


def _measure(cases: Sequence[Case], rounds: int, seconds: float) -> list[Result]:
    """Measure ``cases`` with a progress bar; what was done until Ctrl-C is lost, but nothing goes on running."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    try:
        with tempfile.TemporaryDirectory(prefix="ipn-bench-") as directory:
            scratch = Path(directory)
            program("vde_switch")
            bench = Bench(compiled(scratch, "load"), compiled(scratch, "shuttle"), scratch, seconds)
            # Drawn between measurements only: during them the processors are for what is measured.
            with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
                task = progress.add_task("", total=rounds * sum(len(case.sides) for case in cases))

                def before(case: Case, number: int, side: str) -> None:
                    first = number == 1 and side == case.base
                    progress.update(task, description=f"{case.name}, round {number}: {side}", advance=0 if first else 1)
                    progress.refresh()

                results = []
                for result in paired(cases, rounds, bench, before):
                    progress.advance(task)
                    progress.console.print(f"{result.case.name}: {result.failure or 'done'}", highlight=False)
                    results.append(result)
                return results
    except MeasureError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; everything that was started has ended") from None


def _draw(results: Sequence[Result], picture: Path, title: str) -> None:
    try:
        plot.save(results, picture, title)
    except ImportError:
        raise click.ClickException("--plot needs matplotlib (pip install matplotlib)") from None
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot draw {picture}: {error}") from None


def _write_part(path: Path, part: str, text: str) -> None:
    try:
        document = path.read_text() if path.exists() else ""
        _write(path, report.with_part(document, part, HEADINGS.get(part, part), text))
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot write {path}: {error}") from None


def _write(path: Path, text: str) -> None:
    """Replace the file at ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


if __name__ == "__main__":
    main()
