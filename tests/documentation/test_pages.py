"""Every block of code in the documentation works."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

for library in ("markdown_it", "sybil", "yaml"):
    pytest.importorskip(library)
pytestmark = [
    pytest.mark.once,
    pytest.mark.django_db(transaction=True, databases=["default", "locks"]),
]

from tests.documentation.console import check_shell, commands  # noqa: E402
from tests.documentation.elsewhere import (  # noqa: E402
    NOT_RUN,
    OLD,
    RUN_ELSEWHERE,
    SQL_SERVERS,
)
from tests.documentation.languages import run_statements  # noqa: E402
from tests.documentation.pages import evaluate, parse, run, unknown_blocks  # noqa: E402
from tests.support.documentation import DOCUMENTS  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402

if TYPE_CHECKING:
    from sybil import Example

PAGES = {str(page.relative_to(DOCUMENTS)): page for page in sorted(DOCUMENTS.rglob("*.md"))}

TESTS = [file for file in (ROOT / "tests").rglob("*.py") if file.name != "elsewhere.py"]
READERS = ("tests.documentation.pages", "Newcomer(", "values(", "blocks(")
"""What a test contains that reads a whole page."""


def language(example: Example) -> str:
    """Return the language that a block says it has."""
    return str(example.region.lexemes["arguments"])


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", [name for name in PAGES if name not in RUN_ELSEWHERE])
def test_code_of_a_page_works(name: str) -> None:
    """A reader who copies it gets what the page says."""
    if name in OLD:
        pytest.skip("not rewritten yet")
    run(PAGES[name])


@pytest.mark.django_db(transaction=True, databases="__all__")
@pytest.mark.parametrize(
    ("name", "alias"),
    [
        pytest.param(name, alias, marks=pytest.mark.needs(alias))
        for name, alias in SQL_SERVERS.items()
    ],
)
def test_sql_of_a_page_works_on_the_server_it_is_for(name: str, alias: str) -> None:
    """SQLite would refuse it."""
    for example in parse(PAGES[name]).examples():
        if language(example) == "sql":
            example.region.evaluator = lambda sql: run_statements(str(sql.parsed), alias)
            evaluate(example)


def test_every_block_is_run_or_checked() -> None:
    """A language that nothing knows has a reason in UNCHECKED."""
    pages = [page for name, page in PAGES.items() if name not in OLD]
    assert [block for page in pages for block in unknown_blocks(page)] == []


@pytest.mark.parametrize("name", RUN_ELSEWHERE)
def test_blocks_of_a_page_that_another_test_runs_can_be_read(name: str) -> None:
    """Its commands exist and know their options, and its files can be parsed."""
    for example in parse(PAGES[name]).examples():
        if language(example) == "console":
            example.region.evaluator = lambda console: check_shell(
                "\n".join(command for command, _ in commands(console.parsed))
            )
        if language(example) not in {"pycon", "python", "sql"}:
            evaluate(example)


@pytest.mark.parametrize(("name", "module"), RUN_ELSEWHERE.items())
def test_page_that_another_test_runs_is_run_to_its_end(name: str, module: str) -> None:
    """The module names each heading that has code, unless it reads the whole page."""
    test = (ROOT / module).read_text("utf-8")
    assert f'"{name}"' in test
    if any(reader in test for reader in READERS):
        return
    users = [text for file in TESTS if f'"{name}"' in (text := file.read_text("utf-8"))]
    page = parse(PAGES[name])
    headings = [
        re.findall(r"^#+ (.+)$", page.text[: example.start], re.MULTILINE)[-1]
        for example in page.examples()
        if language(example) in {"pycon", "python"}
    ]
    assert [one for one in headings if not any(f'"{one}"' in text for text in users)] == []


def test_what_is_left_out_is_on_a_page() -> None:
    """The lists name no page that is gone, and nothing that no page shows."""
    assert {*OLD, *RUN_ELSEWHERE, *SQL_SERVERS} - PAGES.keys() == set()
    shown = "\n".join(page.read_text("utf-8") for page in PAGES.values()).replace("\\\n", "")
    assert [entry for entry in NOT_RUN if entry not in shown] == []
