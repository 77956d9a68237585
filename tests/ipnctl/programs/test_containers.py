"""``ipnctl run`` in a container whose seccomp profile forbids what it needs: it is refused, and says what to do."""

from __future__ import annotations

import pytest

from tests.ipnctl.command import Ipnctl
from tests.ipnctl.programs.compiling import Compiler


@pytest.mark.parametrize("call", ["seccomp", "process_vm_readv", "process_vm_writev", "pidfd_getfd"])
def test_a_container_that_forbids_what_is_needed_is_named_with_what_to_do(
    programs: Ipnctl, compiled: Compiler, call: str
) -> None:
    ran = programs.run("run", "--", "true", prefix=(compiled("forbid"), call))
    ran.failed("container", "podman run", "--security-opt seccomp=unconfined")
