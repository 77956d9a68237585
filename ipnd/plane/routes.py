"""What a policy decided, in the form the plane moves frames by; and cutting a run where the decisions differ.

The cache of a port maps the first bytes of a frame to a ``Route``. Most traffic is a few conversations in long runs,
so a run whose frames all begin alike is recognised at C speed, as in ``batch``, and moved whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ipn.framing import LENGTH, PREFIX

from .batch import REGULAR, Ends

if TYPE_CHECKING:
    from .links import Link


class Route:
    """Who gets a frame: ``links`` as it is, ``changed`` after an edit (or instead of it another frame); or why nobody.

    ``more``: look at so many leading bytes instead. ``ask``: the policy wants to see each such frame. ``able``: those
    of ``links`` that take unfinished frames, ``unable`` the others.
    """

    __slots__ = ("able", "ask", "changed", "links", "more", "plain", "reason", "unable")

    def __init__(
        self,
        links: tuple[Link, ...] = (),
        *,
        changed: tuple[tuple[tuple[Link, ...], Callable[[bytes], bytes]], ...] = (),
        reason: str | None = None,
        more: int = 0,
        ask: bool = False,
    ) -> None:
        self.links = links
        self.changed = changed
        self.reason = reason
        self.more = more
        self.ask = ask
        self.plain = not changed and reason is None and not ask
        """Whether all there is to do is to send the frame to ``links``."""
        self.able = tuple(link for link in links if link.takes_unfinished)
        self.unable = links if not self.able else tuple(link for link in links if not link.takes_unfinished)


TOO_SHORT: Final = Route(reason="truncated header")
"""The way of frames that end before the bytes their policy wants to see."""

Span = tuple[Route, int, int]
"""(route, first, upto): frames ``first`` to ``upto`` - 1 of a run, by index into its ends, go that way."""

Resolve = Callable[[bytes], Route]


def spans(
    view: memoryview, ends: Ends, octets: int, known: dict[bytes, Route], resolve: Resolve, at: int = -1
) -> list[Span]:
    """Cut a run into spans of one route each, by the first ``octets`` bytes of its frames.

    ``at``: where the run begins in the buffer that ``view`` is a part of, or -1: slicing that is faster.
    """
    buffer, start = (view, 0) if at < 0 else (view.obj, at)
    if type(ends) is range and len(ends) >= REGULAR and (key := _common_key(buffer, start, ends, octets)) is not None:
        route = known.get(key) or resolve(key)
        if not route.more or _common_key(buffer, start, ends, route.more) is not None:
            return [(_settled(view, 0, ends[0], route, known, resolve), 0, len(ends))]
    found: list[Span] = []
    unpack = _unpacker(octets)
    position = first = 0
    previous: bytes | None = None
    current: Route | None = None
    for index, end in enumerate(ends):
        if end - position >= PREFIX + octets:
            (key,) = unpack(view, position)
        else:
            key = bytes(view[position + PREFIX : end])
        if key != previous:
            route = known.get(key) or resolve(key)
            previous = key
            if route.more:
                route = _settled(view, position, end, route, known, resolve)
                previous = None
            if route is not current:
                if current is not None:
                    found.append((current, first, index))
                current, first = route, index
        position = end
    if current is not None:
        found.append((current, first, len(ends)))
    return found


def _settled(
    view: memoryview, position: int, end: int, route: Route, known: dict[bytes, Route], resolve: Resolve
) -> Route:
    """Follow the wish to look at more bytes until there is a real answer; a frame that has no more is too short."""
    octets = 0
    while route.more > octets:
        octets = route.more
        key = bytes(view[position + PREFIX : min(position + PREFIX + octets, end)])
        route = known.get(key) or resolve(key)
    return TOO_SHORT if route.more else route


@cache
def _unpacker(octets: int) -> Callable[[memoryview, int], tuple[bytes]]:
    return struct.Struct(f"{PREFIX}x{octets}s").unpack_from


def _common_key(buffer: Any, start: int, ends: range, octets: int) -> bytes | None:
    """Return the leading bytes that all frames of a regular run share, or None when they do not."""
    stride, count = ends.step, len(ends)
    if stride < PREFIX + octets:
        return None
    first = start + PREFIX
    key = bytes(buffer[first : first + octets])
    last = first + (count - 1) * stride
    if buffer[last : last + octets] != key:
        return None
    stop = last + 1
    for offset in range(octets):
        column = buffer[first + offset : stop + offset : stride]
        if (column.tobytes() if type(column) is memoryview else column).count(key[offset : offset + 1]) != count:
            return None
    return key


class Bundle:
    """What one receiver gets of a batch: pieces of it and changed frames, in order."""

    __slots__ = ("ends", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[memoryview | bytes] = []
        self.ends: list[int] = []
        self.size = 0

    def add(self, view: memoryview, start: int, ends: Ends, first: int, upto: int) -> None:
        """Add frames ``first`` to ``upto`` - 1 of a run, the first of which begins at ``start``."""
        stop = ends[upto - 1]
        self.parts.append(view[start:stop])
        base = self.size - start
        if upto - first == 1:
            self.ends.append(base + stop)
        else:
            self.ends.extend([base + end for end in ends[first:upto]])
        self.size += stop - start

    def add_frame(self, frame: bytes) -> None:
        """Add a frame that did not come so."""
        self.parts.append(LENGTH.pack(len(frame)) + frame)
        self.size += PREFIX + len(frame)
        self.ends.append(self.size)

    def data(self) -> memoryview:
        """Return all of it back to back."""
        first = self.parts[0]
        if len(self.parts) == 1:
            return first if isinstance(first, memoryview) else memoryview(first)
        return memoryview(b"".join(self.parts))
