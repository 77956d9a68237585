"""Imports point one way: ``ipn`` ← the pure core ← policies ← the daemon's I/O; ``ipnctl`` sees only ``ipn``."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IO = {"trio", "socket", "os", "time", "logging", "select", "subprocess", "threading", "asyncio"}

PURE = [
    "ipnctl/programs/filter.py",
    "ipnctl/programs/machine.py",
    "ipnctl/programs/outcome.py",
    "ipn/abi.py",
    "ipn/framing.py",
    "ipn/greeting.py",
    "ipn/ifnames.py",
    "ipn/control.py",
    "ipn/vdestream.py",
    "ipnd/access.py",
    "ipnd/cables/remotes.py",
    "ipnd/cables/url.py",
    "ipnd/cables/vxlan_header.py",
    "ipnd/errors.py",
    "ipnd/fields.py",
    "ipnd/gateways/console_actions.py",
    "ipnd/gateways/console_commands.py",
    "ipnd/gateways/console_tables.py",
    "ipnd/netdev/helper_request.py",
    "ipnd/netdev/helper_rules.py",
    "ipnd/netdev/helper_toml.py",
    "ipnd/plane/batch.py",
    "ipnd/plane/checksum.py",
    "ipnd/plane/gso.py",
    "ipnd/plane/impairment.py",
    "ipnd/plane/offload.py",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ipnd/policies").glob("**/*.py")),
]

ALLOWED = {("ipn/control.py", "os"): {"strerror"}}
"""(pure module, I/O module) → what it may use of that: the system's words for an errno are no I/O."""


def modules_of(package: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py"))


def imports_of(file: str, *, at_run_time: bool = False) -> Iterator[str]:
    """Give the full names of what ``file`` imports anywhere, ``from x import y`` as ``x.y``.

    ``at_run_time``: without what is imported for annotations only (``if TYPE_CHECKING``).
    """
    package = Path(file).parent.parts
    tree = ast.parse((ROOT / file).read_text())
    for node in _run_time_nodes(tree) if at_run_time else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _run_time_nodes(child)


def file_of(name: str) -> str | None:
    """Return the file of the module that the full name ``name`` is, or is in; None when it is not ours."""
    for module in (name, name.rpartition(".")[0]):
        for file in (f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py"):
            if module and (ROOT / file).is_file():
                return file
    return None


def packages_of(file: str) -> set[str]:
    """Return the top-level names that ``file`` imports."""
    return {name.split(".")[0] for name in imports_of(file)}


def used_of(file: str, module: str) -> set[str]:
    """Return the attributes of ``module`` that ``file`` uses."""
    return {
        node.attr
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module
    }


def test_relative_and_absolute_imports_are_seen_with_their_full_names() -> None:
    assert "ipnd.plane.batch.cut" in set(imports_of("ipnd/plane/stream.py"))
    assert "ipnd.errors.PeerFault" in set(imports_of("ipnd/plane/stream.py"))
    assert "ipn.framing.LENGTH" in set(imports_of("ipnd/plane/batch.py"))


@pytest.mark.parametrize("file", modules_of("ipn"))
def test_the_library_knows_neither_the_daemon_nor_the_command(file: str) -> None:
    assert not packages_of(file) & {"ipnd", "ipnctl"}


@pytest.mark.parametrize("file", modules_of("ipn"))
def test_only_the_trio_half_of_the_library_imports_trio(file: str) -> None:
    assert file == "ipn/aio.py" or "trio" not in packages_of(file)


@pytest.mark.parametrize("file", modules_of("ipn"))
def test_the_library_needs_only_the_standard_library(file: str) -> None:
    assert packages_of(file) <= {"ipn", *sys.stdlib_module_names, *(["trio"] if file == "ipn/aio.py" else [])}


def test_a_program_that_imports_ipn_does_not_import_trio() -> None:
    code = "import sys, ipn; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "ipn" in loaded
    assert not {"trio", "attrs", "attr", "click", "rich", "ipnd", "ipnctl"} & set(loaded)


@pytest.mark.parametrize("file", modules_of("ipnctl"))
def test_the_command_never_imports_the_daemon(file: str) -> None:
    assert "ipnd" not in packages_of(file)


@pytest.mark.parametrize("file", modules_of("ipnd"))
def test_the_daemon_never_imports_the_command(file: str) -> None:
    assert "ipnctl" not in packages_of(file)


@pytest.mark.parametrize("file", PURE)
def test_a_pure_module_does_no_io(file: str) -> None:
    for module in packages_of(file) & IO:
        allowed = ALLOWED.get((file, module))
        assert allowed is not None, f"{file} is pure and imports {module}"
        assert used_of(file, module) <= allowed


@pytest.mark.parametrize("file", PURE)
def test_whatever_a_pure_module_imports_of_ours_is_pure_too(file: str) -> None:
    chains = [[file]]
    seen = {file}
    while chains:
        chain = chains.pop()
        for name in imports_of(chain[-1], at_run_time=True):
            module = name.split(".")[0]
            assert module not in IO or (chain[-1], module) in ALLOWED, f"{' → '.join(chain)} → {module}"
            found = file_of(name)
            if found is not None and found not in seen:
                seen.add(found)
                chains.append([*chain, found])
