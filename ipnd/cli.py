"""The command ``ipnd``: parse, set up logging, serve."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from ipn import __version__
from ipn.rendezvous import control_path

from .daemon import Settings, serve


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--control", metavar="PATH", help="Control socket. [$IPND_SOCKET, $XDG_RUNTIME_DIR/ipnd/control]")
@click.option("--state", metavar="FILE", help="Where persistent networks are kept. [default: CONTROL.state.json]")
@click.option("--leave-when-idle", is_flag=True, help="End when the last network has ended and no client is left.")
@click.option("--ready-fd", type=int, default=-1, hidden=True)
@click.option("-v", "--verbose", count=True, help="Say more: networks coming and going; twice: every connection.")
@click.version_option(__version__, prog_name="ipnd")
def main(control: str | None, state: str | None, leave_when_idle: bool, ready_fd: int, verbose: int) -> None:
    """Serve IPN networks, in the foreground, until SIGTERM.

    Says "ready" on stderr (and through sd_notify) when programs can connect.
    """
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(name)s: %(message)s", stream=sys.stderr)
    path = os.path.abspath(control) if control else control_path()
    settings = Settings(
        control=path,
        state=Path(state).absolute() if state else Path(path + ".state.json"),
        leave_when_idle=leave_when_idle,
        ready_fd=ready_fd,
    )
    sys.exit(serve(settings))
