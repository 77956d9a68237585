"""docs/interop.md as the tests see it: its recipes, which they run, and its table, which they write.

A recipe is a code block whose info string names it behind the language (```` ```sh qemu-stream ````). The table stands
between two markers. What is done with text is pure; only ``read`` and ``write_rows`` touch the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

DOCUMENT: Final = Path(__file__).parent.parent.parent / "docs" / "interop.md"
BEGIN: Final = "<!-- interop:begin -->"
END: Final = "<!-- interop:end -->"
HEADING: Final = ("Peer", "Way", "Version", "Seen", "Recipe")
THERE: Final = "-there"
"""Behind the name of a recipe: what the other machine has to do."""
_RECIPE: Final = re.compile(r"^```sh ([a-z0-9-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TABLE: Final = re.compile(re.escape(BEGIN) + "\n(.*?)" + re.escape(END), re.DOTALL)


@attrs.frozen
class Row:
    """A row of the table. ``recipe``: the name of the code block."""

    peer: str
    way: str
    version: str
    seen: str
    recipe: str


def read() -> str:
    """Return the document."""
    return DOCUMENT.read_text()


def recipes(text: str) -> dict[str, str]:
    """Return the commands of the document by their names; ValueError when two have the same."""
    found = _RECIPE.findall(text)
    if len(found) != len(dict(found)):
        raise ValueError(f"two recipes have the same name: {sorted(name for name, _ in found)}")
    return dict(found)


def rows(text: str) -> dict[str, Row]:
    """Return the rows of the table by their recipes; ValueError when there is no table."""
    table = _TABLE.search(text)
    if table is None:
        raise ValueError(f"no table between {BEGIN} and {END}")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()[2:]]
    made = (Row(peer, way, version, seen, recipe.strip("`")) for peer, way, version, seen, recipe in cells)
    return {row.recipe: row for row in made}


def with_rows(text: str, new: Mapping[str, Row], order: Sequence[str]) -> str:
    """Return the document with ``new`` rows put in, sorted as ``order`` is; rows that are not in it go."""
    known = {**rows(text), **new}
    lines = ["| " + " | ".join(HEADING) + " |", "|" + " --- |" * len(HEADING)]
    for name in order:
        if row := known.get(name):
            lines.append("| " + " | ".join((row.peer, row.way, row.version, row.seen, f"`{row.recipe}`")) + " |")
    table = "\n".join([BEGIN, *lines, END])
    return _TABLE.sub(lambda _: table, text)


def write_rows(new: Mapping[str, Row], order: Sequence[str]) -> None:
    """Put rows into the document."""
    DOCUMENT.write_text(with_rows(read(), new, order))
