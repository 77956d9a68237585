"""The command ``ipn-helper``: a small process with privilege that opens interfaces for users who have none.

It judges who asks by SO_PEERCRED and its rules, opens and configures the device, passes the descriptors, and forgets
them: it never touches a frame. It imports the standard library and ``ipn`` only, and keeps two capabilities. See
``ipn-helper(8)``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from ipn import __version__
from ipn.helper import DEFAULT_HELPER
from ipnd.systemd import notify

from .helper_capabilities import keep_only_two, missing_capabilities
from .helper_grants import Grants
from .helper_listener import AlreadyServed, open_listener
from .helper_rulesfile import RulesFile
from .helper_server import HelperServer

DEFAULT_RULES: Final = "/etc/ipn/helper.toml"
ALREADY_SERVED: Final = 75
"""Exit status when another helper listens there (EX_TEMPFAIL of sysexits.h)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM; see ``--help``."""
    sys.exit(run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ipn-helper",
        description="Open TAPs, and interfaces to grab, for the users whom the rules allow it. Runs as root.",
    )
    parser.add_argument(
        "--socket", metavar="PATH", default=DEFAULT_HELPER, help="where to listen [default: %(default)s]"
    )
    parser.add_argument("--rules", metavar="FILE", default=DEFAULT_RULES, help="who may what [default: %(default)s]")
    parser.add_argument("--version", action="version", version=f"%(prog)s, version {__version__}")
    return parser


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status."""
    if missing := missing_capabilities():
        _log(f"ipn-helper: has no {' and no '.join(missing)}; run it as root")
        return 1
    try:
        listener = open_listener(os.path.abspath(options.socket))
    except AlreadyServed as error:
        _log(f"ipn-helper: another one listens on {error}")
        return ALREADY_SERVED
    except (OSError, ValueError) as error:
        _log(f"ipn-helper: cannot listen on {options.socket}: {getattr(error, 'strerror', None) or error}")
        return 1
    try:
        keep_only_two()
        rules_file = RulesFile(os.path.abspath(options.rules), _log)
        rules_file.announce()
        HelperServer(listener.sock, Grants(rules_file, _log).answer, _log).run(_ready)
        notify("STOPPING=1")
    finally:
        listener.close()
    return 0


def _ready() -> None:
    _log("ready")
    notify("READY=1")


def _log(line: str) -> None:
    """Write one line to stderr. A log that nobody reads must not end the helper."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
