"""The documents name tests, commands and files: each must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHORT = {
    "S": "tests/ipn/test_socket.py",
    "N": "tests/ipnd/test_network.py",
    "D": "tests/ipnd/plane/test_delivery.py",
    "P": "tests/ipnd/policies/test_policy_api.py",
    "I": "tests/ipn/test_interfaces.py",
    "T": "tests/ipnd/netdev/test_tap.py",
    "G": "tests/ipnd/netdev/test_grab.py",
    "A": "tests/ipnctl/programs/test_announcement.py",
    "R": "tests/ipnctl/programs/test_rows.py",
    "O": "tests/ipnctl/programs/test_oob.py",
}


def named_tests() -> list[str]:
    text = (ROOT / "docs/af_ipn.md").read_text()
    return sorted(set(re.findall(r"`((?:[A-Z]|tests/[\w/]+\.py)(?:::\w+)?)` \|", text)))


def test_the_table_of_the_specification_names_many_tests() -> None:
    assert len(named_tests()) > 50


@pytest.mark.parametrize("name", named_tests())
def test_each_test_that_the_table_of_the_specification_names_exists(name: str) -> None:
    file, _, function = name.partition("::")
    path = ROOT / SHORT.get(file, file)
    assert path.is_file()
    assert not function or re.search(rf"^(async )?def {function}\(", path.read_text(), re.MULTILINE)


def test_every_row_of_the_specification_names_a_test() -> None:
    for line in (ROOT / "docs/af_ipn.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| clause", "| ---")):
            assert re.search(r"`(?:[A-Z]::|tests/)", line.rsplit("|", 2)[1]), line


@pytest.mark.parametrize("document", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))])
def test_files_that_documents_link_to_exist(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
