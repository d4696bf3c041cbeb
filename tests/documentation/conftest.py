"""The site of the examples."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from tests.documentation.shop import models, payments

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def default_store(settings: Any) -> None:
    """Keep locks where a site keeps them that has no DISTLOCK: in its database."""
    settings.DISTLOCK = {}  # a change forgets the stores, and deleting isn't noticed
    del settings.DISTLOCK


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, default_store: None) -> Iterator[None]:
    """Provide the examples' site, with its tables."""
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
