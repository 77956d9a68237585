"""Asking the policy of a network, and printing its answer: what the commands of one policy share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipn import admin

from . import tables
from .errors import explained
from .output import emit, emit_json


def show(
    path: str, verb: str, columns: Sequence[tables.Column], hints: Mapping[int, str], as_json: bool, **arguments: Any
) -> None:
    """Print what ``verb`` returns: entries as a table of ``columns``, an object a line for each field, or JSON."""
    answer = _asked(path, verb, hints, arguments)
    if as_json:
        emit_json(answer)
    else:
        emit(tables.details(answer) if isinstance(answer, Mapping) else tables.render(columns, answer))


def change(path: str, verb: str, hints: Mapping[int, str], as_json: bool, **arguments: Any) -> None:
    """Have ``verb`` done. What it returns is printed as JSON when that is asked for, else nothing is."""
    answer = _asked(path, verb, hints, arguments)
    if as_json:
        emit_json(answer)


def _asked(path: str, verb: str, hints: Mapping[int, str], arguments: Mapping[str, Any]) -> Any:
    with explained(hints):
        return admin.policy_verb(path, verb, **arguments)
