"""The demo: a real file, streamed over a lossless network to three receivers that come and go. ``demo.py [FILE]``.

Six processes, all of them ended at the end: an ipnd of our own, a sender and three receivers (``demo_node.py``), and
this one, which starts them and shows how it goes. "steady" is there throughout; "early" leaves after two thirds; "late"
joins after one. The proof: what each received has the SHA-256 of that part of the file. Exit status 1 if not.
Without FILE, one is put together from the files of the running Python.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from demo_node import PIECE
from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

import ipn

NODE: Final = str(Path(__file__).with_name("demo_node.py"))
SIZE: Final = 64 * 1024 * 1024
"""Bytes of the file that is made when none is given."""
PATIENCE: Final = 20.0
"""Seconds of silence after which something is wrong."""
END_SECONDS: Final = 5.0
MIB: Final = 1024 * 1024

Event = dict[str, Any]


class Failure(Exception):
    """The demo cannot go on; its text says why."""


class Cast:
    """The processes on stage. What they say comes as events, in the order of time."""

    def __init__(self) -> None:
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._last_words: dict[str, str] = {}
        self._events: queue.Queue[tuple[str, Event]] = queue.Queue()

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start a Python process. Not in our process group: Ctrl-C is for us, who then end the others."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.processes[name] = process
        for listen, stream in ((self._listen, process.stdout), (self._listen_for_errors, process.stderr)):
            threading.Thread(target=listen, args=(name, stream), daemon=True).start()

    def _listen(self, name: str, stream: Any) -> None:
        for line in stream:
            self._events.put((name, json.loads(line)))

    def _listen_for_errors(self, name: str, stream: Any) -> None:
        for line in stream:
            self._last_words[name] = line.strip()
            self._events.put((name, {"event": line.strip()}))
        self._events.put((name, {"event": "fell silent"}))

    def next_event(self) -> tuple[str, Event]:
        """Wait for the next event and return who it is from, and it. Raises Failure when a process has failed."""
        try:
            name, event = self._events.get(timeout=PATIENCE)
        except queue.Empty:
            raise Failure(f"nothing more has happened for {PATIENCE:.0f} s") from None
        if event["event"] == "fell silent" and (status := self.processes[name].wait(END_SECONDS)):
            raise Failure(f"{name} ended with {status}: {self._last_words.get(name, 'without a word')}")
        return name, event

    def wait_for(self, name: str, kind: str) -> None:
        """Wait until ``name`` says ``kind``."""
        while True:
            who, event = self.next_event()
            if (who, event["event"]) == (name, kind):
                return

    def cue(self, name: str) -> None:
        """Let ``name`` go on: it waits for a line."""
        stdin = self.processes[name].stdin
        assert stdin is not None
        stdin.write("\n")
        stdin.flush()

    def end(self) -> list[str]:
        """End everybody, the youngest first, and return their names."""
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in reversed(self.processes.values()):
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return list(reversed(self.processes))


# -- what is shown while it runs -----------------------------------------------------------------------------------


class Bars:
    """Progress for a terminal: a bar a process."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:8}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
        self.progress = Progress(*columns, console=console)
        self._tasks: dict[str, Any] = {}

    def show(self, name: str, done: int, total: int) -> None:
        """``name`` has ``done`` of ``total`` bytes."""
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(name, total=total)
        self.progress.update(self._tasks[name], completed=done, total=total)


class Lines:
    """Progress for a pipe: a line a quarter."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._quarters: dict[str, int] = {}

    def show(self, name: str, done: int, total: int) -> None:
        """``name`` has ``done`` of ``total`` bytes."""
        quarter = 4 * done // total if total else 4
        if quarter > self._quarters.get(name, 0):
            self._quarters[name] = quarter
            self._console.print(f"{name:8} {25 * quarter:3} %  {done / MIB:6.1f} MiB")


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Give what shows (who, bytes, of how many)."""
    if not console.is_terminal:
        yield Lines(console).show
        return
    bars = Bars(console)
    with bars.progress:
        yield bars.show


# -- the play ----------------------------------------------------------------------------------------------------


def play(cast: Cast, console: Console, directory: Path, file: Path) -> bool:
    """Start everybody, stream, show what came of it; return whether all that arrived is right."""
    control, path, size = directory / "control", directory / "stream", file.stat().st_size
    # Our own daemon, here and in every process that we start; and no other one for want of it.
    os.environ.update(IPND_SOCKET=str(control), IPN_AUTOSTART="0")
    cast.start("ipnd", ["-m", "ipnd", "--control", str(control), "--leave-when-idle"])
    cast.wait_for("ipnd", "ready")
    with ipn.bind(path, ipn.IPN_BROADCAST, lossless=True, mode=0o700, pool=64) as net:
        console.print(f"ipnd runs (pid {cast.processes['ipnd'].pid}), a lossless network is at {path}")
        leave_after = 2 * size // 3
        cast.start("sender", [NODE, "send", "sender", str(path), str(file), "2", "3"])
        cast.start("steady", [NODE, "receive", "steady", str(path)])
        cast.start("early", [NODE, "receive", "early", str(path), str(leave_after)])
        cast.start("late", [NODE, "receive", "late", str(path)])
        results = stream(cast, console, size, leave_after)
        show_network(console, net.show())
    return prove(console, file, results)


def stream(cast: Cast, console: Console, size: int, leave_after: int) -> dict[str, Event]:
    """Conduct the streaming; return what each process reports at its end."""
    totals = {"sender": size, "steady": size, "early": leave_after, "late": size}
    results: dict[str, Event] = {}
    cast.cue("steady")
    cast.cue("early")
    with progress(console) as show:
        while len(results) < len(totals):
            name, event = cast.next_event()
            if event["event"] == "waiting":
                console.print("a third is sent: the sender waits until its network has three readers")
                totals["late"] = size - event["bytes"]
                cast.cue("late")
            elif event["event"] == "joined":
                console.print(f"{name} has joined")
            elif event["event"] in ("progress", "done"):
                show(name, min(event["bytes"], totals[name]), totals[name])
            if event["event"] == "done":
                results[name] = event
                if name == "early":
                    console.print("early has left")
    return results


def show_network(console: Console, shown: dict[str, Any]) -> None:
    """Print the counters of who is still there, a part of what ``ipnctl net show`` says."""
    title = f"The network at the end: {shown['readers']} readers, {shown['writers']} writer, lossless"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for heading in ("port", "", "pid", "sent", "received", "dropped", "queued", "blocked, ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for port in shown["ports"]:
        fields = ("port", "description", "pid", "rx_frames", "tx_frames", "dropped", "queued", "blocked_ms")
        table.add_row(*(str(port[field]) for field in fields))
    console.print(table)


def prove(console: Console, file: Path, results: dict[str, Event]) -> bool:
    """Compare what each received with that part of the file; print rates and the proof."""
    content = file.read_bytes()
    size = len(content)
    parts = {
        "steady": ("all of it", content),
        "early": (f"the first {results['early']['bytes'] / size:.0%}", content[: results["early"]["bytes"]]),
        "late": (f"the last {results['late']['bytes'] / size:.0%}", content[size - results["late"]["bytes"] :]),
    }
    table = Table(box=box.SIMPLE_HEAD, title="What was received", title_justify="left")
    for heading in ("", "MiB", "MiB/s", "messages/s", "of the file", "SHA-256 of that part"):
        table.add_column(heading, justify="right" if heading.startswith(("MiB", "messages")) else "left")
    right = results["steady"]["sha256"] == results["sender"]["sha256"]
    for name, (words, part) in parts.items():
        result = results[name]
        same = result["sha256"] == hashlib.sha256(part).hexdigest()
        right = right and same
        rate = result["bytes"] / (result["seconds"] or 1e-9)
        cells = (f"{result['bytes'] / MIB:.1f}", f"{rate / MIB:,.0f}", f"{rate / PIECE:,.0f}", words)
        table.add_row(name, *cells, "equal" if same else "DIFFERENT")
    console.print(table)
    console.print("SHA-256 of what the sender sent and what steady, who was there throughout, received:")
    console.print(f"sent      {results['sender']['sha256']}")
    console.print(f"received  {results['steady']['sha256']}")
    console.print("equal" if right else "NOT EQUAL", style="bold green" if right else "bold red")
    return right


# -- the file ----------------------------------------------------------------------------------------------------


def make_file(target: Path) -> str:
    """Put a file of SIZE bytes together from the running Python's; return what it was made of."""
    library = Path(sysconfig.get_path("stdlib"))
    found = sorted(p for p in library.rglob("*") if p.suffix in (".py", ".so", ".a", ".txt") and p.is_file())
    size = count = 0
    with target.open("wb") as out:
        # A small installation does not have that much: then once more from the start.
        for path in itertools.cycle([Path(sys.executable).resolve(), *found]):
            size += out.write(path.read_bytes()[: SIZE - size])
            count += 1
            if size >= SIZE:
                break
    return f"{count:,} files of {library}"


def main() -> int:
    """Run the demo; return its exit status."""
    parser = argparse.ArgumentParser(description="Stream a file over an IPN network to receivers that come and go.")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="what to stream (default: one is made)")
    given: Path | None = parser.parse_args().file
    if given is not None and (not given.is_file() or not given.stat().st_size):
        parser.error(f"{given} is not a file with something in it")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 110)
    status = 1
    cast = Cast()
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ipn-demo-")))
            stack.callback(lambda: console.print(f"ended: {', '.join(cast.end())}; removed: {directory}"))
            file, made_of = (given, str(given)) if given else (directory / "file", make_file(directory / "file"))
            console.print(f"{file.stat().st_size / MIB:.1f} MiB to stream: {made_of}")
            status = 0 if play(cast, console, directory, file) else 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    except (Failure, OSError) as error:
        console.print(f"demo failed: {error}", style="bold red")
    return status


if __name__ == "__main__":
    sys.exit(main())
