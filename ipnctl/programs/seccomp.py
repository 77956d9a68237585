"""The kernel's side of supervising a program's system calls: seccomp(2), seccomp_unotify(2).

A program puts a filter on itself and gets a *listener*: whoever has that is told of the calls that the filter picks,
and answers in the kernel's place. The program stays as it was before the call, and dies no other way than before, when
the listener is closed: such calls then fail with ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from typing import Final

import attrs

from ipn import libc

from .machine import Machine

PR_SET_NO_NEW_PRIVS: Final = 38
SET_MODE_FILTER, GET_ACTION_AVAIL = 1, 2
FLAG_NEW_LISTENER: Final = 1 << 3
USER_NOTIF: Final = 0x7FC0_0000

REQUEST: Final = struct.Struct("=QIIiIQ6Q")
"""``struct seccomp_notif``: id, thread, flags, number, machine, instruction, arguments."""
RESPONSE: Final = struct.Struct("=QqiI")
"""``struct seccomp_notif_resp``: id, value, error, flags."""
ADD: Final = struct.Struct("=QIIII")
"""``struct seccomp_notif_addfd``: id, flags, the descriptor here, there, its flags."""
ID: Final = struct.Struct("=Q")
CONTINUE: Final = 1
ADD_AND_ANSWER: Final = 2
PIDFD_THREAD: Final = os.O_EXCL
MOMENT: Final = 0.0001
"""Seconds after which to look again whether a thread has gone to sleep, or given up its call."""

RECEIVE: Final = 0xC0502100
SEND: Final = 0xC0182101
IS_VALID: Final = 0x40082102
ADD_DESCRIPTOR: Final = 0x40182103

TOO_OLD: Final = "this kernel cannot have system calls told (seccomp user notification): Linux 5.9 or newer is needed"


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class _Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _call(number: int, *arguments: object) -> int:
    """Make a system call that the C library has no function for."""
    return libc.call("syscall", ctypes.c_long(number), *arguments)


# -- before the program ----------------------------------------------------------------------------------------------


def require_support(machine: Machine) -> None:
    """ENOSYS or EPERM, with what to do, where programs cannot be supervised."""
    action = ctypes.c_uint32(USER_NOTIF)
    try:
        _call(machine.seccomp, ctypes.c_ulong(GET_ACTION_AVAIL), ctypes.c_ulong(0), ctypes.byref(action))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            text = "seccomp is forbidden here; in a container, allow it (podman run --security-opt seccomp=unconfined)"
            raise PermissionError(errno.EPERM, text) from None
        raise OSError(errno.ENOSYS, TOO_OLD) from None
    _require_looking(machine)


def _require_looking(machine: Machine) -> None:
    """EPERM, with what to do, where nobody may look into a process, not even into the own one: in some containers."""
    mark = ctypes.c_uint32()
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        write_memory(os.getpid(), ctypes.addressof(mark), read_memory(os.getpid(), ctypes.addressof(mark), 4))
        os.close(copy_descriptor(machine, os.getpid(), fd))
    except OSError as error:
        code = error.errno or errno.EPERM
        text = (
            f"cannot look into the memory and the descriptors of a program: {os.strerror(code)};"
            " in a container, allow it (podman run --cap-add SYS_PTRACE, or --security-opt seccomp=unconfined)"
        )
        raise OSError(code, text) from None
    finally:
        os.close(fd)


def install(machine: Machine, program: bytes, instruction_size: int) -> int:
    """Put a filter on this thread and all that it becomes, for good, and return the listener.

    The kernel lets users do so only to who gives up gaining privileges by set-user-ID programs (no_new_privs).
    Errors: EBUSY under another supervisor, EPERM where a container forbids it, ENOSYS before Linux 5.9.
    """
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    filter = _Program(len(program) // instruction_size, program)
    flags = ctypes.c_ulong(FLAG_NEW_LISTENER)
    try:
        listener = _call(machine.seccomp, ctypes.c_ulong(SET_MODE_FILTER), flags, ctypes.byref(filter))
    except OSError as error:
        if error.errno == errno.EBUSY:
            text = "this is run by a supervisor of system calls already (ipnctl run?), and there can be only one"
            raise OSError(errno.EBUSY, text) from None
        code = error.errno or errno.EPERM
        text = f"cannot have system calls told: {os.strerror(code)}; in a container, allow seccomp"
        raise OSError(code, text) from None
    _require_adding(listener)
    return listener


def _require_adding(listener: int) -> None:
    """ENOSYS where nobody can give a program a descriptor. There is no call yet that could get one, which is ENOENT."""
    try:
        fcntl.ioctl(listener, ADD_DESCRIPTOR, ADD.pack(0, 0, listener, 0, 0))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise OSError(errno.ENOSYS, TOO_OLD) from None


# -- the listener ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Call:
    """A system call that waits for an answer. ``thread`` made it."""

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


def receive(listener: int) -> Call | None:
    """Return the next call; None when there is none after all: its thread was killed or interrupted."""
    buffer = bytearray(REQUEST.size)
    try:
        fcntl.ioctl(listener, RECEIVE, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    identity, thread, _, number, _, _, *arguments = REQUEST.unpack(buffer)
    return Call(identity, thread, number, tuple(arguments))


def is_valid(listener: int, call: Call) -> bool:
    """Return whether the thread of ``call`` still waits: then what was read of its memory was its own."""
    try:
        fcntl.ioctl(listener, IS_VALID, ID.pack(call.id))
    except OSError:
        return False
    return True


def expects_answer(listener: int, call: Call) -> bool:
    """Return whether the thread of ``call`` sleeps until it is answered.

    One that runs has been woken by a signal, and is about to give up the call: an answer now would be taken for told,
    and be lost. So that is waited for.
    """
    while is_valid(listener, call):
        try:
            with open(f"/proc/{call.thread}/stat", "rb", buffering=0) as file:
                state = file.read(4096).rpartition(b") ")[2][:1]
        except OSError:
            return False
        if state == b"S":
            return True
        time.sleep(MOMENT)
    return False


def answer(listener: int, call: Call, value: int = 0, error: int = 0, *, go_on: bool = False) -> bool:
    """Have a call return ``value``, or fail with the number ``error``; or ``go_on`` as if nobody had been asked.

    Return False when it does not wait any more.
    """
    try:
        fcntl.ioctl(listener, SEND, bytearray(RESPONSE.pack(call.id, value, -error, CONTINUE * go_on)))
    except FileNotFoundError:
        return False
    return True


def answer_with(listener: int, call: Call, fd: int, flags: int) -> None:
    """Have a call return a copy of the descriptor ``fd`` with ``flags`` (O_CLOEXEC or 0). Errors: EMFILE there."""
    try:
        fcntl.ioctl(listener, ADD_DESCRIPTOR, ADD.pack(call.id, ADD_AND_ANSWER, fd, 0, flags))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
        if error.errno != errno.EINVAL:
            raise
        # Before Linux 5.14 in two steps: a signal between them leaves the program a descriptor it knows nothing of.
        there = fcntl.ioctl(listener, ADD_DESCRIPTOR, ADD.pack(call.id, 0, fd, 0, flags))
        answer(listener, call, int(there))


# -- the program's memory and descriptors ----------------------------------------------------------------------------


def read_memory(thread: int, address: int, size: int) -> bytes:
    """Return ``size`` bytes of a thread's memory. EFAULT when they are not all there."""
    if not size:
        return b""
    buffer = ctypes.create_string_buffer(size)
    _transfer("process_vm_readv", thread, ctypes.addressof(buffer), address, size)
    return buffer.raw


def write_memory(thread: int, address: int, data: bytes) -> None:
    """Write ``data`` to a thread's memory. EFAULT where it may not write itself."""
    if data:
        buffer = ctypes.create_string_buffer(data, len(data))
        _transfer("process_vm_writev", thread, ctypes.addressof(buffer), address, len(data))


def _transfer(function: str, thread: int, here: int, there: int, size: int) -> None:
    ours, theirs = _Vector(here, size), _Vector(there, size)
    one = ctypes.c_ulong(1)
    try:
        done = libc.call(function, thread, ctypes.byref(ours), one, ctypes.byref(theirs), one, ctypes.c_ulong(0))
    except PermissionError:
        text = "this system does not let a parent look into the memory of its children (kernel.yama.ptrace_scope?)"
        raise PermissionError(errno.EPERM, text) from None
    if done != size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


def copy_descriptor(machine: Machine, thread: int, fd: int) -> int:
    """Return a copy of a thread's descriptor: the same open file. EBADF when it has none of that number."""
    pidfd = _open_thread(thread)
    try:
        return _call(machine.pidfd_getfd, ctypes.c_int(pidfd), ctypes.c_int(fd), ctypes.c_uint(0))
    finally:
        os.close(pidfd)


def _open_thread(thread: int) -> int:
    """Return a descriptor of a thread, which may have files of its own; before Linux 6.9 of its process."""
    try:
        return os.pidfd_open(thread, PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    try:
        process = int(status_of(thread)["Tgid"])
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    return os.pidfd_open(process)


def status_of(thread: int) -> dict[str, str]:
    """Return what /proc/PID/status says of a thread."""
    with open(f"/proc/{thread}/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
