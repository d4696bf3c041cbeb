"""Every block of code in the documentation works."""

from __future__ import annotations

import pytest

for library in ("markdown_it", "sybil", "yaml"):
    pytest.importorskip(library)
pytestmark = [
    pytest.mark.once,
    pytest.mark.django_db(transaction=True, databases=["default", "locks"]),
]

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

PAGES = {str(page.relative_to(DOCUMENTS)): page for page in sorted(DOCUMENTS.rglob("*.md"))}


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
        if example.region.lexemes["arguments"] == "sql":
            example.region.evaluator = lambda sql: run_statements(str(sql.parsed), alias)
            evaluate(example)


def test_every_block_is_run_or_checked() -> None:
    """A language that nothing knows has a reason in UNCHECKED."""
    pages = [page for name, page in PAGES.items() if name not in OLD]
    assert [block for page in pages for block in unknown_blocks(page)] == []


def test_pages_that_other_tests_run_are_named_in_them() -> None:
    """One that nothing runs would go unnoticed."""
    unnamed = [
        page
        for page, module in RUN_ELSEWHERE.items()
        if f'"{page}"' not in (ROOT / module).read_text("utf-8")
    ]
    assert unnamed == []


def test_what_is_left_out_is_on_a_page() -> None:
    """The lists name no page that is gone, and nothing that no page shows."""
    assert {*OLD, *RUN_ELSEWHERE, *SQL_SERVERS} - PAGES.keys() == set()
    shown = "\n".join(page.read_text("utf-8") for page in PAGES.values()).replace("\\\n", "")
    assert [entry for entry in NOT_RUN if entry not in shown] == []
