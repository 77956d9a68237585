"""What a call came to, and what to do with that where a signal ended the call before it could be told. Pure.

A signal ends a call that waits for its supervisor, in the midst of whatever this does, and the kernel or the program
makes it again. What can be done only once must then not be done twice: the second call gets what the first came to.
"""

from __future__ import annotations

from typing import Protocol

import attrs


class Made(Protocol):
    """A system call that was made."""

    @property
    def number(self) -> int:
        """Which one."""

    @property
    def arguments(self) -> tuple[int, ...]:
        """Its arguments."""


@attrs.frozen
class Outcome:
    """``value`` or the number ``error``, and the changes of the caller's memory: addresses and bytes."""

    value: int = 0
    error: int = 0
    writes: tuple[tuple[int, bytes], ...] = ()


@attrs.frozen
class Untold:
    """The outcome of a call, on the socket ``inode``, that nobody could be told of."""

    call: Made
    inode: int
    outcome: Outcome

    def is_repeated(self, call: Made, inode: int) -> bool:
        """Return whether ``call``, of the same thread, is the same call made again."""
        return (call.number, call.arguments, inode) == (self.call.number, self.call.arguments, self.inode)
