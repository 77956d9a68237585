"""The checks of what people write of host_address: addresses, prefixes. Rows as in ``switchsettings``. Pure."""

from __future__ import annotations

from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    NetmaskValueError,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, Final

from ipnd.policies import switchsettings

from . import ipv4, ipv6
from .interfaces import Interface, Network

Address = IPv4Address | IPv6Address

_WRONG: Final = (AddressValueError, NetmaskValueError, ValueError)
LARGEST: Final = 65535
VLAN: Final = switchsettings.VLAN
MTU: Final = switchsettings.integer(0, LARGEST)
"""0: whatever fits into a frame of the network."""


def _text(value: Any, example: str) -> str:
    if not isinstance(value, str) or "%" in value:
        raise ValueError(f"must be text such as {example}, not {value!r}")
    return value


def host_address(value: Any) -> Address:
    """Check for the address of one host."""
    text = _text(value, "10.0.1.1 or fd00:1::1")
    try:
        address = ip_address(text)
    except _WRONG:
        raise ValueError(f"is no IP address: {text!r}; one looks like 10.0.1.1 or fd00:1::1") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ValueError(f"must be the address of one host, and {text} is not")
    return address


def any_interface(value: Any) -> Interface:
    """Check for an address, with the length of its prefix or without."""
    text = _text(value, "10.0.1.1/24 or fd00:1::1/64")
    try:
        return ip_interface(text)
    except _WRONG:
        raise ValueError(f"is no address of a subnet: {text!r}; one looks like 10.0.1.1/24 or fd00:1::1/64") from None


def own_interface(value: Any) -> Interface:
    """Check for an address of the router's own, with the length of its subnet's prefix."""
    interface = any_interface(value)
    if "/" not in value:
        raise ValueError(f"needs the length of the subnet's prefix: {value}/{24 if interface.version == 4 else 64}?")
    packed = interface.ip.packed
    strange = ipv4.strange(packed) if interface.version == 4 else ipv6.strange(packed) or ipv6.link_local(packed)
    if strange:
        raise ValueError(f"must be an address that can be routed, and {interface.ip} is not")
    network = interface.network
    if network.prefixlen < network.max_prefixlen - 1:
        if interface.ip == network.network_address:
            raise ValueError(f"is the subnet itself, not a host in it: {value}")
        if isinstance(interface, IPv4Interface) and interface.ip == network.broadcast_address:
            raise ValueError(f"is the broadcast address of its subnet: {value}")
    return interface


def prefix(value: Any) -> Network:
    """Check for the prefix of a route."""
    text = _text(value, "10.2.0.0/16 or fd00:2::/48")
    try:
        loose = ip_network(text, strict=False)
    except _WRONG:
        raise ValueError(f"is no prefix: {text!r}; one looks like 10.2.0.0/16 or fd00:2::/48") from None
    if loose.network_address != ip_interface(text).ip:
        raise ValueError(f"has bits behind the prefix: {text}; the prefix is {loose}")
    return loose


def host_mac(value: Any) -> bytes:
    """Check for the MAC address of a host that is not all zero."""
    mac = switchsettings.mac(value)
    if mac == bytes(6):
        raise ValueError("must not be all zero")
    return mac
