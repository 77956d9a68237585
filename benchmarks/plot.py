"""The picture of a part: bars, ipn against the C switch case by case, a panel a figure. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from pairing import Result

COLOURS: Final = ("#9aa0a6", "#1a73e8", "#7fb3f5")
"""Base side, then the others."""
INK: Final = "#3c4043"
BAR: Final = 0.26
BAR_INCHES: Final = 0.2
PANEL_INCHES: Final = 1.0
STYLE: Final = {
    "font.family": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "ipn",
}


@attrs.frozen
class Panel:
    """One set of axes: a figure of a section's cases, divided by ``scale``."""

    section: str
    figure: str
    title: str
    scale: float = 1.0
    digits: int = 2


PANELS: Final = (
    Panel("frames", "rate", "Million frames/s delivered, all receivers together — more is better", 1e6),
    Panel("frames", "cpu", "CPU of the switch, µs for a frame delivered — less is better"),
    Panel("tcp", "rate", "TCP, Gbit/s received — more is better", 1e9),
    Panel("overheard tcp", "rate", "TCP on a hub, Gbit/s received — more is better", 1e9),
    Panel("datagrams", "rate", "Million datagrams/s received — more is better", 1e6),
    Panel("udp round trip", "p50", "UDP round trip, µs, median — less is better", digits=0),
    Panel("round trip", "p50", "Round trip, µs, median — less is better", digits=0),
    Panel("messages", "rate", "Python to Python: million messages/s delivered — more is better", 1e6),
)


def save(results: Sequence[Result], path: Path, title: str) -> None:
    """Write the picture to ``path``, in the format that its suffix names."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = []
    for panel in PANELS:
        shown = [r for r in results if r.case.section == panel.section and not r.failure]
        if shown:
            drawn.append((panel, shown))
    if not drawn:
        raise ValueError("none of the cases measured has a place in the picture")
    heights = [PANEL_INCHES + BAR_INCHES * sum(len(r.case.sides) + 1 for r in shown) for _, shown in drawn]
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(
            len(drawn), 1, figsize=(8, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
        )
        for (panel, shown), axes in zip(drawn, grid[:, 0], strict=True):
            _draw(axes, panel, shown)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def _draw(axes: Any, panel: Panel, results: Sequence[Result]) -> None:
    """Draw a group of bars a case, a bar a side, its value beside it, a thin line from lowest to highest."""
    sides = list(results[0].case.sides)
    furthest = 0.0
    for index, side in enumerate(sides):
        spreads = [result.spread(side, panel.figure) for result in results]
        values = [spread.median / panel.scale for spread in spreads]
        reach = [
            [(spread.median - spread.low) / panel.scale for spread in spreads],
            [(spread.high - spread.median) / panel.scale for spread in spreads],
        ]
        places = [group + (index - (len(sides) - 1) / 2) * BAR for group in range(len(results))]
        axes.barh(
            places, values, BAR * 0.9, color=COLOURS[index % len(COLOURS)], label=side,
            xerr=reach, error_kw={"ecolor": INK, "elinewidth": 0.8},
        )  # fmt: skip
        for place, value, spread in zip(places, values, spreads, strict=True):
            end = spread.high / panel.scale
            furthest = max(furthest, end)
            text = f"  {value:.{panel.digits}f}"
            axes.text(end, place, text, va="center", fontsize=8)
    axes.set_title(panel.title, loc="left", fontsize=9.5)
    axes.set_yticks(range(len(results)), [result.case.title for result in results])
    axes.invert_yaxis()
    axes.set_xlim(0, furthest * 1.12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.grid(True, color="#e8eaed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
