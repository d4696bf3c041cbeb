"""Read the documentation in tests, and run its examples."""

import ast
import re
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.paths import ROOT

DOCUMENTS = ROOT / "docs"
PAGES = {
    **{str(page.relative_to(DOCUMENTS)): page for page in sorted(DOCUMENTS.rglob("*.md"))},
    **{f"../{page.name}": page for page in sorted(ROOT.glob("*.md"))},
    "../benchmarks/README.md": ROOT / "benchmarks" / "README.md",
}
"""The pages of the site and those beside the code, by their name from docs/."""
CODE = re.compile(r"^ *(`{3,})[^\n]*\n.*?^ *\1$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^\|.*\|\n\|[-: |]+\|\n((?:\|.*\|(?:\n|\Z))+)", re.MULTILINE)
BAR = re.compile(r"(?<!\\)\|")
"""What separates cells, unless it is escaped."""


def example(document: str, *headings: str) -> Any:
    """Return a module made of the Python code under the headings.

    Under the page's title stands the code before its first section.
    """
    code = "\n".join(
        block for heading in headings for block in blocks(section(document, heading), "python")
    )
    name = "_".join(headings).replace(" ", "_")
    module = ModuleType(f"{__name__}.{document.removesuffix('.md')}.{name}")
    sys.modules[module.__name__] = module  # resolving annotations needs it there
    for part in ("payments", "models"):
        if f"from shop import {part}" in code or f"from shop.{part} import" in code:
            for used in ("shop", f"shop.{part}"):
                sys.modules.setdefault(used, import_module(f"tests.documentation.{used}"))
    exec(compile(code, document, "exec"), vars(module))
    return module


def shown(document: str, language: str = "python") -> list[str]:
    """Return the page's blocks in this language, without the indentation of a list."""
    return blocks((DOCUMENTS / document).read_text(encoding="utf-8"), language)


def values(document: str) -> dict[str, Any]:
    """Return the names that the page's blocks of Python define."""
    found: dict[str, Any] = {}
    for block in shown(document):
        exec(compile(block, document, "exec"), found)
    return found


def prose(page: Path) -> str:
    """Return a page without its blocks of code, whose comments look like headings."""
    return CODE.sub("", page.read_text("utf-8"))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page without code."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} (.+?) *$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link is its text
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def section(document: str, heading: str) -> str:
    """Return what stands under the heading or title, up to the next heading of a section."""
    text = (DOCUMENTS / document).read_text(encoding="utf-8")
    [found] = re.findall(
        rf"^##? {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return str(found)


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in this language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def commands(block: str) -> list[tuple[str, str]]:
    """Return each command of a `console` block with the output that the page shows, if any.

    A command that goes on in the next line is whole.
    """
    found: list[tuple[str, str]] = []
    for line in block.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ ").strip(), ""))
        elif found:
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
        elif line.strip():
            raise AssertionError(f"a console block starts with a command after `$ `, not: {line}")
    return found


def console_commands(text: str) -> list[str]:
    """Return the commands of the `console` blocks, with single blanks."""
    found = [command for block in blocks(text, "console") for command, _ in commands(block)]
    return [" ".join(command.split()) for command in found]


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of the tables in a text, without the tables' heads."""
    tables = TABLE.findall(text)
    return [
        [cell.strip() for cell in BAR.split(line)[1:-1]]
        for table in tables
        for line in table.splitlines()
    ]


def text_of(expression: ast.expr) -> str | None:
    """Return a text with … in place of what is filled in; None if it isn't a literal."""
    if isinstance(expression, ast.Constant):
        return str(expression.value)
    if isinstance(expression, ast.JoinedStr):
        parts = expression.values
        return "".join("…" if isinstance(p, ast.FormattedValue) else str(text_of(p)) for p in parts)
    return None
