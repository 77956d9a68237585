"""The trio flavour: the same sockets, waiting in trio."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
import trio.testing

import ipn
import ipn.aio
from tests.running import RunningDaemon


async def test_join_send_receive_and_leave(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    async with await ipn.aio.bind(path, mtu=5000) as net, await ipn.aio.connect(path) as member:
        await net.connect()
        assert await net.send(b"hello") == 5
        assert await member.recv() == b"hello"
        await member.send_many([b"1", b"2", b"3"])
        assert [await net.recv(), *await net.recv_many()] == [b"1", b"2", b"3"]
        assert (net.mtu, net.port, net.rights, net.path) == (5000, 1, "rw", path)
        assert await net.getsockopt(0, ipn.IPN_SO_MTU) == 5000
        assert (await net.show())["members"] == 2


async def test_a_receiver_waits_without_stopping_others(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    heard = []
    async with await ipn.aio.bind(path), await ipn.aio.connect(path) as a, await ipn.aio.connect(path) as b:
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                async for message in b:
                    heard.append(message)
                    if message == b"end":
                        break

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            for message in (b"1", b"2", b"end"):
                await a.send(message)
    assert heard == [b"1", b"2", b"end"]


async def test_a_sender_on_a_full_lossless_network_waits_and_loses_nothing(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    messages = [b"%d" % n * 400 for n in range(4000)]
    async with (
        await ipn.aio.bind(path, lossless=True, mtu=4000),
        await ipn.aio.connect(path) as a,
        await ipn.aio.connect(path) as b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(a.send_many, messages)
        heard: list[bytes] = []
        while len(heard) < len(messages):
            heard += await b.recv_many()
        assert heard == messages


async def test_a_cancelled_receive_loses_nothing(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    async with await ipn.aio.bind(path), await ipn.aio.connect(path) as a, await ipn.aio.connect(path) as b:
        with trio.move_on_after(0.02) as scope:
            await b.recv()
        assert scope.cancelled_caught
        await a.send(b"later")
        assert await b.recv() == b"later"


async def test_a_cancelled_send_of_a_big_message_is_finished_by_the_next(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    size = 8 * 1024 * 1024
    async with (
        await ipn.aio.bind(path, lossless=True, mtu=size, pool=1),
        await ipn.aio.connect(path) as a,
        await ipn.aio.connect(path) as b,
    ):
        big = [bytes([n]) * size for n in range(4)]
        sent = 0
        with trio.move_on_after(0.5):
            for message in big:
                await a.send(message)
                sent += 1
        assert sent < 4, "nobody reads, so it must have waited"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send, b"last")
            heard = [await b.recv() for _ in range(sent + 2)]
        assert heard == [*big[: sent + 1], b"last"]


async def test_notices_arrive_with_msg_oob(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    async with await ipn.aio.bind(path), await ipn.aio.connect(path, oob=True) as watcher:
        data, _, flags, _ = await watcher.recvmsg()
        assert flags & socket.MSG_OOB
        assert ipn.NumNodes.unpack(data).numreaders == 1


async def test_closing_wakes_who_waits(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    async with await ipn.aio.bind(path), await ipn.aio.connect(path) as member, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await member.recv()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        member.close()


async def test_errors_are_the_same_as_of_the_blocking_socket(ipnd: RunningDaemon) -> None:
    with pytest.raises(FileNotFoundError):
        await ipn.aio.connect(ipnd.path("nothing"))
    s = ipn.aio.socket()
    with pytest.raises(OSError, match="not on a network") as caught:
        await s.send(b"x")
    assert caught.value.errno == errno.ENOTCONN
    s.close()
    with pytest.raises(OSError, match="closed"):
        s.fileno()
