"""Who is at the other end of a socket, and for whom it may speak."""

from __future__ import annotations

import os
import subprocess
import sys

from ipnd.access import Peer
from ipnd.identity import MAX_PID, for_descendant

ME = Peer(os.getpid(), 1000, 100, frozenset({5}), "me")
WAITING = "import subprocess, sys; subprocess.run(['sh', '-c', 'echo $$; read line; exit 0'])"


def test_a_process_speaks_for_its_descendants_with_its_own_rights() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-S", "-c", WAITING], text=True, **pipes) as child:  # type: ignore[call-overload]
        grandchild = int(child.stdout.readline())
        assert for_descendant(ME, grandchild) == Peer(grandchild, 1000, 100, frozenset({5}), "sh")
        assert for_descendant(ME, child.pid).pid == child.pid
        child.communicate("\n")


def test_a_process_does_not_speak_for_others_nor_for_who_is_not_there() -> None:
    for pid in (0, 1, os.getpid(), os.getppid(), MAX_PID):
        assert for_descendant(ME, pid) == ME
