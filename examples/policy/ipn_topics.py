"""Delivery by topic: the first word of a message is the description of the members that get it."""

import errno
from collections.abc import Mapping
from typing import Any, ClassVar

from ipnd.policies.base import Decision, Drop, NetView, Policy, Verb, refuse


class Topics(Policy):
    """``weather 12 degrees`` goes to whoever joined with the description ``weather``; ``* …`` goes to everybody."""

    number = 111
    name = "topics"

    def __init__(self, net: NetView) -> None:
        super().__init__(net)
        self.open = True

    def handlemsg(self, source: int, frame: bytes, depth: int) -> Decision:
        """Answer with the ports that get this message."""
        topic = frame.split(b" ", 1)[0].decode("utf-8", "replace")
        if topic == "*" and not self.open:
            return Drop("for everybody, which is switched off")
        ports = self.net.ports
        return [n for n in self.net.readers() if n != source and topic in ("*", ports[n].description)]

    def postnewport(self, port: int) -> None:
        """Welcome a new member."""
        self.net.sendmsg(port, b"* welcome to port %d" % port)

    def set_open(self, arguments: Mapping[str, Any]) -> None:
        """Carry out the request ``topics.set``."""
        if not isinstance(arguments.get("open"), bool):
            raise refuse(errno.EINVAL, "topics.set: 'open' must be true or false")
        self.open = arguments["open"]

    verbs: ClassVar[Mapping[str, Verb]] = {"topics.set": (set_open, True)}


class CachedTopics(Topics):
    """The same for many messages: the network remembers what was decided for the first 32 bytes of one."""

    number = 112
    name = "topics-cached"
    key_bytes = 32

    def decide(self, source: int, head: bytes) -> Decision:
        """Answer for all messages that begin with ``head``."""
        if b" " not in head and len(head) == 32:
            return Drop("topic too long")
        return self.handlemsg(source, head, 0)
