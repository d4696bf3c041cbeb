"""Rules for all tests, which keep the code free to change."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT
from tests.support.private_names import private_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

TESTS = ROOT / "tests"


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Yield the files of the tests, each with its syntax tree."""
    for file in sorted(TESTS.rglob("*.py")):
        yield file, ast.parse(file.read_text("utf-8"))


def test_private_names_are_found_however_they_are_read() -> None:
    """In an attribute, an import or a text; but not own or documented names."""
    tree = ast.parse(
        "from package import _one\n"
        "lease._two\n"
        "monkeypatch.setattr(lease, '_three', None)\n"
        "patch('package._four')\n"
        "self._own, super()._inherited, lock._meta, print('_text')\n"
    )
    assert [*private_names(tree)] == [(1, "_one"), (2, "_two"), (3, "_three"), (4, "_four")]


def test_no_test_reads_private_names() -> None:
    """Where a test needs to look inside, the code offers a public name."""
    read = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file, tree in trees()
        for line, name in private_names(tree)
    ]
    assert read == []


def test_no_test_module_imports_another() -> None:
    """What two modules share is in tests/support, or a fixture."""
    imported = [
        f"{file.relative_to(ROOT)}: {name}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in [node.module or "", *(f"{node.module}.{each.name}" for each in node.names)]
        if ".test_" in name or "conftest" in name
    ]
    assert imported == []
