"""What the helper does with a request: judge it by the rules, open the device, say in the log what came of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from ipn.control import Message
from ipn.helper import network_namespace
from ipn.netdev import TUN_PATH, Device, open_grab, open_tap
from ipn.netlink import link, watch_links

from .helper_caller import Caller
from .helper_capabilities import missing_capabilities
from .helper_request import CheckRequest, GrabRequest, TapRequest, decode_request
from .helper_rulesfile import RulesFile

Log = Callable[[str], None]
Answer = tuple[Message, Device | None]


class Grants:
    """Answers requests by the rules in ``rules_file``. ``log`` gets one line for each grant and refusal."""

    def __init__(self, rules_file: RulesFile, log: Log) -> None:
        self._rules_file = rules_file
        self._log = log

    def answer(self, caller: Caller, message: Message) -> Answer:
        """Return the answer to ``message``, and the opened device, which the receiver of this owns.

        Errors: EINVAL for a request that is none, EPERM for what the rules do not grant, EEXIST for a TAP with the name
        of an existing interface, and those of ``netdev.open_tap`` and ``open_grab``.
        """
        what = "a request"
        try:
            request = decode_request(message)
            what = str(request)
            if isinstance(request, CheckRequest):
                return self._check(caller), None
            rule = self._rules_file.read().judge(request, caller.uid, caller.groups)
            device = _open(request, caller)
        except OSError as error:
            self._log(f"refused {caller} {what}: {error.strerror or error}")
            raise
        named = "" if device.name == request.name else f" as {device.name}"
        self._log(f"granted {caller} {what}{named}: {rule}")
        return {"kind": device.kind, "name": device.name, "index": device.index}, device

    def _check(self, caller: Caller) -> Message:
        problems = [f"the helper has no {name}" for name in missing_capabilities()]
        if problem := _tun_problem():
            problems.append(problem)
        found = []
        try:
            rules = self._rules_file.read()
            found = rules.of(caller.uid, caller.groups)
            if not found:
                problems.append(f"no rule in {self._rules_file.path} is for user {caller.uid}")
            if caller.uid == 0:
                problems += [f"{self._rules_file.path}: {warning}" for warning in rules.warnings]
        except PermissionError as error:
            problems.append(str(error.strerror))
        return {
            "allowed": [str(rule) for _, _, rule in found],
            "rules": [{"kind": kind, "number": number, **rule.describe()} for kind, number, rule in found],
            "problems": problems,
            "rules_file": self._rules_file.path,
            "namespace": network_namespace(),
        }


def _open(request: TapRequest | GrabRequest, caller: Caller) -> Device:
    if isinstance(request, GrabRequest):
        return open_grab(request.name)
    _refuse_existing(request.name)
    try:
        # "exclusive": TUNSETIFF would open a persistent TAP that is there.
        return open_tap(
            request.name,
            mac=request.mac,
            mtu=request.mtu,
            up=request.up,
            addresses=request.addresses,
            owner=caller.uid,
            exclusive=True,
        )
    except OSError as error:
        if error.errno == errno.EBUSY:
            _refuse_existing(request.name)
        raise


def _refuse_existing(name: str) -> None:
    with watch_links() as sock:
        try:
            link(sock, name=name)
        except OSError:
            return
    raise FileExistsError(
        errno.EEXIST, f"there is an interface {name} already, and the helper touches none that exists"
    )


def _tun_problem() -> str:
    """Return what keeps the helper from making TAPs, or nothing."""
    try:
        os.close(os.open(TUN_PATH, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        why = "the kernel's module tun is missing (modprobe tun)" if error.errno == errno.ENOENT else error.strerror
        return f"the helper cannot open {TUN_PATH}: {why}"
    return ""
