"""Every block of code in the documentation works."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

for library in ("sybil", "yaml"):
    pytest.importorskip(library)
pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

from django.db import connection  # noqa: E402

from tests.documentation.elsewhere import OLD, RUN_ELSEWHERE  # noqa: E402
from tests.documentation.pages import run  # noqa: E402
from tests.documentation.shop import models, payments  # noqa: E402
from tests.support.documentation import DOCUMENTS  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


PAGES = {str(page.relative_to(DOCUMENTS)): page for page in sorted(DOCUMENTS.rglob("*.md"))}


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """Provide the examples' site, with its tables, and the store that no setting means."""
    settings.DISTLOCK = {}
    for name in ("shop", "shop.models", "shop.payments"):
        monkeypatch.setitem(sys.modules, name, sys.modules[f"tests.documentation.{name}"])
    payments.collected.clear()
    tables = [models.Customer, models.Invoice]
    with connection.schema_editor() as editor:
        for model in tables:
            editor.create_model(model)
    yield
    with connection.schema_editor() as editor:
        for model in reversed(tables):
            editor.delete_model(model)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", [name for name in PAGES if name not in RUN_ELSEWHERE])
def test_code_of_a_page_works(name: str) -> None:
    """A reader who copies it gets what the page says."""
    if name in OLD:
        pytest.skip("not rewritten yet")
    run(PAGES[name])


def test_pages_that_other_tests_run_are_named_in_them() -> None:
    """One that nothing runs would go unnoticed."""
    unnamed = [
        page
        for page, module in RUN_ELSEWHERE.items()
        if f'"{page}"' not in (ROOT / module).read_text("utf-8")
    ]
    assert unnamed == []
