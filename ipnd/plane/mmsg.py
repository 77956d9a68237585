"""Many messages with one system call: recvmmsg(2) and sendmmsg(2), in the layout of a batch.

A batch has its frames back to back behind their lengths, but messages of unknown sizes cannot be received so. What
comes in a burst is mostly of one size, though: every message is given a slot of the size expected, and room elsewhere
for what is longer. If all have that size, the batch lies there ready, and nothing was done for any one frame; else it
is put together from the pieces.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from array import array
from collections.abc import Iterable
from typing import Final

from ipn.framing import LENGTH, PREFIX

from .batch import Ends

BURST: Final = 64
"""Messages of one system call at most."""
MSG_DONTWAIT: Final = 0x40
MSG_NOSIGNAL: Final = 0x4000
MAX_PLANS: Final = 32
"""Sizes of messages whose preparations are kept."""
SPILL: Final = 4 * 1024 * 1024
"""Bytes of room for what is longer than expected (more, when a single message may be)."""
WORD: Final = "L"
"""What ``array`` and ``memoryview`` call size_t on Linux."""


class _IoVec(ctypes.Structure):
    """struct iovec of readv(2)."""

    _fields_ = (("base", ctypes.c_size_t), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):
    """struct msghdr of recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr of recvmmsg(2)."""

    _fields_ = (("header", _MessageHeader), ("length", ctypes.c_uint))


class _Buffer(ctypes.Structure):
    """Py_buffer of CPython's C API, of which only the address is used."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("object", ctypes.py_object),
        ("length", ctypes.c_ssize_t),
        ("item_size", ctypes.c_ssize_t),
        ("read_only", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("sub_offsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_libc: Final = ctypes.CDLL(None, use_errno=True)
_recvmmsg: Final = _libc.recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg: Final = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_get_buffer: Final = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release_buffer: Final = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None


def address_of(view: memoryview) -> int:
    """Return where the bytes of ``view`` lie in memory. They stay there only as long as the view does."""
    buffer = _Buffer()
    _get_buffer(view, buffer, 0)
    address = int(buffer.address)
    _release_buffer(buffer)
    return address


def _words(vectors: ctypes.Array[_IoVec]) -> memoryview:
    """Return the numbers in ``vectors``: base, length, base, length, …"""
    return memoryview(vectors).cast("B").cast(WORD)


def _numbers(values: Iterable[int]) -> array[int]:
    """Return ``values`` in a form that can be put into ``_words``."""
    return array(WORD, values)


def _messages(vectors: ctypes.Array[_IoVec], each: int) -> ctypes.Array[_Message]:
    """Return messages of ``each`` vectors."""
    count = len(vectors) // each
    messages = (_Message * count)()
    at, step = ctypes.addressof(vectors), each * ctypes.sizeof(_IoVec)
    for number, message in enumerate(messages):
        message.header.vectors = at + number * step
        message.header.vector_count = each
    return messages


class _Plan:
    """What receiving messages of one size takes: ``size`` expected, ``limit`` the most that one may have, in bytes."""

    def __init__(self, size: int, limit: int, scratch: int, scratch_size: int, spill: int) -> None:
        self.size = size
        self.stride = PREFIX + size
        self.count = min(BURST, scratch_size // self.stride, max(1, SPILL // limit))
        self.ends = [self.stride * number for number in range(1, self.count + 1)]
        self.sizes = [size] * self.count
        self.vectors = (_IoVec * (2 * self.count))()
        words = _words(self.vectors)
        for number in range(self.count):
            at = scratch + number * self.stride + PREFIX
            words[4 * number : 4 * number + 4] = _numbers((at, size, spill + number * limit, limit - size))
        self.messages = _messages(self.vectors, 2)
        self.address = ctypes.addressof(self.messages)
        step = ctypes.sizeof(_Message) // ctypes.sizeof(ctypes.c_uint)
        self.lengths = memoryview(self.messages).cast("B").cast("I")[
            _Message.length.offset // ctypes.sizeof(ctypes.c_uint) :: step
        ]
        self.prefix = LENGTH.pack(size)


class Receiver:
    """Receives into ``scratch``, the plane's, and beyond it what is longer than expected."""

    def __init__(self, scratch: bytearray) -> None:
        self._scratch = scratch
        self._view = memoryview(scratch)
        self._address = address_of(self._view)
        self._spill: mmap.mmap | None = None
        self._plans: dict[tuple[int, int], _Plan] = {}

    def receive(self, fd: int, expected: int, limit: int) -> tuple[memoryview, list[int], list[int]]:
        """Return the messages that are there: as a batch, where each ends in it, and the size of every one received.

        Those that are empty or longer than ``limit`` - 1 bytes have a size but are not in the batch. Errors: those of
        recvmmsg(2); BlockingIOError when there is none.
        """
        plan = self._plans.get((expected, limit)) or self._planned(expected, limit)
        count = _recvmmsg(fd, plan.address, plan.count, MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        sizes = plan.lengths[:count].tolist()
        if sizes != plan.sizes[:count]:
            return *self._put_together(plan, sizes, limit), sizes
        stride, end = plan.stride, count * plan.stride
        scratch = self._scratch
        for at, byte in enumerate(plan.prefix):
            scratch[at:end:stride] = byte.to_bytes(1, "big") * count
        return self._view[:end], plan.ends[:count], sizes

    def _planned(self, expected: int, limit: int) -> _Plan:
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        if self._spill is None or len(self._spill) < limit:
            self._plans.clear()
            self._spill = mmap.mmap(-1, max(SPILL, limit))  # pages that nothing is written to take no memory
        spill = address_of(memoryview(self._spill))
        plan = _Plan(expected, limit, self._address, len(self._scratch), spill)
        self._plans[expected, limit] = plan
        return plan

    def _put_together(self, plan: _Plan, sizes: list[int], limit: int) -> tuple[memoryview, list[int]]:
        assert self._spill is not None
        view, spill = self._view, memoryview(self._spill)
        pieces: list[bytes | memoryview] = []
        ends = []
        position = 0
        at, size = PREFIX, plan.size
        for number, got in enumerate(sizes):
            if 0 < got < limit:
                pieces.append(LENGTH.pack(got))
                pieces.append(view[at : at + min(got, size)])
                if got > size:
                    pieces.append(spill[number * limit : number * limit + got - size])
                position += PREFIX + got
                ends.append(position)
            at += plan.stride
        return memoryview(b"".join(pieces)), ends


class Sender:
    """Sends the frames of batches to connected sockets."""

    def __init__(self) -> None:
        self._vectors = (_IoVec * BURST)()
        self._words = _words(self._vectors)
        self._messages = _messages(self._vectors, 1)
        self._address = ctypes.addressof(self._messages)
        self._base = 0
        self._chosen: list[int] = []

    def send(self, fd: int, view: memoryview, ends: Ends, first: int) -> int:
        """Send frames of the batch ``view`` from that of index ``first`` on, up to ``BURST``; return how many went.

        Errors: those of sendmmsg(2) for the first of them; BlockingIOError when the socket is full.
        """
        start = ends[first - 1] if first else 0
        base = address_of(view) + start
        chosen = [end - start for end in ends[first : first + BURST]] if start else list(ends[:BURST])
        count = len(chosen)
        if base != self._base or chosen != self._chosen[:count]:  # bursts of one size are where the last one was
            self._prepare(base, chosen)
        sent = int(_sendmmsg(fd, self._address, count, MSG_DONTWAIT | MSG_NOSIGNAL))
        if sent < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return sent

    def _prepare(self, base: int, ends: list[int]) -> None:
        """Have the vectors say where the frames of a batch at address ``base`` are."""
        starts = [0, *ends[:-1]]
        words, count = self._words, len(ends)
        words[0 : 2 * count : 2] = _numbers([base + PREFIX + at for at in starts])
        words[1 : 2 * count : 2] = _numbers([end - at - PREFIX for at, end in zip(starts, ends, strict=True)])
        self._base, self._chosen = base, ends
