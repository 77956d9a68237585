"""Members that take one frame with each message."""

from __future__ import annotations

import ipn
from ipn import admin
from tests.running import RunningDaemon
from tests.waiting import eventually


def test_a_frame_that_no_message_can_hold_is_dropped_and_not_counted_as_received(ipnd: RunningDaemon) -> None:
    """Nor is it when it has waited in the queue behind others."""
    path = ipnd.path("net")
    admin.create_network(path, mtu=8 * 1024 * 1024, pool=100)
    with ipn.connect(path, timeout=5, packet=True) as slow, ipn.connect(path, timeout=5) as sender:
        sent = 0
        while not admin.show_network(path)["ports"][0]["queued"]:
            sender.send(bytes(10_000))
            sent += 1
        for size in (6 * 1024 * 1024, 1):
            sender.send(bytes(size))
        got = [len(slow.recv()) for _ in range(sent + 1)]
        assert got == [10_000] * sent + [1]
        eventually(lambda: admin.show_network(path)["ports"][0]["queued"] == 0)
        port = admin.show_network(path)["ports"][0]
        assert (port["tx_frames"], port["dropped"]) == (sent + 1, 1)
        assert port["tx_bytes"] == 10_000 * sent + 1
