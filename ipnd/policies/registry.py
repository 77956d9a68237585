"""The policies that networks can have: the built-in ones, and those that other packages offer.

Another package offers one by an entry point of the group ``ipn.policies`` (name → class); a program that embeds the
daemon by ``register``. A name or number that is taken stays whose it was.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Final

from ipn.abi import IPN_ANY, IPN_MAX_PROTO, policy_name

from .base import Policy
from .broadcast import Broadcast
from .l3switch import L3Switch
from .vdeswitch import VdeSwitch

GROUP: Final = "ipn.policies"
BUILT_IN: Final[tuple[type[Policy], ...]] = (Broadcast, VdeSwitch, L3Switch)

_table: Final[dict[int, type[Policy]]] = {}
_users: Final[Counter[int]] = Counter()


def register(tag: int, policy: type[Policy]) -> None:
    """Offer ``policy`` under the number ``tag`` (ipn_proto_register).

    Errors: EINVAL when ``tag`` is not from 2 to 255 or ``policy`` lacks ``newport`` or ``handlemsg``, EEXIST when the
    number or the name is taken.
    """
    if not Broadcast.number < tag <= IPN_MAX_PROTO:
        raise OSError(errno.EINVAL, f"the number of a policy is from 2 to {IPN_MAX_PROTO}, not {tag}")
    _add(tag, policy)


def _add(tag: int, policy: type[Policy]) -> None:
    handles = getattr(policy, "handlemsg", Policy.handlemsg) is not Policy.handlemsg
    decides = getattr(policy, "decide", Policy.decide) is not Policy.decide
    if not callable(getattr(policy, "newport", None)) or not (handles or decides):
        raise OSError(errno.EINVAL, f"{policy!r} is no policy: it needs newport and handlemsg (or decide)")
    if getattr(policy, "number", None) != tag or not isinstance(getattr(policy, "name", None), str):
        raise OSError(errno.EINVAL, f"{policy!r} does not say that its number is {tag}, or has no name")
    for number, other in _table.items():
        if number == tag or other.name == policy.name:
            raise OSError(errno.EEXIST, f"the policy {other.name} has the number {number} already")
    _table[tag] = policy


def deregister(tag: int) -> None:
    """Withdraw the policy ``tag`` (ipn_proto_deregister). ENOENT without one, EADDRINUSE while a network has it."""
    if tag not in _table:
        raise OSError(errno.ENOENT, f"no policy has the number {tag}")
    if _users[tag]:
        raise OSError(errno.EADDRINUSE, f"{_users[tag]} networks have the policy {_table[tag].name}")
    del _table[tag]


def load_entry_points() -> list[str]:
    """Register what other packages offer; return a sentence for each that cannot be used and is left out."""
    failures = []
    for entry in entry_points(group=GROUP):
        try:
            policy = entry.load()
            register(policy.number, policy)
        except Exception as error:  # noqa: BLE001 - the border: another package's code
            failures.append(f"the policy {entry.name} ({entry.value}) cannot be used: {error}")
    return failures


def policies() -> Iterator[tuple[int, type[Policy]]]:
    """Iterate over the numbers and policies there are."""
    return iter(sorted(_table.items()))


def policy_class(number: int) -> type[Policy]:
    """Return the policy for a new network. IPN_ANY makes a broadcast network, as the patch does.

    EPROTONOSUPPORT when nobody has registered it.
    """
    chosen = _table.get(Broadcast.number if number == IPN_ANY else number)
    if chosen is None:
        raise OSError(errno.EPROTONOSUPPORT, f"this ipnd has no delivery policy {policy_name(number)}")
    return chosen


def take(policy: type[Policy]) -> None:
    """A network uses ``policy``."""
    _users[policy.number] += 1


def release(policy: type[Policy]) -> None:
    """A network uses ``policy`` no more."""
    _users[policy.number] -= 1


for _policy in BUILT_IN:
    _add(_policy.number, _policy)
