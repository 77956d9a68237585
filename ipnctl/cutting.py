"""Cutting a byte stream into messages, by size or by lines. Pure, incremental, bounded by their length."""

from __future__ import annotations

from typing import Protocol


class LineTooLong(Exception):
    """Line ``number`` (from 1) does not fit into a message; ``before`` are the messages cut before it."""

    def __init__(self, number: int, before: list[bytes]) -> None:
        super().__init__(number, before)
        self.number = number
        self.before = before


class Cutter(Protocol):
    """What both kinds do."""

    @property
    def pending(self) -> bool:
        """Whether something is held back that is not a whole message yet."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take ``data`` in and return the messages that are complete now."""

    def flush(self) -> list[bytes]:
        """Return what is held back as a message, if anything is."""


class SizeCutter:
    """Messages of ``size`` bytes each; the last may be shorter."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rest = bytearray()

    @property
    def pending(self) -> bool:
        """Whether part of a message is held back."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take ``data`` in and return the full messages."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._size:
                return []
            data = bytes(self._rest)
        whole = len(data) - len(data) % self._size
        self._rest = bytearray(data[whole:])
        return [data[start : start + self._size] for start in range(0, whole, self._size)]

    def flush(self) -> list[bytes]:
        """Return the last, shorter message."""
        rest, self._rest = bytes(self._rest), bytearray()
        return [rest] if rest else []


class LineCutter:
    """A message a line, without its newline. Lines above ``limit`` bytes raise ``LineTooLong``.

    Empty lines cannot be sent (a message has at least one byte); ``empty`` counts them.
    """

    def __init__(self, limit: int) -> None:
        self.empty = 0
        self._limit = limit
        self._lines = 0
        self._rest = bytearray()

    @property
    def pending(self) -> bool:
        """Whether part of a line is held back."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take ``data`` in and return the complete lines."""
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = bytes(self._rest) + whole[0]
            self._rest.clear()
        self._rest += rest
        messages = self._messages(whole)
        if len(self._rest) > self._limit:
            raise LineTooLong(self._lines + 1, messages)
        return messages

    def flush(self) -> list[bytes]:
        """Return the last line, which has no newline."""
        rest, self._rest = bytes(self._rest), bytearray()
        return self._messages([rest] if rest else [])

    def _messages(self, lines: list[bytes]) -> list[bytes]:
        messages: list[bytes] = []
        for line in lines:
            self._lines += 1
            if len(line) > self._limit:
                raise LineTooLong(self._lines, messages)
            if line:
                messages.append(line)
            else:
                self.empty += 1
        return messages
