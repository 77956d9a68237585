"""What can be asked of a session: the form of one row of the table, and the states a row may name."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from ipn.control import Message
    from ipnd.session import Session

PATH_MAX: Final = 4096
"""Longest path accepted, in bytes (limits.h)."""


class State(Enum):
    """Where a session stands."""

    UNBOUND = "unbound"
    BOUND = "bound"
    CONNECTED = "connected"


ANY: Final = frozenset(State)
NEW: Final = frozenset({State.UNBOUND})
NOT_CONNECTED: Final = frozenset({State.UNBOUND, State.BOUND})
JOINED: Final = frozenset({State.BOUND, State.CONNECTED})


class Op(NamedTuple):
    """An operation: the states it is possible in, whether the session must be on a network, and what does it."""

    states: frozenset[State]
    needs_network: bool
    function: Callable[[Session, Message], Any]
