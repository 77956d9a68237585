"""The command ``ipnctl``: the table of its commands and groups. A new one is a module and a row here."""

from __future__ import annotations

from typing import Final

import click

from ipn import __version__

from .cable import cable
from .completion import completion
from .errors import Program
from .helper import helper
from .impair import impair
from .interfaces import attach_grab, attach_tap, detach
from .monitor import monitor
from .net import net
from .netns import netns
from .plug import plug
from .policy import policy
from .recv import recv
from .router import router
from .run import run
from .send import send
from .switch import switch
from .uplink import uplink

COMMANDS: Final[tuple[click.Command, ...]] = (
    net,
    send,
    recv,
    plug,
    monitor,
    policy,
    switch,
    router,
    run,
    netns,
    cable,
    uplink,
    impair,
    helper,
    completion,
)
COMMANDS_OF_NET: Final[tuple[click.Command, ...]] = (attach_tap, attach_grab, detach)
"""Those of the group ``net`` that have a module of their own."""


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ipnctl")
def main() -> None:
    """Manage IPN networks, send to them, receive from them, watch them, and put interfaces and commands on them.

    A network is named by the path of its socket file. Results go to standard output, everything else to
    standard error. Exit status: 0 done, 1 failed (one line says why), 2 wrong usage, 130 interrupted.
    """


for _command in COMMANDS:
    main.add_command(_command)
for _command in COMMANDS_OF_NET:
    net.add_command(_command)
