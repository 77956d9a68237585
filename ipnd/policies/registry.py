"""The table of policies: number and name → class. A new policy adds a file and a row here."""

from __future__ import annotations

import errno
from typing import Final

from ipn.abi import IPN_ANY, policy_name

from .base import Policy
from .broadcast import Broadcast

ROWS: Final[tuple[type[Policy], ...]] = (Broadcast,)


def _table() -> dict[int, type[Policy]]:
    table: dict[int, type[Policy]] = {}
    for policy in ROWS:
        if policy.number in table:
            raise ValueError(f"two policies have the number {policy.number}: {table[policy.number]}, {policy}")
        table[policy.number] = policy
    return table


POLICIES: Final = _table()


def policy_class(number: int) -> type[Policy]:
    """Return the policy for a new network. IPN_ANY makes a broadcast network, as the patch does.

    EPROTONOSUPPORT when nobody has registered it.
    """
    chosen = POLICIES.get(Broadcast.number if number == IPN_ANY else number)
    if chosen is None:
        text = f"this ipnd has no delivery policy {policy_name(number)}"
        raise OSError(errno.EPROTONOSUPPORT, text)
    return chosen
