"""The tables that the console of a VDE switch prints, in VDE's words and columns. Pure."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

import attrs

from ipnd.policies.vlan import DEFAULT_PVID

NO_VLAN: Final = 4095
"""VDE's number for a port that takes no frames without a tag."""


class Source(Protocol):
    """Where the tables come from."""

    def show(self) -> dict[str, Any]:
        """Return what ``net show --json`` prints."""

    def verb(self, name: str, /, **arguments: Any) -> Any:
        """Carry out a request of the policy."""


@attrs.frozen
class PortRow:
    """A port in use or set up. ``untagged``: 0 while the network knows no VLANs. ``member``: empty for a free one."""

    number: int
    untagged: int
    tagged: Collection[int]
    blocked: bool
    member: dict[str, Any]

    @property
    def vlans(self) -> set[int]:
        """The VLANs that the port is in."""
        return {*self.tagged, *([] if self.untagged == NO_VLAN else [self.untagged])}


def port_rows(source: Source) -> list[PortRow]:
    """Return the ports that are in use or set up, by number."""
    members = {member["port"]: member for member in source.show()["ports"]}
    try:
        aware = source.verb("switch.show")["vlan_aware"]
        rows = source.verb("port.show")
    except OSError as refusal:
        if refusal.errno != errno.EOPNOTSUPP:
            raise
        return [PortRow(number, 0, (), False, member) for number, member in sorted(members.items())]
    return [
        PortRow(
            row["port"],
            (row["pvid"] or NO_VLAN) if aware else 0,
            row["tagged"],
            row["blocked"],
            members.get(row["port"], {}),
        )
        for row in rows
    ]


def vlans_of(rows: Sequence[PortRow]) -> list[int]:
    """Return the VLANs that there are, in order: always the default one, 0 while the network knows none."""
    default = 0 if all(row.untagged == 0 for row in rows) else DEFAULT_PVID
    return sorted({default}.union(*(row.vlans for row in rows)))


def port_lines(row: PortRow, pool: int) -> list[str]:
    """Return what is printed of one port. ``pool``: how many frames may wait for it."""
    member = row.member
    state = "ACTIVE" if member else "INACTIVE"
    user = member.get("uid", "NONE")
    lines = [
        f"Port {row.number:04} untagged_vlan={row.untagged:04} {state} - Unnamed Allocatable",
        f" Current User: {user} Access Control: (User: NONE - Group: NONE)",
        f" IN:  pkts {member.get('rx_frames', 0):10}          bytes {member.get('rx_bytes', 0):20}",
        f" OUT: pkts {member.get('tx_frames', 0):10}          bytes {member.get('tx_bytes', 0):20}",
    ]
    if member:
        lines += [
            f"  -- endpoint ID {member['pid']:04} module {member['kind']:12}: {_description(member)}",
            f"              unsent packets: {member['queued']} max {pool}",
        ]
    return lines


def _description(member: dict[str, Any]) -> str:
    device = member.get("interface") or {}
    return str(member["description"] or device.get("name") or member["command"] or "no endpoint description")


def vlan_lines(rows: Sequence[PortRow], vlans: Sequence[int]) -> list[str]:
    """Return what is printed of ``vlans``: each with those of ``rows`` that are in it."""
    lines = []
    for vlan in vlans:
        lines.append(f"VLAN {vlan:04}")
        lines += [_membership(row, vlan) for row in rows if vlan in row.tagged or vlan == row.untagged]
    return lines


def _membership(row: PortRow, vlan: int) -> str:
    status = "Discarding" if row.blocked else "Forwarding"
    return f" -- Port {row.number:04} tagged={int(vlan in row.tagged):d} active={int(bool(row.member))} status={status}"
