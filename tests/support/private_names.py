"""Names that begin with an underscore, and the code that reads them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC = {
    "_asdict",
    "_base_manager",
    "_default_manager",
    "_exit",
    "_fields",
    "_meta",
    "_replace",
    "_state",
}
"""Documented, though they begin with an underscore."""


def is_private(name: str) -> bool:
    """Return whether a name is private."""
    return (
        name.isidentifier()
        and name.startswith("_")
        and not name.endswith("__")
        and name not in PUBLIC | {"_"}
    )


def private_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the private names of others that the code reads, also in texts, and their lines."""
    for node in ast.walk(tree):
        for name in names_read(node):
            if is_private(name):
                yield node.lineno, name  # type: ignore[attr-defined]


def names_read(node: ast.AST) -> list[str]:
    """Return the names that this reads of objects other than itself."""
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
    """Return whether this is super()."""
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "super"


def takes_names(function: ast.expr) -> bool:
    """Return whether this call reads or replaces an attribute by its name."""
    name = getattr(function, "attr", getattr(function, "id", ""))
    return name in {"setattr", "getattr", "delattr", "hasattr", "object", "patch", "attrgetter"}
