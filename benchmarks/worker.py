"""One process of the Python to Python comparison: a sender or a receiver, prints one JSON line at its end.

    worker.py LIBRARY send ADDRESS SIZE SECONDS RECEIVERS
    worker.py LIBRARY receive ADDRESS

The sender begins when all receivers are there and ends with a message that says so. Receivers look at the first byte
of every message. ZeroMQ: the publisher is an XPUB (a PUB that sees its subscribers come) with ZMQ_XPUB_NODROP, so that
it waits at the high-water mark of 10,000 messages instead of dropping: ZeroMQ, like the lossless network, loses none.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import ipn

DATA, END = 1, 2
HIGH_WATER_MARK: Final = 10_000
BATCH: Final = 64
"""Messages to a ``send_many``, and between two looks at the clock."""


# -- ipn ---------------------------------------------------------------------------------------------------------


def send_ipn(address: str, size: int, seconds: float, receivers: int) -> int:
    with _join_when_heard(address, receivers) as net:
        return _send_one_by_one(net.send, size, seconds)


def send_ipn_many(address: str, size: int, seconds: float, receivers: int) -> int:
    batch = [_message(DATA, size)] * BATCH
    with _join_when_heard(address, receivers) as net:
        sent, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            sent += net.send_many(batch)
        net.send(_message(END, size))
        return sent


def receive_ipn(address: str) -> tuple[int, float]:
    with ipn.connect(address, send=False) as net:
        return _count_one_by_one(net.recv)


def receive_ipn_many(address: str) -> tuple[int, float]:
    with ipn.connect(address, send=False) as net:
        batch, count, start = net.recv_many(), 0, time.monotonic()
        while batch:
            for message in batch:
                if message[0] == END:
                    return count, time.monotonic() - start
                count += 1
            batch = net.recv_many()
    raise ConnectionResetError("the network went before the end")


def _join_when_heard(address: str, receivers: int) -> ipn.Socket:
    """Join as a sender, and return when so many receive: the network's notices say how many do."""
    net = ipn.connect(address, receive=False, oob=True)
    while True:
        notice, _, flags, _ = net.recvmsg()
        if flags & ipn.MSG_OOB and ipn.NumNodes.unpack(notice).numreaders >= receivers:
            return net


# -- ZeroMQ ------------------------------------------------------------------------------------------------------


def send_zmq(address: str, size: int, seconds: float, receivers: int) -> int:
    import zmq

    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        publisher.setsockopt(zmq.XPUB_NODROP, 1)
        publisher.setsockopt(zmq.XPUB_VERBOSE, 1)
        publisher.bind(address)
        for _ in range(receivers):
            publisher.recv()
        return _send_one_by_one(publisher.send, size, seconds)


def receive_zmq(address: str) -> tuple[int, float]:
    import zmq

    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.connect(address)
        return _count_one_by_one(subscriber.recv)


# -- both --------------------------------------------------------------------------------------------------------


def _message(kind: int, size: int) -> bytes:
    return bytes([kind]) * size


def _send_one_by_one(send: Callable[[bytes], object], size: int, seconds: float) -> int:
    message = _message(DATA, size)
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(BATCH):
            send(message)
        sent += BATCH
    send(_message(END, size))
    return sent


def _count_one_by_one(receive: Callable[[], bytes]) -> tuple[int, float]:
    message, count, start = receive(), 0, time.monotonic()
    while message[0] != END:
        count += 1
        message = receive()
    return count, time.monotonic() - start


Sender = Callable[[str, int, float, int], int]
Receiver = Callable[[str], tuple[int, float]]
LIBRARIES: Final[dict[str, tuple[Sender, Receiver]]] = {
    "ipn": (send_ipn, receive_ipn),
    "ipn-many": (send_ipn_many, receive_ipn_many),
    "zmq": (send_zmq, receive_zmq),
}


def main(library: str, role: str, address: str, *arguments: str) -> None:
    """Run one role and print what it counted."""
    send, receive = LIBRARIES[library]
    if role == "send":
        size, seconds, receivers = arguments
        print(json.dumps({"sent": send(address, int(size), float(seconds), int(receivers))}))
    else:
        received, took = receive(address)
        print(json.dumps({"received": received, "seconds": took}))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
