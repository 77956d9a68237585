"""IPN_VDESWITCH: a learning Ethernet switch with VLANs, port isolation, rate limits and a loop guard.

One frame's way: ``classify`` drops what no switch passes on and finds the VLAN; ``learn`` remembers where the sender
is; then the frame goes to the port that its destination is on, or floods its VLAN. The decision depends on the
Ethernet header alone, so the plane remembers it; ``learned`` and ``invalidate`` take it back.

While decisions are remembered nobody tells the switch that an address is still in use. So each quarter of the ageing
time it forgets all decisions: whoever still sends is asked about again, and seen.

The parts have files of their own: ``fdb`` (addresses), ``vlan`` (ports), ``guard`` (loops, rates), ``switchsettings``,
``switchstate``, ``switchverbs`` (management).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, ClassVar, Final

from ipn.abi import IPN_VDESWITCH

from .base import ASK, Decision, Deliver, Drop, Forward, LookAt, NetView, Policy, Verb
from .ethernet import (
    HEADER,
    TAGGED_HEADER,
    VID_RESERVED,
    VLAN_TYPE,
    format_mac,
    is_reserved,
    push_tag,
    tag_edit,
    tag_vid,
)
from .fdb import Entry, ForwardingTable
from .guard import LoopGuard, TokenBucket
from .switchsettings import Settings
from .switchstate import load_state, save_state
from .switchverbs import SWITCH_VERBS
from .vlan import PortConfig, PortTable

RUNT: Final = Drop("runt")
GROUP_SOURCE: Final = Drop("source is multicast")
RESERVED: Final = Drop("reserved address")
BLOCKED: Final = Drop("port blocked by the loop guard")
BAD_VLAN: Final = Drop("vlan not allowed")
CUT_TAG: Final = Drop("truncated vlan tag")
SAME_PORT: Final = Drop("destination is on the source port")
ISOLATED: Final = Drop("isolated port")
AWAY: Final = Drop("destination port does not receive")
TOO_MANY: Final = Drop("broadcast rate of the port")

TABLE_FULL: Final = "address not learned: table full"
PORT_FULL: Final = "address not learned: limit of the port"

LOOK_AT_TAG: Final = LookAt(TAGGED_HEADER)
TICK_SLACK: Final = 0.01
"""Seconds that a timer may be early."""


class VdeSwitch(Policy):
    """The switch. The layer-3 switch builds on ``classify``, ``learn``, ``lookup``, ``bridge``, ``egress``."""

    number = IPN_VDESWITCH
    name = "vdeswitch"
    headroom = TAGGED_HEADER - HEADER
    key_bytes: int | None = HEADER
    # Not 12: a frame of 12 or 13 bytes is a runt, and the ethertype says whether there is a tag.
    verbs: ClassVar[Mapping[str, Verb]] = SWITCH_VERBS

    def __init__(self, net: NetView) -> None:
        super().__init__(net)
        self.settings = Settings()
        self.fdb = ForwardingTable()
        self.ports = PortTable()
        self.guard = LoopGuard()
        self._buckets: dict[int, TokenBucket] = {}
        self._age_due = inf
        self._tick_due = inf

    # -- frames --------------------------------------------------------------------------------------------------------

    def decide(self, source: int, head: bytes) -> Decision:
        """Answer for the frames that begin with ``head``: all that matters is in the Ethernet header."""
        return self.bridge(source, head)

    def handlemsg(self, source: int, frame: bytes, depth: int) -> Decision:
        """Answer for one frame of a port whose frames to many are counted. Never ``ASK`` or ``LookAt``."""
        decision = self._switch(source, frame[:TAGGED_HEADER], self._take_token)
        return CUT_TAG if decision is LOOK_AT_TAG else decision

    def bridge(self, source: int, head: bytes) -> Decision:
        """Return what a switch does with the frames that begin with ``head``.

        ``ASK`` when the port has a broadcast rate and they would flood; ``VdeSwitch.handlemsg`` then decides on each.
        """
        return self._switch(source, head, self._leave_to_handlemsg)

    def classify(self, source: int, head: bytes) -> tuple[int, int] | Drop | LookAt:
        """Return the VLAN (0: unaware of them) and the length of the header (14, with tag 18); or what else to do."""
        if len(head) < HEADER:
            return RUNT
        if source in self.guard.blocked:
            return BLOCKED
        if head[6] & 1:
            return GROUP_SOURCE
        if head[0] == 1 and is_reserved(head) and not self.settings.forward_reserved:
            return RESERVED
        return self._classify_vlan(source, head) if self.ports.vlan_aware else (0, HEADER)

    def learn(self, source: int, vlan: int, mac: bytes) -> None:
        """Remember that ``mac`` is on port ``source``."""
        entry = self.fdb.entries.get((vlan, mac))
        if entry is None:
            self._learn_new(source, (vlan, mac))
        elif entry.port == source:
            entry.seen = self.net.now
        elif not entry.static:
            self._move(entry, source, (vlan, mac))

    def lookup(self, vlan: int, mac: bytes) -> int | None:
        """Return the port that ``mac`` is on, None when that is not known."""
        return self.fdb.find(vlan, mac)

    def egress(self, vlan: int, frame: bytes, exclude: int = -1) -> list[Deliver]:
        """Send out an untagged ``frame`` that the switch itself has made: to its destination, or to all of ``vlan``."""
        to = None if frame[0] & 1 else self.fdb.find(vlan, frame[:6])
        shut = {exclude, *self.guard.blocked}
        allowed = [port for port in self.net.readers() if port not in shut and to in (None, port)]
        if not self.ports.vlan_aware:
            return [Deliver(allowed, frame)] if allowed else []
        plain, tagged = self.ports.by_tag(vlan, allowed)
        deliveries = [Deliver(plain, frame)] if plain else []
        return [*deliveries, Deliver(tagged, push_tag(vlan)(frame))] if tagged else deliveries

    def _switch(self, source: int, head: bytes, limit: Callable[[int], Decision | None]) -> Decision:
        seen = self.classify(source, head)
        if not isinstance(seen, tuple):
            return seen
        vlan, header = seen
        self.learn(source, vlan, head[6:12])
        if self.guard.blocked and source in self.guard.blocked:
            return BLOCKED
        known = None if head[0] & 1 else self.fdb.entries.get((vlan, head[:6]))
        if known is not None:
            return self._unicast(source, known.port, vlan, header, head)
        refusal = limit(source) if self._buckets else None
        return self._flood(source, vlan, header, head) if refusal is None else refusal

    def _classify_vlan(self, source: int, head: bytes) -> tuple[int, int] | Drop | LookAt:
        member = self.ports.member(source)
        if head[12:14] != VLAN_TYPE:
            return (member.pvid, HEADER) if member.pvid else BAD_VLAN
        if len(head) < TAGGED_HEADER:
            return LOOK_AT_TAG if len(head) == HEADER else CUT_TAG
        vid = tag_vid(head) or member.pvid
        return (vid, TAGGED_HEADER) if vid and vid != VID_RESERVED and vid in member else BAD_VLAN

    def _unicast(self, source: int, to: int, vlan: int, header: int, head: bytes) -> Decision:
        if to == source:
            return SAME_PORT
        if to in self.guard.blocked:
            return BLOCKED
        if self.ports.apart(source, to):
            return ISOLATED
        port = self.net.ports.get(to)
        if port is None or not port.reader:
            return AWAY
        if not self.ports.vlan_aware:
            return (to,)
        member = self.ports.member(to)
        return Forward((to,), tag_edit(head, header, vlan, vlan in member.tagged)) if vlan in member else BAD_VLAN

    def _flood(self, source: int, vlan: int, header: int, head: bytes) -> Decision:
        blocked = self.guard.blocked
        isolated = self.ports.isolated
        apart = isolated if source in isolated else ()
        to = [port for port in self.net.readers() if port != source and port not in blocked and port not in apart]
        unknown = not head[0] & 1
        if not self.ports.vlan_aware:
            return Forward(to, None, unknown)
        plain, tagged = self.ports.by_tag(vlan, to)
        groups = [Forward(ports, tag_edit(head, header, vlan, tag), unknown)
                  for ports, tag in ((plain, False), (tagged, True)) if ports]  # fmt: skip
        return groups[0] if len(groups) == 1 else groups or Forward((), None, unknown)

    def _leave_to_handlemsg(self, source: int) -> Decision | None:
        return ASK if source in self._buckets else None

    def _take_token(self, source: int) -> Decision | None:
        bucket = self._buckets.get(source)
        return None if bucket is None or bucket.take(self.net.now) else TOO_MANY

    # -- addresses and time --------------------------------------------------------------------------------------------

    def _learn_new(self, source: int, key: tuple[int, bytes]) -> None:
        if self.fdb.full():
            self.net.count(TABLE_FULL)
        elif self.fdb.learned.get(source, 0) >= self.address_limit(source):
            self.net.count(PORT_FULL)
        else:
            self.fdb.add(key, source, self.net.now)
            self.net.learned()
            self._arm_ageing()

    def _move(self, entry: Entry, source: int, key: tuple[int, bytes]) -> None:
        if self.fdb.learned.get(source, 0) >= self.address_limit(source):
            self.net.count(PORT_FULL)
            return
        old = entry.port
        self.fdb.move(entry, source, self.net.now)
        self.net.invalidate()
        settings = self.settings
        block = self.guard.moved(key, old, source, self.net.now, settings.loop_moves, settings.loop_seconds)
        if block is not None:
            self._block(block, f"{format_mac(key[1])} keeps moving between the ports {old} and {source}")

    def _block(self, port: int, why: str) -> None:
        seconds = self.settings.loop_block
        self.guard.block(port, self.net.now + seconds)
        self.fdb.forget_port(port)
        self.net.log(f"loop guard: port {port} is blocked for {seconds:g} s, {why}")
        self._arm(seconds)

    def address_limit(self, port: int) -> int:
        """Return how many addresses ``port`` may have learned."""
        limit = self.ports.config(port).address_limit
        return self.settings.port_limit if limit is None else limit

    def tick(self) -> None:
        """Forget old addresses and end blocks, as far as it is time."""
        now = self.net.now + TICK_SLACK
        if now < self._tick_due:
            return  # an earlier request, which a nearer one has overtaken
        self._tick_due = inf
        freed = self.guard.unblock_due(now)
        for port in freed:
            self.net.log(f"loop guard: port {port} is no longer blocked")
        aged = self._age_due <= now
        if aged:
            self.fdb.expire(now - self.settings.ageing)
        if freed or aged:
            self.net.invalidate()
        self._arm_next(restart_ageing=aged)

    def _arm_next(self, *, restart_ageing: bool = False) -> None:
        if not self.fdb.dynamic:
            self._age_due = inf
        elif restart_ageing or self._age_due == inf:
            self._age_due = self.net.now + self.settings.ageing / 4
        due = min(self._age_due, *self.guard.blocked.values(), inf)
        if due != inf:
            self._arm(due - self.net.now)

    def _arm_ageing(self) -> None:
        if self._age_due == inf:
            self._age_due = self.net.now + self.settings.ageing / 4
            self._arm(self.settings.ageing / 4)

    def _arm(self, seconds: float) -> None:
        due = self.net.now + seconds
        if due < self._tick_due:
            self._tick_due = due
            self.net.tick_in(max(0.0, seconds))

    # -- ports ---------------------------------------------------------------------------------------------------------

    def postnewport(self, port: int) -> None:
        """A new port is the youngest, for the loop guard."""
        self.guard.join(port)
        self.net.invalidate()

    def delport(self, port: int) -> None:
        """A port takes what was learned on it along; its configuration stays."""
        self.fdb.forget_port(port)
        self.guard.leave(port)
        self.net.invalidate()

    # -- configuration -------------------------------------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        """Take over new settings."""
        self.settings = settings
        self.fdb.limit = settings.max_entries
        self._arm_next(restart_ageing=True)
        self.net.invalidate()

    def configure_port(self, port: int, config: PortConfig) -> None:
        """Take over the configuration of a port. Addresses whose VLAN may have changed are learned again."""
        aware = self.ports.vlan_aware
        if config.has_vlans or self.ports.config(port).has_vlans:
            self.fdb.forget_port(port)
        self.ports.configure(port, config)
        if self.ports.vlan_aware != aware:
            self.fdb.flush()
            self.fdb.move_static(self.own_vlan)
        self._buckets.pop(port, None)
        if config.broadcast_rate:
            self._buckets[port] = TokenBucket(config.broadcast_rate, self.net.now)
        self.net.invalidate()

    def own_vlan(self, port: int) -> int:
        """Return the VLAN of untagged frames on ``port``: 0 while there are no VLANs, or if it takes none."""
        return self.ports.member(port).pvid if self.ports.vlan_aware else 0

    def unblock(self, port: int) -> None:
        """End the block of a port before its time."""
        if self.guard.unblock(port):
            self.net.log(f"loop guard: port {port} is no longer blocked, on request")
            self.net.invalidate()

    def show(self) -> dict[str, Any]:
        """Return the figures of the switch."""
        return {
            "addresses": len(self.fdb),
            "ageing": self.settings.ageing,
            "vlan_aware": self.ports.vlan_aware,
            "blocked": sorted(self.guard.blocked),
        }

    def state(self) -> dict[str, Any]:
        """Return settings, ports and static entries."""
        return save_state(self)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over settings, ports and static entries."""
        load_state(self, state)
