"""Foreign programs and privileges that a test needs: skipped without them, except where all must run.

``IPN_REQUIRE_ALL=1`` (CI) turns such a skip into a failure, so that a test cannot quietly stop testing.
Both are decorators::

    @requires("setfacl")
    def test_…

    @requires_root
    def test_…
"""

from __future__ import annotations

import functools
import inspect
import os
import shutil
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest

NOBODY: Final = 65534
"""A uid and gid that owns nothing here."""

F = TypeVar("F", bound=Callable[..., Any])


def skip_or_fail(reason: str) -> None:
    """Skip the running test, or fail it when ``IPN_REQUIRE_ALL=1``."""
    if os.environ.get("IPN_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and IPN_REQUIRE_ALL=1 allows no skip", pytrace=False)
    pytest.skip(reason)


def requires(*programs: str) -> Callable[[F], F]:
    """Run the decorated test only where all ``programs`` are installed (in ``PATH`` or an sbin directory)."""

    def check() -> None:
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        if missing := [program for program in programs if shutil.which(program, path=path) is None]:
            skip_or_fail(f"not installed: {', '.join(missing)}")

    return _checked_before(check)


def requires_root(test: F) -> F:
    """Run the decorated test only as root: it becomes other users, or changes owners."""

    def check() -> None:
        if os.geteuid() != 0:
            skip_or_fail("needs root")

    return _checked_before(check)(test)


def _checked_before(check: Callable[[], None]) -> Callable[[F], F]:
    def decorate(test: F) -> F:
        if inspect.iscoroutinefunction(test):

            @functools.wraps(test)
            async def checked_async(*args: Any, **kwargs: Any) -> Any:
                check()
                return await test(*args, **kwargs)

            return checked_async  # type: ignore[return-value]

        @functools.wraps(test)
        def checked(*args: Any, **kwargs: Any) -> Any:
            check()
            return test(*args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


def as_user(uid: int, *groups: int) -> tuple[str, ...]:
    """Return what, put before a command of root, runs it as user and group ``uid`` (setpriv(1))."""
    supplementary = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", supplementary)
