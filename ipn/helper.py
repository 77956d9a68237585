"""Interfaces for programs without privilege: what they may not open themselves, they ask the helper for.

``ipn-helper`` is a small process of root behind a socket, by default ``/run/ipn/helper``. A request is one message
with a JSON object, so is its answer, which brings the opened descriptors; ipn-helper(8) says who is granted what.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .channel import close_all
from .control import MAX_FDS, ControlError, Message, decode_message, error_from_body
from .netdev import TUN_PATH, Device, NoPrivilege, open_grab, open_tap
from .rendezvous import peer_uid, short_address

DEFAULT_HELPER: Final = "/run/ipn/helper"
ANSWER_TIMEOUT: Final = 10.0
"""Seconds to wait for the helper; it answers in milliseconds unless the machine is hopelessly busy."""
MAX_ANSWER: Final = 256 * 1024
"""Bytes of the longest answer: that to ``check``, with all the rules for a user."""
FDS: Final = {"tap": 2, "grab": 3}
"""Kind of device → descriptors it has."""
HOW_TO_START: Final = "systemctl enable --now ipn-helper.socket, or: sudo ipn-helper"
CAPABILITIES: Final = {"tap": 12, "grab": 13}
"""Kind of device → number of the capability that opening it takes: CAP_NET_ADMIN, CAP_NET_RAW."""


class NoHelper(OSError):
    """The helper cannot be asked; the text says why."""


def helper_address() -> str:
    """Return where the helper's socket is for this process: ``$IPN_HELPER``, else ``/run/ipn/helper``."""
    return os.path.abspath(os.environ.get("IPN_HELPER") or DEFAULT_HELPER)


def obtain_tap(
    name: str = "",
    *,
    mac: str | None = None,
    mtu: int | None = None,
    up: bool = False,
    addresses: Sequence[str] = (),
) -> Device:
    """Return a TAP, opened with the caller's own privilege or else by the helper.

    Arguments and errors are those of ``netdev.open_tap``. EPERM, with what to do, when neither can; a refusal of the
    helper's is EPERM (its rules) or EEXIST (it never touches an interface that is there already), in its words.
    """
    try:
        return open_tap(name, mac=mac, mtu=mtu, up=up, addresses=addresses)
    except NoPrivilege as refusal:
        request = {"op": "tap", "name": name, "mac": mac, "mtu": mtu, "up": up, "addresses": list(addresses)}
        return _device_from_helper(request, refusal)


def obtain_grab(name: str) -> Device:
    """Return a GRAB of the interface ``name``, opened with the caller's own privilege or else by the helper.

    Errors are those of ``netdev.open_grab``. EPERM, with what to do, when neither can; a refusal of the helper's is
    EPERM in its words.
    """
    try:
        return open_grab(name)
    except NoPrivilege as refusal:
        return _device_from_helper({"op": "grab", "name": name}, refusal)


def helper_check() -> Message:
    """Return how things stand between the caller and the helper.

    ``address``: where the helper is looked for. ``running``: whether it answers. ``own``: the kinds of device
    (``tap``, ``grab``) that the caller has the capability to open without it. ``allowed``: what its rules allow the
    caller, a sentence for each rule; ``rules``: the same as data. ``problems``: what is wrong, in sentences; none when
    all is well.
    """
    address = helper_address()
    report: Message = {"address": address, "running": False, "own": _own_capabilities()}
    report |= {"allowed": [], "rules": [], "problems": []}
    try:
        answer, fds = _ask({"op": "check"})
        close_all(fds)
    except OSError as error:
        remedy = f"; start it with: {HOW_TO_START}" if error.errno in (errno.ENOENT, errno.ECONNREFUSED) else ""
        report["problems"].append(f"{_words(error)}{remedy}")
        if not os.path.exists(TUN_PATH):
            report["problems"].append(f"there is no {TUN_PATH}: the kernel's module tun is missing (modprobe tun)")
        return report
    report["running"] = True
    for key in ("allowed", "rules", "problems"):
        found = answer.get(key)
        report[key] = found if isinstance(found, list) else []
    if answer.get("namespace") != network_namespace():
        text = f"the helper at {address} is in another network namespace: what it opens is not to be seen here"
        report["problems"].append(text)
    return report


def network_namespace() -> str:
    """Return what names the caller's network namespace, ``device:inode``; empty where that cannot be told."""
    with contextlib.suppress(OSError):
        info = os.stat("/proc/thread-self/ns/net")
        return f"{info.st_dev}:{info.st_ino}"
    return ""


def _device_from_helper(request: Message, refusal: NoPrivilege) -> Device:
    try:
        answer, fds = _ask(request)
    except NoHelper as error:
        advice = "run it as root, or have ipn-helper started (ipnctl helper check tells more)"
        raise PermissionError(errno.EPERM, f"{refusal.strerror}, and {error.strerror}; {advice}") from None
    kind, name, index = answer.get("kind"), answer.get("name"), answer.get("index")
    if kind == request["op"] and isinstance(name, str) and isinstance(index, int) and len(fds) == FDS[kind]:
        return Device(kind, name, index, tuple(fds))
    close_all(fds)
    raise OSError(errno.EPROTO, f"what answers at {helper_address()} is not an ipn-helper of this version")


def _ask(request: Message) -> tuple[Message, list[int]]:
    """Return the helper's answer and its descriptors, which are the caller's; raise its refusal, or ``NoHelper``."""
    address = helper_address()
    with _connected(address) as sock:
        try:
            with contextlib.suppress(BrokenPipeError):  # turned away: then the answer is there already
                sock.send(json.dumps(request).encode())
            data, fds, cut = _receive(sock)
        except OSError as error:
            raise NoHelper(errno.ECONNREFUSED, f"the helper at {address} does not answer ({_words(error)})") from None
    try:
        answer = decode_message(data)
    except ControlError:
        close_all(fds)
        what = "went away without an answer" if not data else "answers with what is no answer"
        raise NoHelper(errno.ECONNREFUSED, f"the helper at {address} {what}") from None
    body: Any = answer.get("ok")
    if isinstance(body, dict) and not cut:
        return body, fds
    close_all(fds)
    if cut:
        raise OSError(errno.EMFILE, "no room for the helper's descriptors: too many open files here")
    raise error_from_body(answer.get("error"))


def _receive(sock: socket.socket) -> tuple[bytes, list[int], bool]:
    """Return one message, its descriptors, and whether there were more than fit."""
    size = array.array("i").itemsize
    data, ancillary, flags, _ = sock.recvmsg(MAX_ANSWER, socket.CMSG_SPACE(size * MAX_FDS), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % size])
    return data, list(fds), bool(flags & socket.MSG_CTRUNC)


def _connected(address: str) -> socket.socket:
    """Return a connection to the helper; ``NoHelper`` says why there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # Not settimeout, with which a full backlog is an error at once.
        patience = struct.pack("@ll", int(ANSWER_TIMEOUT), int(ANSWER_TIMEOUT % 1 * 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        with short_address(address) as short:
            sock.connect(short)
        sock.settimeout(ANSWER_TIMEOUT)
        owner = Path(address).stat().st_uid
        if (uid := peer_uid(sock)) not in (0, os.geteuid(), owner):
            text = f"the helper at {address} runs as user {uid}, who is neither root nor the owner of the socket"
            raise NoHelper(errno.EACCES, text)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, NoHelper):
            raise NoHelper(error.errno, _why_not(address, error)) from None
        raise
    return sock


def _why_not(address: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"no helper answers at {address}: there is no such socket"
    if error.errno == errno.ECONNREFUSED:
        return f"no helper answers at {address}: nobody listens there any more"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"user {os.geteuid()} may not connect to the helper at {address}"
    if error.errno in (errno.EPROTOTYPE, errno.ENOTSOCK):
        return f"what is at {address} is not the socket of an ipn-helper"
    if error.errno == errno.EAGAIN:
        return f"the helper at {address} is too busy"
    return f"the helper at {address} cannot be reached ({_words(error)})"


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _own_capabilities() -> list[str]:
    """Return the kinds of device for which the caller has the capability (in its user namespace)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                effective = int(line.split()[1], 16)
                return [kind for kind, number in CAPABILITIES.items() if effective >> number & 1]
    return []
