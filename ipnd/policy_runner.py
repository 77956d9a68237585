"""Running a network's policy: asking it, turning its answers into routes, doing what it asked for besides answering.

The border of blame: whatever a hook raises that is not a refusal (an ``OSError`` where a hook may refuse) is the
policy's fault and ends its network, with the traceback in the log. The daemon and the other networks go on.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from .plane.routes import Route
from .policies.base import Ask, Decision, Deliver, Drop, Forward, LookAt, Policy

if TYPE_CHECKING:
    from .network import Network
    from .plane.links import Link
    from .plane.port import Port

log = logging.getLogger("ipnd.policy")

MAX_KNOWN: Final = 16_384
"""Decisions remembered for one port; beyond, all of them are forgotten (a flood of invented addresses)."""
MAX_LOOK: Final = 256
"""Most leading bytes that a decision may depend on."""
FAILED: Final = Route(reason="the policy failed")


class PolicyRunner:
    """Runs ``policy`` for ``network``: what the data plane and the control plane ask, and the ``NetView`` it sees."""

    def __init__(self, network: Network, policy: type[Policy]) -> None:
        self._network = network
        self._todo: list[Callable[[], None]] = []
        self._tick_at = 0
        self._failed = False
        self._hidden: set[int] = set()
        self._readers: list[int] | None = None
        self.drops: Counter[str] = Counter()
        self.mtu = network.options.mtu
        self.maxports = network.options.maxports
        self.now = time.monotonic()
        self.policy = self._build(policy)

    def _build(self, policy: type[Policy]) -> Policy:
        try:
            return policy(self)
        except Exception as error:
            log.exception("the policy %s cannot be made", policy.name)
            raise OSError(errno.EIO, f"the policy {policy.name} failed: {error}") from None

    # -- what the policy sees (NetView) ------------------------------------------------------------------------------

    @property
    def ports(self) -> Mapping[int, Port]:
        """The ports in use."""
        if self._hidden:
            return {n: port for n, port in self._network.ports.items() if n not in self._hidden}
        return self._network.ports

    def readers(self) -> Sequence[int]:
        """Return the numbers of the ports that receive."""
        if self._readers is None:
            self._readers = sorted(number for number, port in self.ports.items() if port.reader)
        return self._readers

    def sendmsg(self, to: int, frame: bytes, depth: int = 0) -> None:
        """Send a frame to a port, after the hook."""
        self._later(lambda: self._network.delivery.send(self._links([to]), frame, depth))

    def oobsendmsg(self, to: int, data: bytes) -> None:
        """Send an out-of-band message to a port that handles such, after the hook."""
        self._later(lambda: self._network.notify_port(to, data))

    def injectmsg(self, source: int, frame: bytes, depth: int = 0) -> None:
        """Let a frame enter as from a port, one hop further than ``depth``, after the hook."""

        def inject() -> None:
            port = self._network.ports.get(source)
            if port is not None:
                self._network.delivery.inject(port, frame, depth + 1)

        self._later(inject)

    def invalidate(self) -> None:
        """Forget all remembered decisions."""
        self._readers = None
        for port in self._network.ports.values():
            port.forget_routes()

    def learned(self) -> None:
        """Forget the tentative decisions."""
        for port in self._network.ports.values():
            port.forget_tentative()

    def count(self, reason: str, frames: int = 1) -> None:
        """Count frames under a reason."""
        self.drops[reason] += frames

    def tick_in(self, seconds: float) -> None:
        """Have ``tick`` called once; of several requests the nearest counts."""
        at = time.monotonic_ns() + int(seconds * 1e9)
        if not self._tick_at or at < self._tick_at:
            self._tick_at = at
            self._network.plane.call_at(at, lambda: self._tick(at))

    def log(self, text: str) -> None:
        """Say something in the daemon's log."""
        log.warning("%s: %s", self._network.path, text)

    def changed(self) -> None:
        """Have the configuration saved."""
        self._network.configuration_changed()

    def _later(self, function: Callable[[], None]) -> None:
        if not self._todo:
            self._network.plane.later(self.settle)
        self._todo.append(function)

    # -- what the data plane asks (Rules) ----------------------------------------------------------------------------

    @property
    def key_bytes(self) -> int | None:
        """Leading bytes that decisions depend on."""
        return self.policy.key_bytes

    def resolve(self, port: Port, head: bytes) -> Route:
        """Have the policy decide on frames that begin with ``head``, and remember it."""
        decision = self._guarded("decide", port.number, head)
        try:
            route, tentative = self._route(decision, ask_allowed=True)
            if route.more and not len(head) < route.more <= MAX_LOOK:
                raise ValueError(f"LookAt({route.more}) with {len(head)} bytes seen; at most {MAX_LOOK} can be")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            return self._fault("decide", error)
        if len(port.known) >= MAX_KNOWN:
            port.forget_routes()
        port.known[head] = route
        if tentative:
            port.tentative.append(head)
        return route

    def ask(self, port: Port, frame: bytes, depth: int) -> Route:
        """Have the policy decide on one frame."""
        decision = self._guarded("handlemsg", port.number, frame, depth)
        try:
            return self._route(decision, ask_allowed=False)[0]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            return self._fault("handlemsg", error)

    def drop(self, reason: str, frames: int) -> None:
        """Count frames that nobody gets."""
        self.drops[reason] += frames

    def settle(self) -> None:
        """Do what the policy asked for: at most as much as it has asked until now, the rest in the next turn."""
        todo, self._todo = self._todo, []
        for function in todo:
            if not self._network.ended:
                function()
        if self._todo:
            self._network.plane.later(self.settle)

    def _route(self, decision: Decision, *, ask_allowed: bool) -> tuple[Route, bool]:
        """Turn an answer into a route; say whether it is tentative."""
        if isinstance(decision, Forward):
            links = self._links(decision.ports)
            if decision.edit is None:
                return Route(links), decision.tentative
            return Route(changed=((links, decision.edit),) if links else ()), decision.tentative
        if isinstance(decision, Drop):
            return Route(reason=decision.reason), False
        if isinstance(decision, (LookAt, Ask)):
            if not ask_allowed:
                raise TypeError(f"{decision!r} answers nothing")
            return Route(more=decision.octets) if isinstance(decision, LookAt) else Route(ask=True), False
        return self._several(list(decision))

    def _several(self, answers: Sequence[Any]) -> tuple[Route, bool]:
        """Turn port numbers, or several ``Forward`` and ``Deliver``, into a route."""
        if all(type(answer) is int for answer in answers):
            return Route(self._links(answers)), False
        plain: list[Link] = []
        changed: list[tuple[tuple[Link, ...], Callable[[bytes], bytes]]] = []
        tentative = False
        for answer in answers:
            links = self._links(answer.ports)
            if isinstance(answer, Deliver):
                changed.append((links, _instead(answer.frame)))
            elif isinstance(answer, Forward):
                tentative |= answer.tentative
                if answer.edit is None:
                    plain += links
                else:
                    changed.append((links, answer.edit))
            else:
                raise TypeError(f"{answer!r} is no decision")
        return Route(tuple(plain), changed=tuple(c for c in changed if c[0])), tentative

    def _links(self, ports: Iterable[int]) -> tuple[Link, ...]:
        """Return the links of those of ``ports`` that are there and receive."""
        have = self._network.ports
        found = (have.get(number) for number in ports)
        return tuple(
            port.outlet or port.link for port in found if port is not None and port.reader and port.link is not None
        )

    # -- hooks -------------------------------------------------------------------------------------------------------

    def hook(self, name: str, *arguments: Any) -> Any:
        """Call a hook that may refuse with ``OSError``; anything else it raises is EIO and the end of its network."""
        return self.hook_function(name, getattr(type(self.policy), name), *arguments)

    def hook_function(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function(policy, …)``, as ``hook`` does."""
        self.now = time.monotonic()
        try:
            return function(self.policy, *arguments)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the border of the policy's blame
            self._fault(name, error)
            raise OSError(errno.EIO, f"the policy {self.policy.name} failed, and its network ends: {error}") from None

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give the policy the configuration that was kept; one that makes no sense is reported, and it starts anew."""
        try:
            self.policy.restore(state)
        except (ValueError, TypeError, KeyError, OSError) as error:
            self.log(f"the configuration that was kept for its policy {self.policy.name} is not used: {error}")

    def takes_over(self, number: int) -> bool:
        """Return whether a policy that is to take over a live network wants the member on port ``number``."""
        self._hidden.add(number)
        try:
            return bool(self.hook("newport", number) == number)
        finally:
            self._hidden.discard(number)

    def notice(self, name: str, *arguments: Any) -> None:
        """Call a hook that only hears of something."""
        self._guarded(name, *arguments)

    def _guarded(self, name: str, *arguments: Any) -> Any:
        self.now = time.monotonic()
        try:
            return getattr(self.policy, name)(*arguments)
        except Exception as error:  # noqa: BLE001 - the border of the policy's blame
            self._fault(name, error)
            return Drop("the policy failed")

    def _fault(self, name: str, error: Exception) -> Route:
        if not self._failed:
            self._failed = True
            network = self._network
            log.error("the policy %s of %s failed in %s", self.policy.name, network.path, name, exc_info=error)
            network.plane.later(lambda: network.end(f"its policy {self.policy.name} failed in {name}: {error!r}"))
        return FAILED

    def _tick(self, at: int) -> None:
        if at != self._tick_at:
            return  # a nearer request has come before this one
        self._tick_at = 0
        if not self._network.ended and self._network.runner is self:
            self.notice("tick")

    def verb(self, name: str) -> tuple[Callable[[Any, Mapping[str, Any]], Any], bool]:
        """Return what carries out a management request; EOPNOTSUPP when the policy has no such verb."""
        found = self.policy.verbs.get(name)
        if found is None:
            known = ", ".join(sorted(self.policy.verbs)) or "none"
            text = f"a {self.policy.name} network has no {name!r} (it has: {known})"
            raise OSError(errno.EOPNOTSUPP, text)
        return found


def _instead(frame: bytes) -> Callable[[bytes], bytes]:
    return lambda original: frame
