"""``ipnctl monitor``: who joins and leaves a network, who receives and sends, what its interfaces do, as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import click

from ipn import admin

from .arguments import json_option, network_argument
from .output import emit, emit_json
from .tables import Entry, interface, member, printable


@click.command()
@network_argument
@json_option("Print one JSON object a line.")
def monitor(path: str, as_json: bool) -> None:
    """Watch who joins and leaves the network at PATH.

    Prints joins, leaves, the numbers of readers and writers, and changes of interfaces as they happen, until the
    network ends. The first line tells how things stand. With --json, "event" is network, join, leave, numnodes,
    interface or end, and "time" is in seconds since 1970.
    """
    for event in admin.monitor(path):
        now = time.time()
        if as_json:
            emit_json({"time": now, **event}, indent=None)
        else:
            emit(f"{datetime.fromtimestamp(now).isoformat(' ', 'milliseconds')}  {sentence(event)}")


def sentence(event: Entry) -> str:
    """Return what an event says to people."""
    name = str(event.get("event"))
    return printable(SENTENCES.get(name, str)(event))


def _numbers(readers: object, writers: object) -> str:
    return f"readers {readers}  writers {writers}"


def _device(device: Entry) -> str:
    return f"mtu {device.get('mtu')}  mac {device.get('mac')}"


def _port(event: Entry) -> str:
    return f"port {event.get('port')}  {event.get('kind')}  {event.get('rights') or '-'}  {member(event)}"


SENTENCES: Final[Mapping[str, Callable[[Entry], str]]] = {
    "network": lambda e: f"network  {e.get('path')}  {_numbers(e.get('readers'), e.get('writers'))}",
    "join": lambda e: f"join     {_port(e)}",
    "leave": lambda e: f"leave    {_port(e)}  ({e.get('why')})",
    "numnodes": lambda e: f"numbers  {_numbers(e.get('numreaders'), e.get('numwriters'))}",
    "interface": lambda e: f"changed  port {e.get('port')}  {interface(e)}  {_device(e.get('interface') or {})}",
    "end": lambda e: f"end      {e.get('why')}",
}
"""How each kind of event is told; one that is not here, of a newer ipnd, as it came."""
