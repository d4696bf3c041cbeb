"""What users see in their editor. Type checkers run over tests/typing by `tox run -e type`."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from django_distlock import Lease, signals
from django_distlock.backends.operator_calls import OperatorCalls
from django_distlock.health import StoreHealth
from django_distlock.signals import ReentrantSignal
from tests.support.documentation import PAGES
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

CODE = ROOT / "tests" / "typing"
FILES = sorted({*CODE.glob("*.py")} - {CODE / "wrong.py"})
MODULES = ("", ".contract", ".fencing", ".health", ".test")
IMPORT = re.compile(r"from (django_distlock[\w.]*) import (?:\(([^)]*)\)|([^\n#]*))")
"""An import in a page's code."""
HIDDEN = re.compile("<!--.*?-->", re.DOTALL)
"""Code that a page runs and doesn't show."""
PATH = re.compile(r"\"(django_distlock\.(?:integrations|telemetry|health)[\w.]*\.\w+)\"")
"""The path of a class or function in a setting."""


def names_in(file: Path) -> Iterator[str]:
    """Yield the names of the package that a file imports, or reads of a module."""
    names: dict[str, str] = {}
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("django_distlock"):
            names |= {each.name: f"{node.module}.{each.name}" for each in node.names}
    yield from names.values()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in names:
                yield f"{names[module]}.{name}"


def names_in_documents() -> Iterator[str]:
    """Yield the names of the package that the pages' code imports or sets."""
    for page in PAGES.values():
        text = HIDDEN.sub("", page.read_text("utf-8"))
        for module, in_parentheses, in_line in IMPORT.findall(text):
            for name in re.findall(r"\w+", in_parentheses or in_line):
                yield f"{module}.{name}"
        yield from PATH.findall(text)


def public_names() -> Iterator[str]:
    """Yield the names that users are told to use."""
    for module in MODULES:
        for name in import_module(f"django_distlock{module}").__all__:
            yield f"django_distlock{module}.{name}"
    for name, value in vars(signals).items():
        if isinstance(value, ReentrantSignal):
            yield f"django_distlock.signals.{name}"
    for exporter in ("opentelemetry", "prometheus"):
        for name in ("instrument", "uninstrument"):
            yield f"django_distlock.telemetry.{exporter}.{name}"
    yield from names_in_documents()


def test_type_checkers_see_the_pages_code() -> None:
    """The code of the page on editors has assertions for them."""
    page = (ROOT / "docs" / "integrations" / "editors.md").read_text("utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert (CODE / "documented.py").read_text("utf-8").endswith(f'"""\n\n{code}')


def attributes_read() -> set[str]:
    """Return the names of all attributes that the files read."""
    nodes = chain.from_iterable(ast.walk(ast.parse(file.read_text("utf-8"))) for file in FILES)
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("shown", [Lease, OperatorCalls, StoreHealth])
def test_type_checkers_see_every_public_attribute_used(shown: type) -> None:
    """Of what users have in their hands."""
    assert {name for name in dir(shown) if not name.startswith("_")} <= attributes_read()


def test_type_checkers_see_every_public_name_used() -> None:
    """A name that is new in an `__all__` or in a page is to be used in tests/typing, too."""
    used = set(chain.from_iterable(map(names_in, FILES)))
    assert sorted(set(public_names()) - used) == []
