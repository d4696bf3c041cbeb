"""Find the messages of the package's errors in its code."""

from __future__ import annotations

import ast
import builtins
import re
from functools import cache
from typing import TYPE_CHECKING

from tests.support.documentation import text_of
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    Function = ast.FunctionDef | ast.AsyncFunctionDef

PACKAGE = ROOT / "django_distlock"
OTHERS = {
    *("ArgumentTypeError", "BadRequest", "CommandError", "Http404", "ImproperlyConfigured"),
    *("NotSupportedError", "PermissionDenied", "ServiceUnavailable", "SynchronousOnlyOperation"),
    "ValidationError",
}
"""Exceptions of Django and of libraries that the package raises."""
DEEPEST = 7
"""How many names and calls to follow to a text."""


@cache
def trees() -> dict[Path, ast.Module]:
    """Return the code of each module, but for the tests of the contract."""
    return {
        file: ast.parse(file.read_text("utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
        if "contract" not in file.parts
    }


@cache
def exceptions() -> set[str]:
    """Return the names of exceptions: of Python, of libraries, and of the package."""
    found = {
        name
        for name, each in vars(builtins).items()
        if isinstance(each, type) and issubclass(each, BaseException)
    } | OTHERS
    classes = [
        node
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    while more := {
        each.name
        for each in classes
        if each.name not in found and {*map(last_name, each.bases)} & found
    }:
        found |= more
    return found


def last_name(node: ast.AST) -> str:
    """Return `c` of `a.b.c`."""
    return getattr(node, "attr", getattr(node, "id", ""))


@cache
def constants() -> dict[str, list[ast.expr]]:
    """Return what is assigned to each name in capitals."""
    found: dict[str, list[ast.expr]] = {}
    for tree in trees().values():
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if last_name(target).isupper():
                    found.setdefault(last_name(target), []).append(node.value)
    return found


@cache
def functions() -> dict[str, list[Function]]:
    """Return the functions and methods of each name."""
    found: dict[str, list[Function]] = {}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.setdefault(node.name, []).append(node)
    return found


@cache
def messages() -> frozenset[str]:
    """Return the messages of all errors and warnings, with … in place of what is filled in.

    What only passes on the message of another error has no words of its own, and is left out.
    """
    found = set()
    for tree in trees().values():
        for call, scope in calls_in(tree):
            if raises(call):
                found |= {each for text in call.args for each in map(normal, texts(text, scope))}
    return frozenset(
        text for text in found if len(re.findall(r"(?<!\S)[^\s…]*[a-z]{2}[^\s…]*", text)) > 1
    )


def normal(text: str) -> str:
    """Return the text with one … for what is filled in at one place."""
    return re.sub("…+", "…", text)


def raises(call: ast.Call) -> bool:
    """Tell whether the call makes an error, or warns; messages of system checks are elsewhere."""
    function, name = call.func, last_name(call.func)
    if isinstance(function, ast.Attribute) and last_name(function.value) == "checks":
        return False
    return name in exceptions() or ast.unparse(function) == "warnings.warn"


def calls_in(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Yield each call with the innermost function around it."""
    scopes: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while scopes:
        node, scope = scopes.pop()
        if isinstance(node, ast.Call):
            yield node, scope
        inner = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        scopes += [(child, inner) for child in ast.iter_child_nodes(node)]


def texts(node: ast.AST, scope: ast.AST, depth: int = 0) -> list[str]:
    """Return the texts that an expression may be, as far as they stand in the code."""
    if depth > DEEPEST:
        return []
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return [str(text_of(node))]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            ends = texts(right, scope, depth) or ["…"]
            return [begin + end for begin in texts(left, scope, depth) or ["…"] for end in ends]
        case ast.IfExp(body=one, orelse=other):
            return texts_of([one, other], scope, depth)
        case ast.BoolOp(values=values):
            return texts_of(values, scope, depth)
        case ast.Name(id=name) if name in constants():
            return texts_of(constants()[name], scope, depth)
        case ast.Name(id=name):
            return texts_of(assigned(name, scope), scope, depth)
        case ast.Call(func=function) if last_name(function) in functions():
            return [
                text
                for each in functions()[last_name(function)]
                for text in texts_of(returned(each), each, depth)
            ]
    return []


def texts_of(nodes: Sequence[ast.AST], scope: ast.AST, depth: int) -> list[str]:
    """Return the texts that one of the expressions may be."""
    return [text for node in nodes for text in texts(node, scope, depth + 1)]


def assigned(name: str, scope: ast.AST) -> list[ast.AST]:
    """Return what is assigned to a name in a function, or is appended to a list of this name."""
    found: list[ast.AST] = []
    for node in ast.walk(scope):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                found.append(value)
            case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                found.append(value)
            case ast.For(target=ast.Name(id=target), iter=value) if target == name:
                found.append(value)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=target), attr="append")) if (
                target == name
            ):
                found += node.args
    return found


def returned(function: ast.AST) -> list[ast.AST]:
    """Return what a function returns."""
    return [
        node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value
    ]
