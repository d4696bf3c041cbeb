"""docs/reference/api.md and store-interface.md have every public name, and no other."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.documentation import DOCUMENTS
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

PAGES = ("reference/api.md", "reference/store-interface.md")
WITHOUT_PUBLIC_NAMES = {"django_distlock.checks"}
"""Django calls what it exports; sites don't."""
DIRECTIVE = re.compile(
    r"^\.\. (currentmodule|auto(?:function|class|exception|data)):: ([\w.]+)", re.MULTILINE
)


def documented() -> list[str]:
    """Return the dotted path of each name that the pages document."""
    found: list[str] = []
    for page in PAGES:
        module = ""
        for directive, name in DIRECTIVE.findall((DOCUMENTS / page).read_text("utf-8")):
            if directive == "currentmodule":
                module = f"{name}."
            else:
                found.append(name if name.startswith("django_distlock.") else module + name)
    return found


def module_of(file: Path) -> str:
    """Return the dotted path of a module of the package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def public() -> Iterator[str]:
    """Yield the dotted path of each name in an `__all__`."""
    for file in (ROOT / "django_distlock").rglob("*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name(id="__all__")], value=names):
                    module = module_of(file)
                    if module not in WITHOUT_PUBLIC_NAMES:
                        yield from (f"{module}.{name}" for name in ast.literal_eval(names))


def test_every_public_name_is_documented() -> None:
    """Once; and nothing else is, but for the methods that every store has for operators."""
    operators = "django_distlock.backends.operator_calls.OperatorCalls"
    assert sorted(documented()) == sorted([*public(), operators])


@pytest.mark.parametrize("folder", ["integrations", "telemetry"])
def test_every_module_that_a_site_names_has_public_names(folder: str) -> None:
    """One without would be missing from the page."""
    internal = {"__init__", "measures", "recorders", "spans"}
    modules = {file.stem for file in (ROOT / "django_distlock" / folder).glob("*.py")} - internal
    named = {path.split(".")[2] for path in public() if path.split(".")[1] == folder}
    assert modules == named
