"""One process of the demo: the sender or a receiver of a stream. ``demo.py`` starts four of them.

    demo_node.py send NAME PATH FILE READERS MORE_READERS
    demo_node.py receive NAME PATH [LEAVE_AFTER_BYTES]

What it does is told on standard output, an object a line: ``joined``, ``progress``, ``waiting``, ``done``. A receiver
joins when it reads a line, and everybody stays on the network until its standard input ends.

The stream is messages of one byte, DATA or END, and a piece of the file. The sender begins when READERS receive, and
waits at a third of the file until MORE_READERS do: on an IPN network whoever asked is told how many readers there
are, each time that changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Final

import ipn

DATA, END = b"D", b"E"
PIECE: Final = 1400
"""Bytes of the file in a message: like a packet's, far from the most that a message may have."""
TELL_EVERY: Final = 1024 * 1024
"""Bytes between two lines of progress."""


def tell(event: str, **details: object) -> None:
    """Say what happened to whoever started this."""
    print(json.dumps({"event": event, **details}), flush=True)


def send(name: str, path: str, file: str, readers: str, more_readers: str) -> None:
    """Stream ``file``, with a pause at a third of it until one more listens."""
    a_third = os.path.getsize(file) // 3
    summed, sent, told, waited = hashlib.sha256(), 0, 0, False
    with ipn.connect(path, receive=False, oob=True, descr=name) as net:
        tell("joined")
        await_readers(net, int(readers))
        start = time.monotonic()
        for piece in pieces(file):
            if not waited and sent + len(piece) >= a_third:
                waited = True
                tell("waiting", bytes=sent)
                await_readers(net, int(more_readers))
            net.send(DATA + piece)
            summed.update(piece)
            sent += len(piece)
            if sent - told >= TELL_EVERY:
                told = sent
                tell("progress", bytes=sent)
        net.send(END)
        tell("done", bytes=sent, seconds=time.monotonic() - start, sha256=summed.hexdigest())
        sys.stdin.read()


def await_readers(net: ipn.Socket, count: int) -> None:
    """Return when ``count`` members receive: the notices come as out-of-band messages."""
    while True:
        notice, _, flags, _ = net.recvmsg()
        if not notice:
            raise ConnectionResetError("the network is gone")
        if flags & ipn.MSG_OOB and ipn.NumNodes.unpack(notice).numreaders >= count:
            return


def pieces(file: str) -> Iterator[bytes]:
    """Yield the content of ``file`` in pieces of at most PIECE bytes."""
    with open(file, "rb") as source:
        while piece := source.read(PIECE):
            yield piece


def receive(name: str, path: str, leave_after: str = "") -> None:
    """Receive until the end of the stream, or until ``leave_after`` bytes have come."""
    enough = int(leave_after) if leave_after else sys.maxsize
    summed, got, told, start = hashlib.sha256(), 0, 0, 0.0
    sys.stdin.readline()
    with ipn.connect(path, send=False, descr=name) as net:
        tell("joined")
        for message in net:
            if message[:1] == END:
                break
            start = start or time.monotonic()
            piece = memoryview(message)[1:]
            summed.update(piece)
            got += len(piece)
            if got - told >= TELL_EVERY:
                told = got
                tell("progress", bytes=got)
            if got >= enough:
                break
        else:
            raise ConnectionResetError("the network went before the end of the stream")
        took = time.monotonic() - start if start else 0.0
        if not leave_after:
            tell("done", bytes=got, seconds=took, sha256=summed.hexdigest())
            sys.stdin.read()
    if leave_after:
        tell("done", bytes=got, seconds=took, sha256=summed.hexdigest())


if __name__ == "__main__":
    try:
        {"send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
