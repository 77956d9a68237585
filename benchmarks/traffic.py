"""Ethernet frames through a switch: rates, losses, CPU time and round trips, driven by load.c.

Each function returns a ``Measure``; a case of ``cases.py`` names how its switch is started and what load it gets.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import Final

from pairing import Figures, Measure, MeasureError
from peers import Bench, Process, Starter, Switch, load, wait_quiet

PINGS_PER_SECOND: Final = 8000
"""How many round trips to take for a second of the time a measurement may last."""
FILLERS: Final = 4
"""Members among whom many learned addresses are spread: a switch may limit those of one port."""
GRACE_SECONDS: Final = 30.0


def frames(
    start: Starter, size: int, receivers: int, *, flows: bool = False, stuck: int = 0, learned: int = 0
) -> Measure:
    """Measure one sender, one frame a system call, to ``receivers``: each gets all, or with ``flows`` its own share.

    ``stuck`` further members never read; ``learned`` addresses have been announced by four others. Figures: rate
    (frames/s delivered, summed over the receivers that read), lost (%), reordered (frames), cpu (µs of the switch for
    a frame delivered).
    """

    def measure(bench: Bench) -> Figures:
        with start(bench) as switch, ExitStack() as stack:
            names = range(1, receivers + 1) if flows else [None] * receivers
            readers = [
                stack.enter_context(load(bench, switch, "recv", *([] if name is None else [name]))) for name in names
            ]
            for _ in range(stuck):
                stack.enter_context(load(bench, switch, "stuck"))
            fillers = FILLERS if learned else 0
            for number in range(fillers):
                filler = stack.enter_context(load(bench, switch, "fill", learned // FILLERS, number + 1))
                filler.wait_until(lambda filler=filler: "filled" in filler.said(), "it had announced its addresses")
            switch.wait_members(receivers + stuck + fillers)
            sending = (size, bench.seconds, receivers) if flows else (size, bench.seconds)
            before = switch.process.cpu_ns()
            with load(bench, switch, "send", *sending) as sender:
                if flows:
                    _let_learn(switch, readers, sender)
                    before = switch.process.cpu_ns()
                    sender.popen.send_signal(signal.SIGUSR1)
                sent = sender.finish(bench.seconds + GRACE_SECONDS)["sent"]
                wait_quiet([switch.process, *readers])
            cpu_ns = switch.process.cpu_ns() - before
            reports = [reader.stop() for reader in readers]
        received = sum(report["received"] for report in reports)
        seconds = max(report["seconds"] for report in reports)
        if not received or not seconds:
            raise MeasureError(f"of {sent} frames sent {received} arrived")
        meant = sent if flows else sent * receivers
        return {
            "rate": received / seconds,
            "lost": 100 * (meant - received) / meant,
            "reordered": sum(report["reordered"] for report in reports),
            "cpu": cpu_ns / 1000 / received,
        }

    return measure


def _let_learn(switch: Switch, readers: list[Process], sender: Process) -> None:
    """Let the receivers announce their addresses once everybody has joined (see load.c)."""
    sender.wait_until(lambda: "joined" in sender.said(), "it had joined")
    for reader in readers:
        reader.popen.send_signal(signal.SIGUSR1)
    wait_quiet([switch.process, *readers])


def round_trips(start: Starter, size: int, cores: tuple[int, int] | None = None) -> Measure:
    """Measure a member that answers every frame.

    ``cores``: keep the switch on the first and both members on the second (numbers among those we may use); else
    the kernel places them, and a round trip depends much on whether it wakes another core or the same.
    Figures: p50, p99 (µs), cpu (µs of the switch for a frame delivered).
    """

    def measure(bench: Bench) -> Figures:
        count = int(PINGS_PER_SECOND * bench.seconds)
        with start(bench) as switch, load(bench, switch, "pong") as answerer:
            switch.wait_members(1)
            if cores:
                switch.process.keep_on(cores[0])
                answerer.keep_on(cores[1])
            before = switch.process.cpu_ns()
            with load(bench, switch, "ping", size, count) as pinger:
                if cores:
                    pinger.keep_on(cores[1])
                report = pinger.finish(bench.seconds + GRACE_SECONDS)
            cpu_ns = switch.process.cpu_ns() - before
        return {"p50": report["p50_us"], "p99": report["p99_us"], "cpu": cpu_ns / 1000 / (2 * count)}

    return measure
