"""docs/writing-a-policy.md: its example is installed as a package of its own and used by name."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipn
from ipn import admin
from tests.ipnctl.command import Ipnctl
from tests.running import RunningDaemon

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "examples/policy"
DOCUMENT = ROOT / "docs/writing-a-policy.md"
SECONDS = 10.0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory into which pip has installed the example."""
    # From a copy: a build writes beside what it builds.
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "policy")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    if importlib.util.find_spec("setuptools.command.bdist_wheel") is not None:
        command += ["--no-build-isolation", "--no-index"]  # else pip has to fetch a setuptools that can build
    done = subprocess.run([*command, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def ipnctl(short_directory: Path, installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ipnctl]:
    """Run ``ipnctl`` against a daemon in whose environment the example is; the command's own is without it."""
    daemon = RunningDaemon(short_directory)
    monkeypatch.setenv("IPND_SOCKET", daemon.control)
    without = daemon.env
    daemon.env = {**without, "PYTHONPATH": str(installed)}
    try:
        daemon.start()
        daemon.env = without
        yield Ipnctl(daemon)
    finally:
        daemon.close()


def member(path: str, description: str) -> ipn.Socket:
    """Join and take the welcome."""
    net = ipn.connect(path, descr=description, timeout=SECONDS)
    assert re.fullmatch(rb"\* welcome to port \d+", net.recv())
    return net


def test_the_document_shows_the_module_as_it_is() -> None:
    (shown,) = re.findall(r"^```python\n(\"\"\".*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert shown == (PACKAGE / "ipn_topics.py").read_text()


def test_the_daemon_lists_what_the_package_offers(ipnctl: Ipnctl) -> None:
    listed = ipnctl.run("policy", "list", "--json").ok().json
    assert {"number": 111, "name": "topics"} in listed
    assert {"number": 112, "name": "topics-cached"} in listed


@pytest.mark.parametrize("policy", ["topics", "topics-cached"])
def test_a_network_made_with_the_policy_by_name_delivers_by_topic(ipnctl: Ipnctl, policy: str) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--policy", policy, "--lossless").ok()
    assert admin.show_network(path)["policy"] == policy
    with member(path, "weather") as weather, member(path, "news") as news, member(path, "sender") as sender:
        for message in (b"weather 12 degrees", b"news none", b"weather rain", b"* good night"):
            sender.send(message)
        assert [weather.recv() for _ in range(3)] == [b"weather 12 degrees", b"weather rain", b"* good night"]
        assert [news.recv() for _ in range(2)] == [b"news none", b"* good night"]


@pytest.mark.parametrize("policy", ["topics", "topics-cached"])
def test_its_request_changes_what_was_decided_and_the_drops_are_told(ipnctl: Ipnctl, policy: str) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--policy", policy, "--lossless").ok()
    with member(path, "weather") as weather, member(path, "sender") as sender:
        sender.send(b"* one")
        assert weather.recv() == b"* one"
        admin.policy_verb(path, "topics.set", open=False)
        for message in (b"* two", b"* two again", b"weather three"):
            sender.send(message)
        assert weather.recv() == b"weather three"
        assert "dropped: 2 for everybody, which is switched off" in ipnctl.run("net", "show", path).ok().text


@pytest.mark.parametrize("policy", ["topics", "topics-cached"])
def test_who_takes_another_description_gets_that_topic(ipnctl: Ipnctl, policy: str) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--policy", policy, "--lossless").ok()
    with member(path, "weather") as one, member(path, "sender") as sender:
        sender.send(b"weather 12 degrees")
        assert one.recv() == b"weather 12 degrees"
        one.setsockopt(0, ipn.IPN_SO_DESCR, b"news")
        for message in (b"weather 12 degrees", b"news none"):
            sender.send(message)
        assert one.recv() == b"news none"


def test_a_live_network_changes_to_the_policy_by_name(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--lossless").ok()
    with ipn.connect(path, descr="news", timeout=SECONDS) as news, ipn.connect(path) as sender:
        sender.send(b"weather to all")
        assert news.recv() == b"weather to all"
        ipnctl.run("net", "set", path, "--policy", "topics-cached").ok()
        assert admin.show_network(path)["policy"] == "topics-cached"
        for message in (b"weather to nobody", b"news to one"):
            sender.send(message)
        received = [news.recv()]
        while received[-1] != b"news to one":
            received.append(news.recv())
        assert b"weather to nobody" not in received


def test_its_refusal_reaches_who_asked(ipnctl: Ipnctl) -> None:
    path = ipnctl.path("net")
    ipnctl.run("net", "create", path, "--policy", "topics").ok()
    with pytest.raises(OSError, match="must be true or false"):
        admin.policy_verb(path, "topics.set", open="perhaps")
    assert admin.show_network(path)["policy"] == "topics"


def test_an_unknown_name_is_refused_with_the_names_there_are(ipnctl: Ipnctl) -> None:
    ran = ipnctl.run("net", "create", ipnctl.path("net"), "--policy", "topic")
    assert (ran.status, ran.out) == (2, b"")
    for word in ("'--policy'", "'topic'", "broadcast", "topics-cached"):
        assert word in ran.err
