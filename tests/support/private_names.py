"""Names that begin with an underscore, and where code reads them."""

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
