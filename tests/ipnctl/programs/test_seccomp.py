"""The kernel's side of supervising: other threads' memory and descriptors, and what the kernel can do here."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import threading
from collections.abc import Callable

import pytest

from ipnctl.programs import seccomp
from ipnctl.programs.machine import MACHINES, Machine
from ipnctl.programs.seccomp import ADD, ID, REQUEST, RESPONSE
from tests.peers import skip_or_fail

GONE = 0x3FFF_FFFF
"""No process has a number so high (PID_MAX_LIMIT is 4,194,304)."""


@pytest.fixture
def machine() -> Machine:
    if (machine := MACHINES.get(os.uname().machine)) is None:
        skip_or_fail("this machine is not known")
    return machine


def error_of(call: Callable[[], object]) -> int | None:
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def test_this_machine_has_what_it_takes(machine: Machine) -> None:
    seccomp.require_support(machine)


@pytest.mark.parametrize(
    "request_, size",
    [
        (seccomp.RECEIVE, REQUEST.size),
        (seccomp.SEND, RESPONSE.size),
        (seccomp.IS_VALID, ID.size),
        (seccomp.ADD_DESCRIPTOR, ADD.size),
    ],
)
def test_requests_tell_the_size_of_what_comes_with_them(request_: int, size: int) -> None:
    assert request_ >> 16 & 0x3FFF == size
    assert request_ >> 8 & 0xFF == ord("!")


def test_memory_is_read_and_written() -> None:
    room = ctypes.create_string_buffer(b"some memory", 100)
    at = ctypes.addressof(room)
    assert seccomp.read_memory(os.getpid(), at, 11) == b"some memory"
    seccomp.write_memory(os.getpid(), at + 5, b"melody")
    assert room.value == b"some melody"
    assert seccomp.read_memory(os.getpid(), 0, 0) == b""
    seccomp.write_memory(os.getpid(), 0, b"")


def test_memory_that_is_not_all_there_is_an_error() -> None:
    page = mmap.PAGESIZE
    assert error_of(lambda: seccomp.read_memory(os.getpid(), 16, 4)) == errno.EFAULT
    assert error_of(lambda: seccomp.write_memory(os.getpid(), 2**63, b"four")) == errno.EFAULT
    with mmap.mmap(-1, 2 * page) as area:
        at = ctypes.addressof(here := ctypes.c_char.from_buffer(area))
        del here
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(at + page), ctypes.c_size_t(page), 0) == 0
        assert seccomp.read_memory(os.getpid(), at + page - 4, 4) == bytes(4)
        assert error_of(lambda: seccomp.read_memory(os.getpid(), at + page - 4, 8)) == errno.EFAULT
        assert error_of(lambda: seccomp.write_memory(os.getpid(), at + page - 4, b"eight888")) == errno.EFAULT


def test_the_memory_of_who_is_gone_is_an_error() -> None:
    assert error_of(lambda: seccomp.read_memory(GONE, 16, 4)) == errno.ESRCH


def test_a_descriptor_is_copied_from_a_thread(machine: Machine) -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket(fileno=seccomp.copy_descriptor(machine, os.getpid(), one.fileno())) as copy:
        assert os.fstat(copy.fileno()).st_ino == os.fstat(one.fileno()).st_ino
        assert not os.get_inheritable(copy.fileno())
    assert error_of(lambda: seccomp.copy_descriptor(machine, os.getpid(), 1 << 20)) == errno.EBADF
    assert error_of(lambda: seccomp.copy_descriptor(machine, GONE, 0)) == errno.ESRCH


def test_before_linux_6_9_a_descriptor_is_that_of_the_threads_process(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.pidfd_open

    def old(number: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EINVAL, "unknown flags")
        assert number == os.getpid(), "an old kernel opens processes only"
        return opened(number)

    monkeypatch.setattr(os, "pidfd_open", old)
    found: list[bool] = []

    def ask() -> None:
        fd = seccomp.copy_descriptor(machine, threading.get_native_id(), 0)
        found.append(os.path.sameopenfile(fd, 0))
        os.close(fd)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [True]
