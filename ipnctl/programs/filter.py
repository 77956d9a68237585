"""The seccomp filter of a program: which of its system calls its supervisor is asked about. Pure.

A classic BPF program (linux/filter.h) sees the number and the arguments of a call, not what pointers lead to. So the
calls that make a socket are told apart by the address family, those on one are all looked at, and messages only where
they are longer than those that may pass unseen. All else goes straight to the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from .machine import Machine

INSTRUCTION: Final = struct.Struct("=HBBI")
"""``struct sock_filter``: code, jump if true, jump if false, value."""
LOAD: Final = 0x20
JUMP_EQUAL: Final = 0x15
JUMP_GREATER: Final = 0x25
JUMP_GREATER_OR_EQUAL: Final = 0x35
AND: Final = 0x54
RETURN: Final = 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_JMP with BPF_JEQ, BPF_JGT and BPF_JGE, BPF_ALU|BPF_AND, BPF_RET, all with BPF_K."""
ALLOW: Final = 0x7FFF_0000
NOTIFY: Final = 0x7FC0_0000
"""SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF."""
NUMBER, MACHINE, ARGUMENTS = 0, 4, 16
"""Offsets in ``struct seccomp_data``."""
UPPER: Final = 4
"""Where the upper half of an argument is: both machines are little-endian."""

SOL_SOCKET: Final = 1
SO_TYPE, SO_PROTOCOL, SO_DOMAIN = 3, 38, 39
REQUEST_TYPE: Final = 0xFF00
IPN_TYPE: Final = ord("I") << 8
"""What all requests of AF_IPN have in their second byte, a policy's own included."""
SIOCSIFHWADDR: Final = 0x8924

Step = tuple[int, int, str, str]
"""Code, value, label to go on at if true and if false; an empty one is the next step."""


def build(machine: Machine, families: Sequence[int], unseen: int) -> bytes:
    """Return the filter for ``families``; messages of at most ``unseen`` bytes are not told of."""
    parts: Mapping[str, Callable[[], list[Step]]] = {
        "socket": lambda: _any_of(families),
        "socketpair": lambda: _any_of(families),
        "sendto": lambda: _longer_than(unseen),
        "write": lambda: _longer_than(unseen),
        "setsockopt": lambda: [_argument(1), (JUMP_EQUAL, SOL_SOCKET, "allow", "notify")],
        "getsockopt": _getsockopt,
        "ioctl": _ioctl,
    }
    steps: list[Step | str] = [
        (LOAD, MACHINE, "", ""),
        (JUMP_EQUAL, machine.audit, "", "allow"),
        (LOAD, NUMBER, "", ""),
        (JUMP_GREATER_OR_EQUAL, machine.highest, "allow", ""),
        *((JUMP_EQUAL, number, name if name in parts else "notify", "") for name, number in machine.calls.items()),
        "allow",
        (RETURN, ALLOW, "", ""),
        "notify",
        (RETURN, NOTIFY, "", ""),
    ]
    # Jumps go forward only, so what ends is repeated behind each part.
    for name, part in parts.items():
        own = [(code, value, _own(yes, name), _own(no, name)) for code, value, yes, no in part()]
        steps += [name, *own, f"{name} allow", (RETURN, ALLOW, "", ""), f"{name} notify", (RETURN, NOTIFY, "", "")]
    return _assembled(steps)


def _own(label: str, part: str) -> str:
    return f"{part} {label}" if label else ""


def _argument(number: int) -> Step:
    """Load the lower half of an argument: where these are numbers, they are ints."""
    return (LOAD, ARGUMENTS + 8 * number, "", "")


def _any_of(families: Sequence[int]) -> list[Step]:
    *others, last = families
    tests = [(JUMP_EQUAL, family, "notify", "") for family in others]
    return [_argument(0), *tests, (JUMP_EQUAL, last, "notify", "allow")]


def _longer_than(size: int) -> list[Step]:
    """Tell of lengths beyond ``size``. A length has two halves."""
    upper = (LOAD, ARGUMENTS + 8 * 2 + UPPER, "", "")
    return [upper, (JUMP_EQUAL, 0, "", "notify"), _argument(2), (JUMP_GREATER, size, "notify", "allow")]


def _getsockopt() -> list[Step]:
    """Of what all sockets have, ask about those that tell what kind of socket it is."""
    kinds = [(JUMP_EQUAL, option, "notify", "") for option in (SO_TYPE, SO_PROTOCOL)]
    return [_argument(1), (JUMP_EQUAL, SOL_SOCKET, "", "notify"), _argument(2), *kinds,
            (JUMP_EQUAL, SO_DOMAIN, "notify", "allow")]  # fmt: skip


def _ioctl() -> list[Step]:
    return [
        _argument(1),
        (JUMP_EQUAL, SIOCSIFHWADDR, "notify", ""),
        (AND, REQUEST_TYPE, "", ""),
        (JUMP_EQUAL, IPN_TYPE, "notify", "allow"),
    ]


def _assembled(steps: Sequence[Step | str]) -> bytes:
    """Return the bytes of a program; a text among its steps is a label."""
    places: dict[str, int] = {}
    program: list[Step] = []
    for step in steps:
        if isinstance(step, str):
            places[step] = len(program)
        else:
            program.append(step)

    def distance(label: str, here: int) -> int:
        return places[label] - here - 1 if label else 0

    return b"".join(
        INSTRUCTION.pack(code, distance(yes, here), distance(no, here), value)
        for here, (code, value, yes, no) in enumerate(program)
    )
