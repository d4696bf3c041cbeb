"""What holds for all tests: that is what leaves the code free to change."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
PUBLIC = {"_asdict", "_default_manager", "_exit", "_fields", "_meta", "_replace", "_state"}
"""Documented, though they begin with an underscore."""
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(TESTS)))


def is_private(name: str) -> bool:
    """Tell whether a name is for its owner only."""
    return (
        name.isidentifier()
        and name.startswith("_")
        and not name.endswith("__")
        and name not in PUBLIC | {"_"}
    )


def private_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the private names that the code reads of others, be it by a text, and their lines."""
    for node in ast.walk(tree):
        for name in names_read(node):
            if is_private(name):
                yield node.lineno, name  # type: ignore[attr-defined]


def names_read(node: ast.AST) -> list[str]:
    """Return the names that this reads of something else than itself."""
    if isinstance(node, ast.Attribute):
        own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
        return [] if own or is_super(node.value) else [node.attr]
    if isinstance(node, ast.ImportFrom):
        return [each.name for each in node.names]
    if isinstance(node, ast.Call) and takes_names(node.func):
        texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
        return [text.rpartition(".")[2] for text in texts if isinstance(text, str)]
    return []


def is_super(node: ast.expr) -> bool:
    """Tell whether that is super()."""
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "super"


def takes_names(function: ast.expr) -> bool:
    """Tell whether that reads or replaces what has a name."""
    name = getattr(function, "attr", getattr(function, "id", ""))
    return name in {"setattr", "getattr", "delattr", "hasattr", "object", "patch", "attrgetter"}


def test_what_is_private_is_found_however_it_is_read() -> None:
    """By an attribute, an import, or a text; but not what is one's own, or documented."""
    tree = ast.parse(
        "from package import _one\n"
        "lease._two\n"
        "monkeypatch.setattr(lease, '_three', None)\n"
        "patch('package._four')\n"
        "self._own, super()._inherited, lock._meta, print('_text')\n"
    )
    assert [*private_names(tree)] == [(1, "_one"), (2, "_two"), (3, "_three"), (4, "_four")]


@each_file
def test_no_test_reads_what_is_private(file: Path) -> None:
    """Where it needs a view inside, the code offers one with a proper name."""
    tree = ast.parse(file.read_text("utf-8"))
    assert [f"{file.relative_to(ROOT)}:{line}: {name}" for line, name in private_names(tree)] == []


@each_file
def test_no_test_module_imports_another(file: Path) -> None:
    """What two of them use is in tests/support, or a fixture."""
    imported = [
        name
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        for name in [node.module or "", *(f"{node.module}.{each.name}" for each in node.names)]
    ]
    assert [name for name in imported if ".test_" in name or "conftest" in name] == []
