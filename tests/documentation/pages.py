"""Run the code on a page of the documentation, block by block.

Each page is one namespace, a module of the app `shop`. What a page needs and shouldn't show stands
in an HTML comment, which starts with `<!-- invisible-code-block: python`.
"""

from __future__ import annotations

import json
import sys
import tomllib
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from io import StringIO
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml
from django.core.management import CommandError, call_command
from sybil import Document, Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

from tests.documentation.elsewhere import NOT_RUN
from tests.support.documentation import DOCUMENTS

if TYPE_CHECKING:
    from pathlib import Path

UNCHECKED = {"text", "mermaid", "html", "diff"}
"""Languages of blocks that are pictures or output."""


def run(page: Path) -> None:
    """Run all blocks of the page, in their order."""
    document = parse(page)
    for example in document.examples():
        example.evaluate()


def parse(page: Path) -> Document:
    """Return the page, whose examples can be evaluated, with a namespace of its own."""
    parsers: list[Any] = [
        PythonCodeBlockParser(),
        SkipParser(),
        *(CodeBlockParser(language, evaluate) for language, evaluate in EVALUATORS.items()),
    ]
    document = Sybil(parsers=parsers, path=str(DOCUMENTS)).parse(page)
    module = ModuleType(f"shop.page_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module  # resolving annotations and models needs it there
    document.namespace = vars(module)
    return document


def run_console(example: Example) -> None:
    """Run the lines after `$ `, and compare what they print with the lines below them."""
    for command, expected in commands(example.parsed):
        if command in NOT_RUN:
            continue
        words = command.split("#")[0].split()
        if words[:2] != ["python", "manage.py"]:
            raise AssertionError(f"a test can't run {command!r}: add it to NOT_RUN with the reason")
        compare(run_command(*words[2:]), expected)


def commands(block: str) -> list[tuple[str, str]]:
    """Return each command of a block with the output that the page shows, if it shows any."""
    found: list[tuple[str, str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), ""))
        elif found:
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
    return found


def run_command(name: str, *arguments: str) -> str:
    """Run a management command, and return what a person sees of it."""
    output = StringIO()
    try:
        call_command(name, *arguments, stdout=output, stderr=output)
    except CommandError as error:
        output.write(f"{type(error).__name__}: {error}\n")
    except SystemExit as stop:
        output.write(f"{stop.code}\n" if isinstance(stop.code, str) else "")
    return output.getvalue()


def compare(output: str, expected: str) -> None:
    """Fail unless the output is as expected, where `...` stands for anything."""
    options = ELLIPSIS | NORMALIZE_WHITESPACE
    if expected and not OutputChecker().check_output(expected, output, options):
        raise AssertionError(f"expected:\n{expected}\nwas:\n{output}")


def _parsed_by(parse: Any) -> Any:
    def evaluate(example: Example) -> None:
        parse(example.parsed)

    return evaluate


EVALUATORS: dict[str, Any] = {
    "console": run_console,
    "json": _parsed_by(json.loads),
    "toml": _parsed_by(tomllib.loads),
    "yaml": _parsed_by(lambda text: [*yaml.safe_load_all(text)]),
}
"""How blocks of each language are run."""
