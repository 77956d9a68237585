"""Policies that a stranger's package would offer, for the tests: each shows one thing of the API."""

from __future__ import annotations

import errno
from typing import Any, ClassVar

from ipnd.policies.base import Deliver, Drop, Forward, LookAt, Policy, refuse


class Words(Policy):
    """Asked for every message: the first byte says who gets it."""

    number, name = 50, "words"

    def handlemsg(self, source: int, frame: bytes, depth: int) -> Any:
        first = frame[:1]
        others = [n for n in self.net.readers() if n != source]
        if first == b"!":
            raise ZeroDivisionError("a bug of the stranger's")
        if first == b"?":
            return "nonsense"
        if first == b"-":
            return Drop("unwanted")
        if first == b"d":
            return [Deliver([n], b"%d:" % n + frame) for n in others]
        if first == b"u":
            return Forward(others, edit=bytes.upper)
        if first == b"L":
            return Forward(others, edit=lambda f: f * 2000)
        if first == b"e":
            self.net.sendmsg(source, b"echo " + frame)
            return ()
        if first == b"i":
            self.net.injectmsg(source, frame, depth)
            self.net.count(f"depth {depth}")
            return ()
        if first == b"o":
            for n in self.net.readers():
                self.net.oobsendmsg(n, b"policy's own")
            return ()
        return others

    def postnewport(self, port: int) -> None:
        self.net.sendmsg(port, b"welcome %d" % port)

    def predelport(self, port: int) -> None:
        for other in self.net.readers():
            if other != port:
                self.net.sendmsg(other, b"goodbye %d" % port)

    def newport(self, wanted: int) -> int:
        return -1 if 13 in self.net.ports else super().newport(wanted)

    def resizenet(self, old: int, new: int) -> None:
        if new == 7:
            raise refuse(errno.EDOM, "seven is unlucky here")

    def setsockopt(self, port: int, option: int, value: int | bytes) -> None:
        self.value = (option, value)

    def getsockopt(self, port: int, option: int, length: int) -> int | bytes:
        return self.value[1]

    def ioctl(self, port: int, request: int, argument: int | bytes) -> int | bytes:
        return bytes(argument)[::-1] if isinstance(argument, bytes) else port + argument


class Cached(Policy):
    """Decides on the first byte, once: counts how often it is asked, and knows one message that makes it forget."""

    number, name, key_bytes = 51, "cached", 1

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.asked = 0

    def decide(self, source: int, head: bytes) -> Any:
        self.asked += 1
        if head == b"f":
            self.net.invalidate()
        if head[:1] == b"m":
            if len(head) < 3:
                return LookAt(3)
            return [n for n in self.net.readers() if n != source] if head == b"me!" else Drop("not me")
        return Forward([n for n in self.net.readers() if n != source], tentative=head == b"t")

    def show(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def _learn(self, arguments: Any) -> None:
        self.net.learned()

    verbs: ClassVar = {"learn": (_learn, False), "forget": (lambda self, arguments: self.net.invalidate(), True)}

    def state(self) -> dict[str, Any]:
        return {"kept": 1}


class Picky(Policy):
    """Refuses to be a network's policy."""

    number, name = 52, "picky"

    def newnet(self) -> None:
        raise refuse(errno.EBUSY, "not today")

    def handlemsg(self, source: int, frame: bytes, depth: int) -> Any:
        return ()
