"""Running a command in our place: it has the terminal, gets our signals, and its exit status becomes ours.

The command is a child in our process group, as with sudo(8): what the terminal sends (Ctrl-C, Ctrl-\\) reaches it
anyway, so only what somebody sent to us alone is passed on. When it stops on a terminal we stop, and when we are
killed it gets SIGHUP, as if its terminal had gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from ipn.libc import prctl

from .errors import say

NOT_FOUND: Final = 127
"""Exit status when there is no such command, as shells report it."""
NOT_EXECUTABLE: Final = 126
"""Exit status when the command cannot be run, as shells report it."""

PASSED_ON: Final = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
)
FROM_THE_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
"""Those that the kernel sends to the whole group, and therefore to the command, too."""
SET_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""Those that the interpreter ignores, which a command would inherit (signal(7), exec)."""

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""prctl(2): the signal that a process gets when its parent ends; orphaned descendants become children."""
SHELL_BASE: Final = 128


def _nothing() -> None:
    """Do nothing."""


def run(
    command: Sequence[str], prepare: Callable[[], None] = _nothing, started: Callable[[], None] = _nothing
) -> int:
    """Run ``command``, found by ``PATH``, to its end; return its exit status, 128 + n if signal n killed it.

    It inherits descriptors 0, 1 and 2 and no others. When it cannot be run, that is said on standard error, and the
    status is 127 or 126. ``prepare`` is called in the child before it becomes the command (an ``OSError`` is why it
    cannot), ``started`` in this process. For a process with one thread until then, which ends soon after: the signals
    that are passed on stay blocked, as one that came at the command's end must not change how we end.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, parent, before, prepare)
    started()
    return _wait(pid)


def _become(
    command: Sequence[str], parent: int, mask: set[int | signal.Signals], prepare: Callable[[], None]
) -> NoReturn:
    """Turn the forked child into ``command``."""
    status = NOT_EXECUTABLE
    try:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGHUP))
        if os.getppid() != parent:  # killed before the kernel knew that we want to hear of it
            os._exit(SHELL_BASE + signal.SIGHUP)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number in SET_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _prepared(prepare, command[0])
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        if not command[0]:
            raise FileNotFoundError  # to Python an empty name would be a bug of ours
        os.execvp(command[0], list(command))
    except OSError as error:
        found = _is_there(command[0])
        status = NOT_EXECUTABLE if found else NOT_FOUND
        say(f"cannot run {command[0]}: {error.strerror if found else 'there is no such command'}")
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()
        os._exit(status)


def _prepared(prepare: Callable[[], None], name: str) -> None:
    """Call ``prepare``; what it cannot do ends the child."""
    try:
        prepare()
    except OSError as error:
        say(f"cannot run {name}: {error.strerror}")
        os._exit(NOT_EXECUTABLE)


def _is_there(name: str) -> bool:
    """Tell whether there is such a command. As in shells, a directory of ``PATH`` that may not be searched has none."""
    directories = [""] if "/" in name else os.get_exec_path()
    return bool(name) and any(os.path.exists(os.path.join(directory, name)) for directory in directories)


def adopt() -> None:
    """Become the parent of those whose parents end among this process's descendants; ``reap`` is what they need."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap() -> None:
    """Let children go that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wait(pid: int) -> int:
    """Pass signals on until the child ends; return its status. They are blocked here, so none is lost in between."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if not ended:
            came = signal.sigwaitinfo(PASSED_ON | {signal.SIGCHLD})
            by_somebody = came.si_code <= 0  # SI_USER and the like; the terminal's come from the kernel (sigaction(2))
            if came.si_signo in PASSED_ON and (by_somebody or came.si_signo not in FROM_THE_TERMINAL):
                os.kill(pid, came.si_signo)
        elif ended != pid:
            continue  # an adopted one
        elif os.WIFSTOPPED(status):
            if os.isatty(0):  # so that the shell there sees it, and has us go on
                os.kill(os.getpid(), signal.SIGSTOP)
                os.kill(pid, signal.SIGCONT)
        elif os.WIFSIGNALED(status):
            return SHELL_BASE + os.WTERMSIG(status)
        else:
            return os.WEXITSTATUS(status)
