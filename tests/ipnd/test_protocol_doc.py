"""docs/protocol.md tells the truth: a row for each op with its states, the limits, and an exchange that happens so."""

from __future__ import annotations

import array
import importlib
import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipn
from ipn.control import MAGIC, MAX_REPLY, ControlDecoder, Message
from ipnd.session import OPS, State
from tests.raw import raw_member
from tests.running import RunningDaemon
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/protocol.md").read_text()


def rows_under(heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table under a heading: their first cell's code → the other cells."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = {}
    for line in section.splitlines():
        if match := re.match(r"\| `([^`]+)` \|", line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[2:-1]]
            assert match[1] not in rows, f"{match[1]} has two rows"
            rows[match[1]] = cells
    return rows


OP_ROWS = rows_under("Ops")
LIMITS = rows_under("Limits")


def test_every_op_has_a_row_and_every_row_is_an_op() -> None:
    assert set(OP_ROWS) == set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_the_row_of_an_op_says_in_which_states_it_is_possible_and_whether_on_a_network(op: str) -> None:
    states, needs_network, _ = OPS[op]
    assert OP_ROWS[op][0] == ", ".join(state.value for state in State if state in states)
    assert ("Network." in OP_ROWS[op][3] or OP_ROWS[op][3] == "Network") == needs_network


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_has_the_value_it_has_in_the_code(name: str) -> None:
    module, constant = name.rsplit(".", 1)
    assert getattr(importlib.import_module(module), constant) == int(LIMITS[name][0])


def test_every_event_has_a_row_and_every_row_is_an_event() -> None:
    sources = [path.read_text() for path in (ROOT / "ipnd").rglob("*.py")]
    sent = {event for source in sources for event in re.findall(r'"event": "(\w+)"', source)}
    assert set(rows_under("Notifications")) == sent


# -- the exchange ------------------------------------------------------------------------------------------


def exchange() -> Iterator[tuple[str, str, bytes, str]]:
    """Give the steps of the example: socket, direction, the bytes given in hexadecimal, the text behind them."""
    example = re.search(r"## An exchange\n.*?```\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example is not None
    for line in example[1].splitlines():
        where, direction, digits, *text = line.split(maxsplit=3)
        yield where, direction, bytes.fromhex(digits), "".join(text)


def test_the_lengths_in_the_example_are_those_of_its_texts() -> None:
    for _, _, prefix, text in exchange():
        assert prefix == MAGIC or struct.unpack(">I", prefix)[0] == len(text.encode())


class Client:
    """A client written after the document, with nothing of the library but the decoder."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.data: socket.socket | None = None
        self.decoder = ControlDecoder(MAX_REPLY)
        self.messages: list[Message] = []

    def next_message(self) -> Message:
        while not self.messages:
            data, ancillary, _, _ = self.control.recvmsg(4096, 256)
            assert data
            for _, _, payload in ancillary:
                (fd,) = array.array("i", payload)
                self.data = socket.socket(fileno=fd)
                self.data.settimeout(5)
            self.messages += self.decoder.feed(data)
        return self.messages.pop(0)


def test_the_example_happens_as_it_is_written(ipnd: RunningDaemon) -> None:
    path = ipnd.path("net")
    with ipn.bind(path), raw_member(path) as connection:
        client = Client(connection.sock)
        for where, direction, digits, text in exchange():
            if direction == "<" and where == "control":
                assert told(client.next_message()) == told(json.loads(text))
                continue
            sock = connection.sock if where == "control" else client.data
            assert sock is not None, "the reply to connect brought a descriptor"
            if direction == ">":
                sock.sendall(digits + text.encode())
            else:
                assert sock.recv(len(digits) + len(text)) == digits + text.encode()
        with ipn.bind(path) as manager:
            eventually(lambda: manager.show()["ports"][0]["rx_frames"] == 1)
            assert manager.show()["ports"][0]["description"] == "example"
        assert client.data is not None
        client.data.close()


def told(message: Message) -> Message:
    """Return a message without what differs from one machine to the next."""
    ok = message.get("ok")
    if isinstance(ok, dict):
        return {**message, "ok": {**ok, "server": "", "pid": 0, "path": ""}}
    return message
