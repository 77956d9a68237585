"""Starting a per-user ipnd when a program's first ``bind`` finds none (as gpg-agent and adb do).

The daemon is started apart from the caller: own session, no inherited descriptors, ``/`` as its directory, what it
says going to ``<control>.log``. It leaves when its last network ends. ``IPN_AUTOSTART=0`` turns this off.
"""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from typing import Final

START_TIMEOUT: Final = 15.0
"""Seconds a new daemon may take until it is ready; importing takes 0.3 s on a slow machine."""


def autostart_allowed() -> bool:
    """Return whether ``bind`` may start a daemon: always, unless ``IPN_AUTOSTART`` is ``0``."""
    return os.environ.get("IPN_AUTOSTART", "1") != "0"


def start_daemon(control: str) -> None:
    """Start an ipnd that listens on ``control`` and return when it is ready.

    When another one got there first, the new one says so and ends, and the first serves. Raises
    ``ConnectionRefusedError`` with the reason when the daemon could not be started.
    """
    directory = os.path.dirname(control)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    log_path = f"{control}.log"
    read_end, write_end = os.pipe()
    try:
        with open(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "wb") as log:
            command = [sys.executable or "python3", "-m", "ipnd", "--control", control]
            process = subprocess.Popen(
                [*command, "--leave-when-idle", "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")},
                pass_fds=(write_end,),
                start_new_session=True,
            )
        os.close(write_end)
        write_end = -1
        readable, _, _ = select.select([read_end], [], [], START_TIMEOUT)
        said = os.read(read_end, 64) if readable else b""
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    if said:
        # The daemon outlives us; tell subprocess not to complain that nobody waited for it.
        process.returncode = 0
        return
    code = process.poll() if readable else None
    if readable and code is None:
        code = process.wait(5)
    if code not in (0, ALREADY_RUNS):  # 0: somebody else has waited for it, so nobody knows; connecting will tell
        text = f"ipnd could not be started (exit {code}); see {log_path}"
        raise ConnectionRefusedError(errno.ECONNREFUSED, text, control)


ALREADY_RUNS: Final = 75
"""Exit status of an ipnd that finds another one at its control socket (EX_TEMPFAIL of sysexits.h)."""
