"""Run the code on a page of the documentation, block by block.

Each page is one namespace, a module of the app `shop`. What a page needs and shouldn't show stands
in an HTML comment, which starts with `<!-- invisible-code-block: python`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from sybil import Document, Sybil
from sybil.parsers.myst import CodeBlockParser

from tests.documentation.languages import EVALUATORS, UNCHECKED
from tests.support.documentation import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sybil import Example

WITHOUT_CODE = ("{toctree}", "{eval-rst}")
"""How directives start that contain no code."""


def run(page: Path) -> None:
    """Run all blocks of the page, in their order."""
    for example in parse(page).examples():
        evaluate(example)


def evaluate(example: Example) -> None:
    """Run a block, and say which one it is if it fails."""
    with located(f"{example.path}:{example.line}"):
        example.evaluate()


@contextmanager
def located(place: str) -> Iterator[None]:
    """Say where the code is that fails."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{place}: this block of code doesn't work")
        raise


def parse(page: Path) -> Document:
    """Return the page, whose examples can be evaluated, with a namespace of its own."""
    parsers = [CodeBlockParser(language, run) for language, run in EVALUATORS.items()]
    document = Sybil(parsers=parsers, path=str(DOCUMENTS)).parse(page)
    module = ModuleType(f"shop.page_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module  # resolving annotations and models needs it there
    document.namespace = vars(module)
    return document


def unknown_blocks(page: Path) -> list[str]:
    """Return the fences of a page that nothing runs or checks, as another parser sees them."""
    known = {example.line for example in parse(page).examples()}
    return [
        f"{page}:{fence.map[0] + 1}: {fence.info or 'no language'}"
        for fence in MarkdownIt().parse(page.read_text("utf-8"))
        if fence.type in {"fence", "code_block"} and fence.map
        if not (fence.info in UNCHECKED or fence.info.startswith(WITHOUT_CODE))
        if not (fence.info in EVALUATORS and fence.map[0] + 1 in known)
    ]
