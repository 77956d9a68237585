"""What a delivery policy is: the hooks a network calls, the decisions it may answer with, the helpers it may use. Pure.

A policy only decides: no sockets, no clock, no tasks. It is told of ports coming and going and is asked what is to
happen to a frame; the data plane does the moving. See docs/writing-a-policy.md for a complete example.

The least a policy has is ``number``, ``name`` and ``handlemsg``, which is then asked for every frame. A policy whose
answer depends only on the first bytes of a frame says how many (``key_bytes``) and answers in ``decide``: the plane
remembers the answer for (source port, those bytes) until the policy says ``net.invalidate()``, and moves whole runs of
frames by it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

import attrs

Edit = Callable[[bytes], bytes]
"""A transformation of a whole frame: pure, the same bytes in give the same bytes out, within the MTU."""


@attrs.frozen
class Forward:
    """These ports get the frame, changed by ``edit`` if there is one.

    ``tentative``: the answer may become another when something is learned (``net.learned()``), such as a flood.
    """

    ports: Sequence[int]
    edit: Edit | None = None
    tentative: bool = False


@attrs.frozen
class Deliver:
    """These ports get ``frame`` instead of the one that came. Only ``handlemsg`` may answer so."""

    ports: Sequence[int]
    frame: bytes


@attrs.frozen
class Drop:
    """Nobody gets the frame; it is counted under ``reason``, a few words in lower case, in ``net show``."""

    reason: str


@attrs.frozen
class LookAt:
    """The answer depends on so many leading bytes: ``decide`` is asked again with them (more than before)."""

    octets: int


@attrs.frozen
class Ask:
    """The answer differs from frame to frame: ``handlemsg`` is asked for each with these leading bytes."""


ASK: Final = Ask()

Decision = Collection[int] | Forward | Drop | LookAt | Ask | Sequence[Forward | Deliver]
"""Port numbers (they get the frame as it is), or one of the above, or several ``Forward`` and ``Deliver``: different
messages to different receivers. An empty collection: nobody, and it is not counted."""


class PortView(Protocol):
    """A port as a policy sees it."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def kind(self) -> str:
        """How it is connected: ``stream``, ``packet``, ``raw`` …"""

    @property
    def description(self) -> str:
        """What the member says of itself (IPN_SO_DESCR)."""

    @property
    def reader(self) -> bool:
        """Whether it receives."""

    @property
    def writer(self) -> bool:
        """Whether it sends."""


class NetView(Protocol):
    """The network as its policy sees it, and the helpers. What the helpers ask for is done after the hook returns."""

    mtu: int
    maxports: int
    now: float
    """Seconds, monotonic; the time at which the hook was called."""

    @property
    def ports(self) -> Mapping[int, PortView]:
        """The ports in use, by number."""

    def readers(self) -> Sequence[int]:
        """Return the numbers of the ports that receive, ascending."""

    def sendmsg(self, to: int, frame: bytes, depth: int = 0) -> None:
        """Send ``frame`` to port ``to`` (ipn_proto_sendmsg)."""

    def oobsendmsg(self, to: int, data: bytes) -> None:
        """Send an out-of-band message to port ``to``, if it wants such (ipn_proto_oobsendmsg)."""

    def injectmsg(self, source: int, frame: bytes, depth: int = 0) -> None:
        """Let ``frame`` enter the network as if port ``source`` had sent it (ipn_proto_injectmsg)."""

    def invalidate(self) -> None:
        """Forget all remembered decisions: something they depended on has changed."""

    def learned(self) -> None:
        """Forget the tentative decisions: something new is known."""

    def count(self, reason: str, frames: int = 1) -> None:
        """Count ``frames`` under ``reason``, beside the answer to the plane."""

    def tick_in(self, seconds: float) -> None:
        """Have ``tick`` called once, ``seconds`` from now; of several requests that are open the nearest counts."""

    def log(self, text: str) -> None:
        """Say something of importance in the daemon's log."""

    def changed(self) -> None:
        """Have ``state`` saved, if the network is persistent: it was changed by other means than a verb."""


Verb = tuple[Callable[[Any, Mapping[str, Any]], Any], bool]
"""What carries out a management request, and whether that needs the right to manage (x) or any right will do."""


def refuse(number: int, text: str) -> OSError:
    """Return the ``OSError`` with which a hook refuses; the caller raises it."""
    return OSError(number, text)


class Policy:
    """A delivery policy of one network. Subclasses set ``number`` (2 to 255), ``name`` and override what they need."""

    number: ClassVar[int]
    name: ClassVar[str]
    key_bytes: int | None = None
    """Leading bytes of a frame that ``decide`` depends on; 0: only the source port; None: always ``handlemsg``."""
    headroom: ClassVar[int] = 0
    """Bytes that a frame may be longer than the MTU: for tags that the policy adds and takes."""
    verbs: ClassVar[Mapping[str, Verb]] = {}
    """Management requests (``ipnctl``, control op ``policy``): name → (function(self, arguments), needs x)."""

    def __init__(self, net: NetView) -> None:
        self.net = net

    # -- frames --------------------------------------------------------------------------------------------------------

    def decide(self, source: int, head: bytes) -> Decision:
        """Answer for all frames from port ``source`` that begin with ``head``.

        ``head`` is ``key_bytes`` long, or what a ``LookAt`` asked for; shorter only when the whole frame is.
        """
        return ASK

    def handlemsg(self, source: int, frame: bytes, depth: int) -> Decision:
        """Answer for one frame. ``depth``: how many cables and injections it has come over."""
        raise NotImplementedError

    # -- ports ---------------------------------------------------------------------------------------------------------

    def newport(self, wanted: int) -> int:
        """Return the number for a new port (``wanted``, or any free one when that is -1); -1 when there is none.

        Called before the port can be reached; ``OSError`` refuses it.
        """
        ports = self.net.ports
        if wanted >= 0:
            return wanted if wanted < self.net.maxports and wanted not in ports else -1
        return next((n for n in range(self.net.maxports) if n not in ports), -1)

    def postnewport(self, port: int) -> None:
        """The port can now be reached: the place for a welcome message."""

    def predelport(self, port: int) -> None:
        """The port is about to go and can still be reached: the place for a goodbye to it and to the others."""

    def delport(self, port: int) -> None:
        """The port is gone: forget what was kept for it."""

    # -- the network ---------------------------------------------------------------------------------------------------

    def newnet(self) -> None:
        """The network is being created (or is to change to this policy); ``OSError`` refuses."""

    def resizenet(self, old: int, new: int) -> None:
        """The number of ports changes; ``OSError`` refuses, and nothing has changed."""

    def delnet(self) -> None:
        """The network has ended (or changes to another policy)."""

    def tick(self) -> None:
        """The time asked for with ``net.tick_in`` has come."""

    # -- options and management ----------------------------------------------------------------------------------------

    def setsockopt(self, port: int, option: int, value: int | bytes) -> None:
        """Set an option of this policy's level; ``port`` is -1 for a socket that is only bound."""
        raise refuse(errno.EOPNOTSUPP, f"the policy {self.name} has no options to set")

    def getsockopt(self, port: int, option: int, length: int) -> int | bytes:
        """Return an option of this policy's level."""
        raise refuse(errno.EOPNOTSUPP, f"the policy {self.name} has no options to read")

    def ioctl(self, port: int, request: int, argument: int | bytes) -> int | bytes:
        """Carry out an ioctl that AF_IPN itself does not know."""
        raise refuse(errno.EOPNOTSUPP, f"the policy {self.name} has no ioctl {request:#x}")

    def show(self) -> dict[str, Any]:
        """Return what ``net show`` tells of the policy, as JSON values."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return the configuration to keep with a persistent network, as JSON values."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned earlier; ``ValueError`` when it makes no sense."""
