"""A network as a policy sees it, without any: the clock is set by hand, what the policy asks for is written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs

from ipnd.policies.base import Deliver, Drop, Forward, LookAt, Policy


@attrs.define
class FakePort:
    number: int
    kind: str = "raw"
    description: str = ""
    reader: bool = True
    writer: bool = True


@attrs.define(eq=False)
class FakeNet:
    """A ``NetView``. Ports come and go by ``join`` and ``leave``, time goes by with ``advance``."""

    mtu: int = 1514
    maxports: int = 32
    now: float = 1000.0
    ports: dict[int, FakePort] = attrs.field(factory=dict)
    counted: Counter[str] = attrs.field(factory=Counter)
    logged: list[str] = attrs.field(factory=list)
    sent: list[tuple[int, bytes]] = attrs.field(factory=list)
    invalidated: int = 0
    news: int = 0
    saved: int = 0
    tick_at: float | None = None

    def readers(self) -> Sequence[int]:
        return sorted(number for number, port in self.ports.items() if port.reader)

    def sendmsg(self, to: int, frame: bytes, depth: int = 0) -> None:
        self.sent.append((to, frame))

    def oobsendmsg(self, to: int, data: bytes) -> None:
        raise AssertionError("no policy here sends out of band")

    def injectmsg(self, source: int, frame: bytes, depth: int = 0) -> None:
        raise AssertionError("no policy here injects")

    def invalidate(self) -> None:
        self.invalidated += 1

    def learned(self) -> None:
        self.news += 1

    def count(self, reason: str, frames: int = 1) -> None:
        self.counted[reason] += frames

    def tick_in(self, seconds: float) -> None:
        at = self.now + seconds
        self.tick_at = at if self.tick_at is None else min(at, self.tick_at)

    def log(self, text: str) -> None:
        self.logged.append(text)

    def changed(self) -> None:
        self.saved += 1

    def join(self, policy: Policy, *numbers: int) -> None:
        for number in numbers:
            self.ports[number] = FakePort(number)
            policy.postnewport(number)

    def leave(self, policy: Policy, number: int) -> None:
        policy.predelport(number)
        del self.ports[number]
        policy.delport(number)

    def advance(self, policy: Policy, seconds: float) -> int:
        """Let time pass, with the ticks asked for; return how many there were."""
        end = self.now + seconds
        ticks = 0
        while self.tick_at is not None and self.tick_at <= end:
            self.now, self.tick_at = self.tick_at, None
            policy.tick()
            ticks += 1
            assert ticks < 10_000, "the policy ticks without end"
        self.now = end
        return ticks


def outcome(policy: Policy, source: int, frame: bytes) -> dict[int, bytes] | str:
    """Return what happens to ``frame``, asking as the plane does: port → what it gets, or why nobody gets it."""
    assert policy.key_bytes is not None
    decision = policy.decide(source, frame[: policy.key_bytes])
    if isinstance(decision, LookAt):
        decision = policy.decide(source, frame[: decision.octets])
    if type(decision).__name__ == "Ask":
        decision = policy.handlemsg(source, frame, 0)
    if isinstance(decision, Drop):
        return decision.reason
    got: dict[int, bytes] = {}
    for part in [decision] if isinstance(decision, Forward) else list(decision):  # type: ignore[arg-type]
        if isinstance(part, int):
            part = Forward([part])
        assert isinstance(part, Forward | Deliver)
        for port in part.ports:
            assert port not in got, f"port {port} would get the frame twice"
            got[port] = part.frame if isinstance(part, Deliver) else (part.edit or bytes)(frame)
    return got
