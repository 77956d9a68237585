"""The tables of cases: a row a case. Another comparison is another row; another part of the report another table.

A row names its sides, how each is started and its load; the first side is what the others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from idle import MANY, members, networks
from interfaces import STREAM, TAP, Wiring, datagrams, ipn_wires, tcp, udp_round_trips, vde_wires
from messages import messages
from pairing import Bar, Case
from peers import Starter, ipn_network, vde_switch
from startup import launches
from traffic import frames, round_trips

HUB: Final = "vde_switch -hub"
SWITCH: Final = "vde_switch"
FEW_LEARNED: Final = "ipn, 6 learned"
LEARNED: Final = "ipn, 10,000 learned"
LOSSY: Final = "ipn"
LOSSLESS: Final = "ipn lossless"


# -- part "hub": issue 2 -------------------------------------------------------------------------------------------


def _hub(size: int, receivers: int, bars: tuple[Bar, ...] = ()) -> Case:
    sides = {
        HUB: frames(vde_switch("--hub"), size, receivers),
        LOSSY: frames(ipn_network(), size, receivers),
        LOSSLESS: frames(ipn_network(lossless=True), size, receivers),
    }
    name, many = f"hub-{size}-{receivers}", "receiver" if receivers == 1 else "receivers"
    return Case(name, "frames", f"{size} bytes, {receivers} {many}", sides, bars)


def _hub_bars(receivers: int, rate: float) -> tuple[Bar, ...]:
    what = f"hub, 1500 bytes, {receivers} receiver{'s' * (receivers > 1)}"
    return (
        Bar(f"{what}: delivered", LOSSY, "rate", "ratio", at_least=rate, unit="× vde_switch"),
        Bar(f"{what}: CPU per frame delivered", LOSSY, "cpu", "ratio", at_most=0.45, unit="× vde_switch"),
        Bar(f"{what}: lost more than vde_switch", LOSSY, "lost", "difference", at_most=0.0, unit="% points"),
        Bar(f"{what}: reordered", LOSSY, "reordered", at_most=0, unit="frames"),
        Bar(f"{what}, lossless: delivered", LOSSLESS, "rate", "ratio", at_least=2.0, unit="× vde_switch"),
        Bar(f"{what}, lossless: lost", LOSSLESS, "lost", at_most=0.0, unit="%"),
        Bar(f"{what}, lossless: reordered", LOSSLESS, "reordered", at_most=0, unit="frames"),
    )


def _ping(name: str, title: str, cores: tuple[int, int] | None, bars: tuple[Bar, ...] = ()) -> Case:
    sides = {
        HUB: round_trips(vde_switch("--hub"), 98, cores),
        LOSSY: round_trips(ipn_network(), 98, cores),
    }
    return Case(name, "round trip", title, sides, bars)


def _stuck(name: str, title: str, start: Starter, bars: tuple[Bar, ...] = ()) -> Case:
    sides = {
        "4 receivers": frames(start, 1500, 4),
        "and a stuck one": frames(start, 1500, 4, stuck=1),
    }
    return Case(name, "stuck", title, sides, bars)


def _messages(size: int, receivers: int) -> Case:
    sides = {
        "pyzmq PUB/SUB": messages("zmq", size, receivers),
        "ipn send, recv": messages("ipn", size, receivers),
        "ipn send_many, recv_many": messages("ipn-many", size, receivers),
    }
    many = "receiver" if receivers == 1 else "receivers"
    return Case(f"python-{size}-{receivers}", "messages", f"{size} bytes, {receivers} {many}", sides)


def _hub_cases() -> Iterator[Case]:
    yield _hub(64, 1)
    yield _hub(1500, 1, _hub_bars(1, 2.2))
    yield _hub(64, 8)
    yield _hub(1500, 8, _hub_bars(8, 4.0))
    p50 = Bar("round trip of 98 bytes, p50", LOSSY, "p50", "ratio", at_most=0.9, unit="× vde_switch")
    yield _ping("ping", "98 bytes, placed by the kernel", None, (p50,))
    yield _ping("ping-apart", "98 bytes, switch on another core", (0, 1))
    yield _ping("ping-together", "98 bytes, all on one core", (0, 0))
    yield _stuck(
        "stuck",
        "ipn, lossy",
        ipn_network(),
        (
            Bar(
                "one more that never reads, lossy: the others' rate",
                "and a stuck one",
                "rate",
                "ratio",
                at_least=0.95,
                unit="× without it",
            ),
        ),
    )
    yield _stuck("stuck-vde", HUB, vde_switch("--hub"))
    yield Case(
        "members",
        "idle",
        f"{MANY:,} members of a network",
        {"ipnd": members},
        (
            Bar("idle daemon", "ipnd", "rss", at_most=60, unit="MiB"),
            Bar("an idle member more", "ipnd", "member", at_most=64, unit="KiB"),
            Bar(f"{MANY:,} members of one network work", "ipnd", "reached", at_least=MANY, unit="members"),
            Bar("CPU at rest, in 3 s", "ipnd", "rest", at_most=0.0, unit="ms"),
        ),
    )
    yield Case(
        "networks",
        "idle",
        f"{MANY:,} networks of two members",
        {"ipnd": networks},
        (Bar(f"{MANY:,} networks work", "ipnd", "reached", at_least=MANY, unit="networks"),),
    )
    for size in (64, 1500):
        for receivers in (1, 4):
            yield _messages(size, receivers)


# -- part "switch": issue 3 ----------------------------------------------------------------------------------------


def _flows(size: int, flows: int, rate: float | None) -> Case:
    sides = {
        SWITCH: frames(vde_switch(), size, flows, flows=True),
        LOSSY: frames(ipn_network(policy="vdeswitch"), size, flows, flows=True),
        LOSSLESS: frames(ipn_network(policy="vdeswitch", lossless=True), size, flows, flows=True),
    }
    many = "one flow" if flows == 1 else f"{flows} flows interleaved"
    what = f"switch, {size} bytes, {many}"
    bars = () if rate is None else (
        Bar(f"{what}: delivered", LOSSY, "rate", "ratio", at_least=rate, unit="× vde_switch"),
        Bar(f"{what}: lost", LOSSY, "lost", at_most=0.0, unit="%"),
        Bar(f"{what}: reordered", LOSSY, "reordered", at_most=0, unit="frames"),
    )
    return Case(f"switch-{size}-{flows}", "frames", f"{size} bytes, {many}", sides, bars)


def _switch_cases() -> Iterator[Case]:
    yield _flows(1500, 1, 2.2)
    yield _flows(1500, 4, 1.5)
    yield _flows(64, 1, 2.0)
    yield _flows(64, 4, None)
    start = ipn_network(policy="vdeswitch")
    sides = {
        FEW_LEARNED: frames(start, 1500, 1, flows=True, learned=4),
        LEARNED: frames(start, 1500, 1, flows=True, learned=10_000),
    }
    bar = Bar("10,000 learned addresses: delivered", LEARNED, "rate", "ratio", at_least=0.95, unit="× without")
    yield Case("switch-learned", "learned", "1500 bytes, one flow", sides, (bar,))
    trips = {SWITCH: round_trips(vde_switch(), 98), LOSSY: round_trips(start, 98)}
    p50 = Bar("switch, round trip of 98 bytes, p50", LOSSY, "p50", "ratio", at_most=0.9, unit="× vde_switch")
    yield Case("switch-ping", "round trip", "98 bytes, placed by the kernel", trips, (p50,))


# -- part "interfaces": issue 4 ------------------------------------------------------------------------------------


PLACES: Final = {
    "": ("placed by the kernel", None),
    "-apart": ("switch on another core", (0, 1)),
    "-together": ("all on one core", (0, 0)),
}
"""Suffix of a case's name → what its title says of where it runs, and where."""


def _tcp(name: str, title: str, ends: tuple[str, str], at_least: float) -> Case:
    sides = {side: tcp(wiring, ends) for side, wiring in _switches().items()}
    bar = Bar(f"TCP, {title}", LOSSY, "rate", "ratio", at_least=at_least, unit="× vde_switch")
    return Case(name, "tcp", title, sides, (bar,))


def _switches() -> dict[str, Wiring]:
    return {SWITCH: vde_wires(), LOSSY: ipn_wires(policy="vdeswitch")}


def _interface_cases() -> Iterator[Case]:
    yield _tcp("tap-tap", "TAP to TAP", (TAP, TAP), 4.0)
    for suffix, (where, cores) in PLACES.items():
        if cores:
            sides = {side: tcp(wiring, (TAP, TAP), cores=cores) for side, wiring in _switches().items()}
            yield Case(f"tap-tap{suffix}", "tcp", f"TAP to TAP, {where}", sides)
    yield _tcp("tap-stream", "TAP to stream member", (TAP, STREAM), 1.2)
    yield _tcp("stream-tap", "stream member to TAP", (STREAM, TAP), 1.2)
    hubs: dict[str, Wiring] = {HUB: vde_wires("--hub"), LOSSY: ipn_wires()}
    overheard = {side: tcp(wiring, (TAP, TAP), listeners=1) for side, wiring in hubs.items()}
    yield Case("tap-mixed", "overheard tcp", "TAP to TAP and a stream member", overheard)
    small = {side: datagrams(wiring, (TAP, TAP), 64) for side, wiring in _switches().items()}
    yield Case("tap-udp", "datagrams", "64 bytes, TAP to TAP", small)
    for suffix, (where, cores) in PLACES.items():
        sides = {side: udp_round_trips(wiring, (TAP, TAP), 98, cores) for side, wiring in _switches().items()}
        yield Case(f"tap-ping{suffix}", "udp round trip", f"98 bytes, TAP to TAP, {where}", sides)


# -- part "vde": issue 5 -------------------------------------------------------------------------------------------

VDE: Final = dict.fromkeys(("send", "recv", "stuck", "ping", "pong"), "vde")
"""Everybody is a client of a VDE switch."""
STUCK: Final = {"vde": "VDE client", "": "stream member", "seqpacket": "SEQPACKET client", "dgram": "datagram client"}
"""Who may be stuck."""


def _vde(policy: str, reference: str, size: int, flows: int, *, barred: bool = True) -> Case:
    """Return the case of the very same VDE clients on a vde_switch and on a network of ipnd's."""
    hub = policy == "broadcast"
    sides = {
        reference: frames(vde_switch(*["--hub"] * hub), size, flows, flows=not hub),
        LOSSY: frames(ipn_network(policy=policy, doors=VDE), size, flows, flows=not hub),
    }
    many = "one flow" if flows == 1 else f"{flows} {'receivers' if hub else 'flows interleaved'}"
    what = f"VDE clients, {'hub' if hub else 'switch'}, {size} bytes, {many}"
    bars = (
        Bar(f"{what}: delivered", LOSSY, "rate", "ratio", at_least=1.0, unit="× vde_switch"),
        Bar(f"{what}: CPU per frame delivered", LOSSY, "cpu", "ratio", at_most=1.0, unit="× vde_switch"),
        Bar(f"{what}: lost more than vde_switch", LOSSY, "lost", "difference", at_most=0.0, unit="% points"),
        Bar(f"{what}: reordered", LOSSY, "reordered", at_most=0, unit="frames"),
    )
    name = f"vde-{'hub-' if hub else ''}{size}-{flows}"
    return Case(name, "frames", f"{size} bytes, {many}{', hub' if hub else ''}", sides, bars if barred else ())


def _mixed(name: str, title: str, role: str) -> Case:
    sides = {
        SWITCH: frames(vde_switch(), 1500, 1, flows=True),
        LOSSY: frames(ipn_network(policy="vdeswitch", doors={role: "vde"}), 1500, 1, flows=True),
    }
    bar = Bar(f"{title}: reordered", LOSSY, "reordered", at_most=0, unit="frames")
    return Case(name, "frames", title, sides, (bar,))


def _stuck_beside_vde() -> Case:
    sides = {"4 VDE clients": frames(ipn_network(doors=VDE), 1500, 4)}
    bars = []
    for kind, who in STUCK.items():
        doors = {**VDE, "stuck": kind}
        side = f"and a stuck {who}"
        sides[side] = frames(ipn_network(doors=doors), 1500, 4, stuck=1)
        what = f"one {who} more that never reads: the others' rate"
        bars.append(Bar(what, side, "rate", "ratio", at_least=0.95, unit="× without it"))
    return Case("vde-stuck", "stuck", "ipn", sides, tuple(bars))


def _vde_cases() -> Iterator[Case]:
    yield _vde("vdeswitch", SWITCH, 1500, 1)
    yield _vde("vdeswitch", SWITCH, 64, 1)
    yield _vde("vdeswitch", SWITCH, 1500, 4)
    yield _vde("broadcast", HUB, 1500, 1)
    yield _vde("broadcast", HUB, 1500, 4, barred=False)
    yield _mixed("mixed-vde-stream", "1500 bytes, VDE client to stream member", "send")
    yield _mixed("mixed-stream-vde", "1500 bytes, stream member to VDE client", "recv")
    yield _stuck_beside_vde()
    for suffix, (where, cores) in PLACES.items():
        trips = {
            SWITCH: round_trips(vde_switch(), 98, cores),
            LOSSY: round_trips(ipn_network(policy="vdeswitch", doors=VDE), 98, cores),
        }
        yield Case(f"vde-ping{suffix}", "round trip", f"98 bytes, {where}", trips)


# -- part "run": issue 6 -------------------------------------------------------------------------------------------

NATIVE: Final = "SEQPACKET members"
PROGRAMS: Final = "under ipnctl run"
VERSION: Final = "ipnctl --version"
TRUE: Final = "ipnctl run -- true"


def _kinds(kind: str) -> dict[str, str]:
    return dict.fromkeys(("send", "recv", "ping", "pong"), kind)


def _programs(size: int, *, lossless: bool = False) -> Case:
    """Return the case of the very same C programs as SEQPACKET members and as programs for AF_IPN."""
    sides = {
        side: frames(ipn_network(doors=_kinds(kind), lossless=lossless), size, 1)
        for side, kind in ((NATIVE, "seqpacket"), (PROGRAMS, "ipn"))
    }
    what = f"{size} bytes{', lossless' if lossless else ''}"
    bars = (
        Bar(f"programs for AF_IPN, {what}: delivered", PROGRAMS, "rate", "ratio", at_least=0.8, unit="× SEQPACKET"),
        Bar(f"programs for AF_IPN, {what}: reordered", PROGRAMS, "reordered", at_most=0, unit="frames"),
        *[Bar(f"programs for AF_IPN, {what}: lost", PROGRAMS, "lost", at_most=0.0, unit="%")] * lossless,
    )
    return Case(f"run-{size}{'-lossless' if lossless else ''}", "programs", what, sides, bars)


def _run_cases() -> Iterator[Case]:
    yield _programs(64)
    yield _programs(1500)
    yield _programs(1500, lossless=True)
    for suffix, (where, cores) in PLACES.items():
        trips = {
            NATIVE: round_trips(ipn_network(doors=_kinds("seqpacket")), 98, cores),
            PROGRAMS: round_trips(ipn_network(doors=_kinds("ipn")), 98, cores),
        }
        yield Case(f"run-ping{suffix}", "program round trip", f"98 bytes, {where}", trips)
    yield Case(
        "run-start",
        "start-up",
        "from start to end",
        {VERSION: launches("--version"), TRUE: launches("run", "--", "true")},
        (Bar(f"start-up of {TRUE}", TRUE, "wall", at_most=0.35, unit="s"),),
    )


PARTS: Final[dict[str, tuple[Case, ...]]] = {
    "hub": tuple(_hub_cases()),
    "switch": tuple(_switch_cases()),
    "interfaces": tuple(_interface_cases()),
    "vde": tuple(_vde_cases()),
    "run": tuple(_run_cases()),
}
"""Part of the report (what --part selects, and the markers in docs/benchmarks.md name) → its cases."""
