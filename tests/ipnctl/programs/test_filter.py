"""The filter, run by an interpreter of classic BPF (linux/filter.h): what the supervisor is asked about."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipnctl.programs import filter
from ipnctl.programs.filter import ALLOW, NOTIFY
from ipnctl.programs.machine import MACHINES, Machine

MTU = 1514
FAMILIES = (34, 33, 13)
IPN_REQUEST, IPN_LATER, TIOCGWINSZ = 0x4004_49CA, 0x4028_49CA, 0x5413
AUDIT_I386 = 0x4000_0003
X32 = 0x4000_0000
MAX_STEPS = 4096
"""BPF_MAXINSNS: the kernel takes no longer program, and as jumps go forward only, none takes more steps."""

machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


def run(program: bytes, machine: int, number: int, *arguments: int) -> int:
    """Return what the filter says of a call."""
    whole = [argument % (1 << 64) for argument in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("=IIQ6Q", number, machine, 0x1234, *whole)
    steps = list(struct.iter_unpack("=HBBI", program))
    assert len(steps) <= MAX_STEPS
    accumulator = position = 0
    for _ in range(len(steps)):
        code, yes, no, value = steps[position]
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                position += yes if accumulator == value else no
            case 0x25:
                position += yes if accumulator > value else no
            case 0x35:
                position += yes if accumulator >= value else no
            case 0x06:
                return int(value)
            case _:
                pytest.fail(f"unknown instruction {code:#x}")
    pytest.fail("it never returns")


def asked(machine: Machine, name: str, *arguments: int, families: tuple[int, ...] = FAMILIES, mtu: int = MTU) -> bool:
    """Return whether the supervisor is asked about a call."""
    found = run(filter.build(machine, families, mtu), machine.audit, machine.calls[name], *arguments)
    assert found in (ALLOW, NOTIFY)
    return found == NOTIFY


@machines
def test_the_families_that_are_af_ipn_are_asked_about_and_no_others(machine: Machine) -> None:
    for name in ("socket", "socketpair"):
        assert {family for family in range(256) if asked(machine, name, family, 3, 1)} == set(FAMILIES)
        assert {family for family in range(256) if asked(machine, name, family, families=(99,))} == {99}
        assert asked(machine, name, 34 | 0xDEAD << 32), "the kernel takes the lower half, too"
        assert not asked(machine, name, -34)


@machines
@pytest.mark.parametrize(
    "name",
    ["bind", "connect", "listen", "accept", "accept4", "getsockname", "getpeername", "shutdown", "recvmsg"],
)
def test_calls_on_sockets_are_asked_about_whatever_their_arguments(machine: Machine, name: str) -> None:
    assert asked(machine, name)
    assert asked(machine, name, *[0xFFFF_FFFF_FFFF_FFFF] * 6)


@machines
@pytest.mark.parametrize("name", ["write", "sendto"])
def test_messages_are_asked_about_where_they_are_longer_than_what_passes_unseen(machine: Machine, name: str) -> None:
    assert [size for size in (0, 1, MTU - 1, MTU, MTU + 1, 65536) if asked(machine, name, 3, 0, size)] == [1515, 65536]
    assert [size for size in (9000, 9001) if asked(machine, name, 3, 0, size, mtu=9000)] == [9001]
    assert asked(machine, name, 3, 0, 0xFFFF_FFFF)
    assert asked(machine, name, 3, 0, 1 << 32)


@machines
def test_options_of_all_sockets_are_the_kernels_but_for_those_that_tell_the_kind(machine: Machine) -> None:
    levels = {level for level in range(-1, 300) if not asked(machine, "setsockopt", 3, level)}
    assert levels == {socket.SOL_SOCKET}
    assert {level for level in range(-1, 300) if not asked(machine, "getsockopt", 3, level)} == {socket.SOL_SOCKET}
    kinds = {option for option in range(100) if asked(machine, "getsockopt", 3, socket.SOL_SOCKET, option)}
    assert kinds == {socket.SO_TYPE, socket.SO_PROTOCOL, socket.SO_DOMAIN}


@machines
def test_requests_of_af_ipns_type_are_asked_about_in_both_encodings(machine: Machine) -> None:
    for request in (IPN_REQUEST, IPN_LATER, 0x8924, 0x4004_4900, 0x4900):
        assert asked(machine, "ioctl", 3, request)
    for request in (TIOCGWINSZ, 0x5421, 0x8927, 0x8923, 0x4900_0000, 0x4800, 0x4A00):
        assert not asked(machine, "ioctl", 3, request)


@machines
@given(number=st.integers(0, 0xFFFF_FFFF), arguments=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
def test_every_other_call_goes_to_the_kernel(machine: Machine, number: int, arguments: list[int]) -> None:
    found = run(filter.build(machine, FAMILIES, MTU), machine.audit, number, *arguments)
    assert found == ALLOW or (found == NOTIFY and number in machine.calls.values())


@machines
@given(
    audit=st.integers(0, 0xFFFF_FFFF) | st.just(AUDIT_I386),
    arguments=st.lists(st.integers(0, 2**64 - 1) | st.just(34), min_size=6, max_size=6),
    data=st.data(),
)
def test_calls_of_another_architecture_go_to_the_kernel(
    machine: Machine, audit: int, arguments: list[int], data: st.DataObject
) -> None:
    number = data.draw(st.sampled_from(sorted(machine.calls.values())))
    if audit != machine.audit:
        assert run(filter.build(machine, FAMILIES, MTU), audit, number, *arguments) == ALLOW


@machines
def test_calls_of_x32_go_to_the_kernel(machine: Machine) -> None:
    program = filter.build(machine, FAMILIES, MTU)
    for number in machine.calls.values():
        assert run(program, machine.audit, number | X32, 34, 0x4900, 70000) == ALLOW
    assert run(program, machine.audit, 0xFFFF_FFFF, 34) == ALLOW


@machines
@given(families=st.lists(st.integers(1, 255), min_size=1, max_size=40, unique=True), mtu=st.integers(1, 1 << 24))
def test_every_list_of_families_makes_a_filter(machine: Machine, families: list[int], mtu: int) -> None:
    program = filter.build(machine, families, mtu)
    for family in range(256):
        found = run(program, machine.audit, machine.calls["socket"], family)
        assert found == (NOTIFY if family in families else ALLOW)


