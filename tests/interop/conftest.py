"""What the tests with real peers share: networks, and the table of docs/interop.md, whose rows they write.

With ``IPN_INTEROP_WRITE=1`` (``make interop``) a test's row is put into the document, else it must say the same there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.running import RunningDaemon

from . import document
from .document import Row
from .lab import Network
from .peers import PEERS

WRITE: Final = "IPN_INTEROP_WRITE"
_written: Final[dict[str, Row]] = {}


@pytest.fixture
def networks(ipnd: RunningDaemon) -> Iterator[Callable[[str], Network]]:
    """Give what makes a network of a name, with all gateways."""
    made: list[Network] = []

    def make(name: str) -> Network:
        directory = ipnd.directory / name
        directory.mkdir()
        made.append(Network(ipnd, directory))
        made[-1].make()
        return made[-1]

    try:
        yield make
    finally:
        for network in made:
            network.close()


@pytest.fixture
def seen() -> Callable[[str, str], None]:
    """Give what a test calls at its end, with the recipe and what was seen in words that are the same each time."""

    def record(recipe: str, text: str) -> None:
        row = PEERS[recipe].row(recipe, text)
        if os.environ.get(WRITE) == "1":
            _written[recipe] = row
            return
        there = document.rows(document.read()).get(recipe)
        assert there is not None, f"docs/interop.md has no row for {recipe}: run make interop"
        assert (there.peer, there.way, there.seen) == (row.peer, row.way, text), "out of date: run make interop"

    return record


def pytest_sessionfinish() -> None:
    """Write the rows of the tests that have succeeded."""
    if _written:
        document.write_rows(_written, list(PEERS))
