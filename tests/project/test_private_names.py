"""Undocumented names that the package reads of other libraries."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.support.paths import ROOT
from tests.support.private_names import private_names

pytestmark = pytest.mark.once

PACKAGE = ROOT / "django_distlock"
CLASSES = {"AsyncToSync", "SyncToAsync"}
"""Of asgiref, which documents the functions that make them."""
EXCEPTIONS: set[tuple[str, str]] = {
    ("backends/redis/clients.py", "_cache"),
    ("backends/redis/protocol.py", "_sock"),
}
"""Read elsewhere than in runtime.py; this list is to shrink."""


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of each file of the package."""
    return {
        str(file.relative_to(PACKAGE)): ast.parse(file.read_text("utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def defined_names() -> set[str]:
    """Return the names of functions, classes, variables and attributes that the package defines."""
    names = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return names


def names_of_classes(tree: ast.Module) -> set[str]:
    """Return the attributes of asgiref's classes that the package reads."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in CLASSES
    }


def test_only_one_module_reads_undocumented_names() -> None:
    """runtime.py has a fallback for each."""
    own = defined_names()
    found = {
        (file, name)
        for file, tree in trees().items()
        for name in names_of_classes(tree) | {name for _, name in private_names(tree)} - own
        if file != "runtime.py"
    }
    assert found == EXCEPTIONS
