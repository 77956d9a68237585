"""IPN_VDESWITCH_L3: a switch that also routes between its subnets, IPv4 and IPv6.

Within a subnet it is the switch it builds on, and decisions are remembered as there. Frames to the router's MAC address
are asked about one by one and given to the router (``routing``); ARP, and neighbour discovery to groups that the router
is in, is heard by it and bridged besides, unless it claims one of the router's own addresses.

VLAN 0 of the router is the whole network while the switch is not aware of VLANs, and its default VLAN when it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, ClassVar, Final

from ipn.abi import IPN_VDESWITCH_L3

from .base import ASK, Decision, Deliver, Drop, Forward, LookAt, NetView, Verb
from .ethernet import HEADER, TAG, TAGGED_HEADER
from .routing import configuration
from .routing.packet import ARP, IPV6, Discard
from .routing.router import SMALLEST, Router
from .routing.verbs import ROUTER_VERBS
from .switchverbs import SWITCH_VERBS
from .vdeswitch import BLOCKED, CUT_TAG, VdeSwitch
from .vlan import DEFAULT_PVID

OWN_SOURCE: Final = Drop("source is the gateway's mac")


class L3Switch(VdeSwitch):
    """The layer-3 switch of one network."""

    number = IPN_VDESWITCH_L3
    name = "l3switch"
    verbs: ClassVar[Mapping[str, Verb]] = {**SWITCH_VERBS, **ROUTER_VERBS}

    def __init__(self, net: NetView) -> None:
        super().__init__(net)
        self._around = _Around(self)
        self.router = Router(self._around)

    # -- frames ------------------------------------------------------------------------------------------------------

    def decide(self, source: int, head: bytes) -> Decision:
        """Answer for the frames that begin with ``head``: those that concern the router are asked about."""
        seen = self.classify(source, head)
        if not isinstance(seen, tuple):
            return seen
        vlan, header = self._routers_vlan(seen[0]), seen[1]
        if not self.router.interfaces.serves(vlan):
            return self.bridge(source, head)
        if head[6:12] == self.router.interfaces.mac:
            return OWN_SOURCE
        return ASK if self._concerns_router(vlan, head, header) else self.bridge(source, head)

    def handlemsg(self, source: int, frame: bytes, depth: int) -> Decision:
        """Answer for one frame that concerns the router, or that ``decide`` has left to the switch."""
        seen = self.classify(source, frame[:TAGGED_HEADER])
        if not isinstance(seen, tuple):
            return CUT_TAG if isinstance(seen, LookAt) else seen
        vlan, header = self._routers_vlan(seen[0]), seen[1]
        interfaces = self.router.interfaces
        if not interfaces.serves(vlan) or not self._concerns_router(vlan, frame, header):
            return super().handlemsg(source, frame, depth)
        if frame[6:12] == interfaces.mac:
            return OWN_SOURCE
        if frame[:6] == interfaces.mac:
            return self._route(source, seen[0], frame, header)
        return self._overhear(source, vlan, frame, header, depth)

    def _concerns_router(self, vlan: int, head: bytes, header: int) -> bool:
        interfaces = self.router.interfaces
        kind = _kind(head, header)
        return head[:6] == interfaces.mac or kind == ARP or (kind == IPV6 and interfaces.listens(vlan, head[:6]))

    def _route(self, source: int, vlan: int, frame: bytes, header: int) -> Decision:
        self.learn(source, vlan, frame[6:12])
        if source in self.guard.blocked:  # by what has just been learned
            return BLOCKED
        try:
            self.router.receive(self._routers_vlan(vlan), frame[6:12], _kind(frame, header), frame[header:])
        except Discard as discard:
            return self._answers(Drop(discard.reason))
        return self._answers([])

    def _overhear(self, source: int, vlan: int, frame: bytes, header: int, depth: int) -> Decision:
        bridged = super().handlemsg(source, frame, depth)
        if isinstance(bridged, Drop):
            return bridged
        try:
            self.router.overhear(vlan, frame[6:12], _kind(frame, header), frame[header:])
        except Discard as discard:
            return self._answers(Drop(discard.reason))
        return self._answers(bridged)

    def _answers(self, besides: Decision) -> Decision:
        """Return what the router has sent, together with what happens to the frame itself."""
        sent = self._around.take()
        self._arm_router()
        if not sent:
            return besides
        if isinstance(besides, Drop):
            self.net.count(besides.reason)
            return sent
        return [*_forwards(besides), *sent]

    def _routers_vlan(self, vlan: int) -> int:
        """Return what the router calls a VLAN of the switch."""
        default = vlan == DEFAULT_PVID and not self.router.interfaces.serves(vlan)
        return 0 if default else vlan

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due, in the switch and in the router."""
        super().tick()
        self.router.tick()
        self._around.flush()
        self._arm_router()

    def _arm_router(self) -> None:
        due = self.router.next_due()
        if due != inf:
            self._arm(due - self.net.now)

    # -- configuration -------------------------------------------------------------------------------------------------

    def configured(self, *, announce: bool) -> None:
        """Put a change of the router's configuration into effect; ``announce``: the hosts are to hear of it."""
        self.router.reconfigured()
        self.net.invalidate()
        if announce:
            self.router.resolution.announce()
            self.router.advertise_all()
        self._around.flush()
        self._arm_router()

    def show(self) -> dict[str, Any]:
        """Return the figures of switch and router."""
        return {**super().show(), "router": configuration.show(self.router)}

    def state(self) -> dict[str, Any]:
        """Return the configuration of switch and router."""
        return {**super().state(), "router": configuration.save(self.router)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the configuration of switch and router; that of a mere switch will do."""
        super().restore({name: value for name, value in state.items() if name != "router"})
        configuration.load(self.router, state.get("router", {}))
        self.router.advertise_all()
        self._around.flush()
        self._arm_router()
        self.net.invalidate()


class _Around:
    """What the router sees of its switch. Frames it sends are kept until they are taken, or flushed."""

    def __init__(self, switch: L3Switch) -> None:
        self._switch = switch
        self._sent: list[Deliver] = []

    @property
    def now(self) -> float:
        return self._switch.net.now

    def mtu(self, vlan: int) -> int:
        """Return what is left of a frame, the tag deducted where a port wants one."""
        switch = self._switch
        header = HEADER
        if switch.ports.vlan_aware:
            tagged = vlan or DEFAULT_PVID
            header += TAG * any(tagged in switch.ports.member(port).tagged for port in switch.ports.configured)
        return max(SMALLEST, switch.net.mtu - header)

    def send(self, vlan: int, frame: bytes) -> None:
        """Have ``frame`` go out; a VLAN that the switch does not know has no members."""
        switch = self._switch
        if switch.ports.vlan_aware:
            self._sent += switch.egress(vlan or DEFAULT_PVID, frame)
        elif vlan == 0:
            self._sent += switch.egress(vlan, frame)

    def count(self, reason: str, frames: int = 1) -> None:
        self._switch.net.count(reason, frames)

    def log(self, text: str) -> None:
        self._switch.net.log(text)

    def take(self) -> list[Deliver]:
        """Return what was sent, for the answer to the plane."""
        sent, self._sent = self._sent, []
        return sent

    def flush(self) -> None:
        """Send what was sent outside of ``handlemsg``."""
        for delivery in self.take():
            for port in delivery.ports:
                self._switch.net.sendmsg(port, delivery.frame)


def _kind(head: bytes, header: int) -> int:
    """Return the Ethernet type behind the tag, if there is one."""
    return int.from_bytes(head[header - 2 : header], "big")


def _forwards(decision: Decision) -> list[Forward | Deliver]:
    """Return a decision of the switch as messages to receivers: it is port numbers, or already such."""
    answers: list[Any] = [decision] if isinstance(decision, Forward) else list(decision)  # type: ignore[arg-type]
    return [Forward(answers)] if all(isinstance(answer, int) for answer in answers) else answers
