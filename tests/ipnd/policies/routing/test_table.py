from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ipnd.policies.routing.interfaces import Gateway
from ipnd.policies.routing.table import Hop, Table

GATEWAYS = [Gateway(1, ip_interface("10.0.1.1/24")), Gateway(2, ip_interface("10.0.2.1/24"))]


def table(static: dict[str, str]) -> Table:
    made = Table()
    made.static = {ip_network(prefix): ip_address(via).packed for prefix, via in static.items()}
    made.rebuild(GATEWAYS)
    return made


def hop(made: Table, address: str) -> tuple[int, str] | None:
    found = made.lookup(ip_address(address).packed)
    return None if found is None else (found.vlan, str(ip_address(found.address)))


def test_a_subnet_of_the_router_is_reached_directly() -> None:
    assert hop(table({}), "10.0.2.7") == (2, "10.0.2.7")
    assert hop(table({}), "10.0.3.7") is None
    assert hop(table({}), "fd00::1") is None


def test_the_longest_prefix_wins() -> None:
    made = table({"0.0.0.0/0": "10.0.1.9", "192.0.2.0/24": "10.0.2.9", "192.0.2.128/25": "10.0.1.8"})
    assert hop(made, "8.8.8.8") == (1, "10.0.1.9")
    assert hop(made, "192.0.2.1") == (2, "10.0.2.9")
    assert hop(made, "192.0.2.200") == (1, "10.0.1.8")
    assert hop(made, "10.0.1.77") == (1, "10.0.1.77")


def test_a_route_through_nowhere_is_listed_and_not_used() -> None:
    made = table({"192.0.2.0/24": "10.0.9.9"})
    assert hop(made, "192.0.2.1") is None
    assert [(str(route.prefix), route.kind, route.vlan) for route in made.routes][-1] == (
        "192.0.2.0/24",
        "static",
        None,
    )


networks: Any = st.builds(
    lambda number, length: ip_network((number << 24 >> (32 - length) << (32 - length), length)),
    st.integers(0, 255),
    st.integers(0, 12),
)


@given(st.lists(networks, max_size=12), st.integers(0, 0xFFFFFFFF))
def test_it_finds_what_looking_at_every_route_finds(prefixes: list[Any], number: int) -> None:
    made = table({str(prefix): f"10.0.1.{place + 2}" for place, prefix in enumerate(prefixes)})
    address = ip_address(number)
    matching = [route for route in made.routes if address in route.prefix]
    if not matching:
        assert made.lookup(address.packed) is None
        return
    best = max(matching, key=lambda route: (route.prefix.prefixlen, route.kind == "connected"))
    assert made.lookup(address.packed) == Hop(best.vlan or 0, best.via or address.packed)
