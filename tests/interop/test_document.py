"""The document of the peers: each has a recipe and a row, and its tables are read and written right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from . import document
from .document import BEGIN, END, THERE, Row
from .peers import PEERS

HERE = Path(__file__).parent
TEXT = f"# Title\n\n```sh one\nrun $ONE\n```\n\n{BEGIN}\n| a |\n| --- |\n| p | w | v | s | `one` |\n{END}\n\nMore.\n"


@pytest.mark.parametrize("recipe", PEERS)
def test_each_peer_has_a_recipe_a_row_and_a_test(recipe: str) -> None:
    text = document.read()
    assert document.recipes(text).get(recipe), f"docs/interop.md has no code block called {recipe}"
    assert recipe in document.rows(text), f"docs/interop.md has no row for {recipe}: run make interop"
    tests = (path.read_text() for path in HERE.glob("test_*.py") if path != Path(__file__))
    assert any(f'"{recipe}"' in source for source in tests), f"no test runs the recipe {recipe}"


def test_each_row_and_each_recipe_is_of_a_peer_that_is_tested() -> None:
    text = document.read()
    assert set(document.rows(text)) == set(PEERS)
    assert {name.removesuffix(THERE) for name in document.recipes(text)} == {"network", *PEERS}


def test_the_document_explains_each_variable_of_its_recipes() -> None:
    text = document.read()
    used = set(re.findall(r"\$[A-Z]+", "".join(document.recipes(text).values())))
    explained = set(re.findall(r"^\* `(\$[A-Z]+)`", text, re.MULTILINE))
    assert used == explained


def test_recipes_and_rows_are_found_by_their_names() -> None:
    assert document.recipes(TEXT) == {"one": "run $ONE\n"}
    assert document.rows(TEXT) == {"one": Row("p", "w", "v", "s", "one")}


def test_two_recipes_of_the_same_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="same name"):
        document.recipes(TEXT + "```sh one\nother\n```\n")


def test_a_document_without_a_table_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no table"):
        document.rows("# Title\n")


def test_new_rows_replace_those_of_their_recipes_and_leave_the_others() -> None:
    two = Row("q", "w", "v", "seen \\d", "two")
    text = document.with_rows(TEXT, {"two": two}, ["two", "one", "three"])
    assert list(document.rows(text).items()) == [("two", two), ("one", Row("p", "w", "v", "s", "one"))]
    assert text.startswith("# Title\n\n```sh one")
    assert text.endswith(f"{END}\n\nMore.\n")
    assert document.with_rows(text, {}, ["two", "one"]) == text


def test_rows_of_peers_that_are_no_more_go() -> None:
    assert document.rows(document.with_rows(TEXT, {}, [])) == {}
