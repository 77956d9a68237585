"""A program without a C library, whose threads come and go and are interrupted by signals all the time: a Go one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import ipn
from tests.ipnctl.command import Ipnctl
from tests.ipnctl.programs.compiling import SOURCES
from tests.ipnctl.programs.joining import wait_for_members
from tests.peers import requires


@requires("go")
def test_goroutines_join_and_leave_and_hear(programs: Ipnctl, tmp_path: Path) -> None:
    program, path = str(tmp_path / "goroutines"), programs.path("go")
    settings = {**os.environ, "CGO_ENABLED": "0", "GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off"}
    build = ["go", "build", "-o", program, str(SOURCES / "goroutines.go")]
    subprocess.run(build, env=settings, timeout=300, check=True)
    with ipn.bind(path, ports=64) as net:
        started = programs.start("run", "--", program, path)
        started.wait_for(lambda out: out == b"0 0\n", "no failure")
        net.connect()
        wait_for_members(path, readers=2)
        net.send(b"hello")
        ran = started.end().ok()
    assert ran.text == "0 0\nhello <nil>\n"
