"""The program tests/programs/oob.c: a member that does what a test tells it, line by line."""

from __future__ import annotations

from typing import Final

import attrs

from tests.ipnctl.command import Started

WITH_WAITING: Final = ("recv", "recvmsg", "notice")
"""Commands that say when they begin to wait."""


@attrs.frozen
class Received:
    """What recvmsg(2) gave: ``flags``, and the lengths of the address and of what came beside, as it left them."""

    result: int
    error: int
    flags: int
    name: int
    beside: int
    data: bytes


@attrs.define(eq=False)
class Node:
    """The program oob.c, told what to do line by line."""

    program: Started
    path: str = ""
    lines: int = 0

    def ask(self, command: str) -> None:
        """Tell it to do something; return when it is about to wait, if it may."""
        self.program.feed(command.encode() + b"\n")
        if command.split()[0] in WITH_WAITING:
            assert self.answer() == "waiting"

    def answer(self) -> str:
        """Return its next line."""
        self.lines += 1
        self.program.wait_for(lambda out: out.count(b"\n") >= self.lines, "an answer")
        return self.program.out.read_text().splitlines()[self.lines - 1]

    def do(self, command: str) -> str:
        """Have it do something and return its answer."""
        self.ask(command)
        return self.answer()

    def join(self, *, handle: int = 1, want: int = 1, how: int | None = None) -> None:
        """Make it a member."""
        assert self.do(f"node {handle} {want}") == "node 0 0"
        if how is not None:
            assert self.do(f"shutdown {how}") == "shutdown 0 0"
        assert self.do("connect") == "connect 0 0"

    def received(self) -> Received:
        """Return the answer to a recvmsg."""
        _, *numbers, data = self.answer().split(" ")
        return Received(*map(int, numbers), data=bytes.fromhex(data))

    def recvmsg(self, *sizes: int, flags: int = 0) -> Received:
        """Have it receive into vectors of these sizes."""
        self.ask(f"recvmsg {flags} {' '.join(map(str, sizes or (2000,)))}")
        return self.received()
