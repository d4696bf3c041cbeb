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

from tests.documentation.console import check_shell  # noqa: E402
from tests.documentation.elsewhere import (  # noqa: E402
    NOT_RUN,
    RUN_ELSEWHERE,
    SQL_SERVERS,
)
from tests.documentation.languages import run_statements  # noqa: E402
from tests.documentation.pages import evaluate, parse, run, unknown_blocks  # noqa: E402
from tests.support.documentation import PAGES, commands  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from sybil import Example

READERS = ("tests.documentation.pages", "Newcomer(", "values(", "blocks(")
"""What a test contains that reads a whole page."""


def modules() -> list[str]:
    """Return the text of all modules of tests, but the list of what runs elsewhere."""
    files = (ROOT / "tests").rglob("*.py")
    return [file.read_text("utf-8") for file in files if file.name != "elsewhere.py"]


def language(example: Example) -> str:
    """Return the language that a block says it has."""
    return str(example.region.lexemes["arguments"])


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", [name for name in PAGES if name not in RUN_ELSEWHERE])
def test_code_of_a_page_works(name: str) -> None:
    """A reader who copies it gets what the page says."""
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
    assert [block for page in PAGES.values() for block in unknown_blocks(page)] == []


def test_blocks_of_pages_that_other_tests_run_can_be_read() -> None:
    """Their commands exist and know their options, and their files can be parsed."""
    for example in (one for name in RUN_ELSEWHERE for one in parse(PAGES[name]).examples()):
        if language(example) == "console":
            example.region.evaluator = lambda console: check_shell(
                "\n".join(command for command, _ in commands(console.parsed))
            )
        if language(example) not in {"pycon", "python", "sql"}:
            evaluate(example)


def test_pages_that_other_tests_run_are_run_to_their_end() -> None:
    """The module names each heading that has code, unless it reads the whole page."""
    missed, tests = [], modules()
    for name, module in RUN_ELSEWHERE.items():
        test = (ROOT / module).read_text("utf-8")
        assert f'"{name}"' in test
        if not any(reader in test for reader in READERS):
            users = "".join(text for text in tests if f'"{name}"' in text)
            missed += [one for one in headings_with_code(PAGES[name]) if f'"{one}"' not in users]
    assert missed == []


def headings_with_code(page: Path) -> list[str]:
    """Return the headings of a page under which code stands."""
    document = parse(page)
    return [
        re.findall(r"^#+ (.+)$", document.text[: example.start], re.MULTILINE)[-1]
        for example in document.examples()
        if language(example) in {"pycon", "python"}
    ]


def test_what_is_left_out_is_on_a_page() -> None:
    """The lists name no page that is gone, and nothing that no page shows."""
    assert {*RUN_ELSEWHERE, *SQL_SERVERS} - PAGES.keys() == set()
    shown = "\n".join(page.read_text("utf-8") for page in PAGES.values()).replace("\\\n", "")
    assert [entry for entry in NOT_RUN if entry not in shown] == []
