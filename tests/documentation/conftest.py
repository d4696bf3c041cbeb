"""The site of the examples."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import connection

from tests.documentation.shop import models, payments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def default_store(settings: Any) -> None:
    """Keep locks where a site keeps them that has no DISTLOCK: in its database."""
    settings.DISTLOCK = {}  # a change forgets the stores, and deleting isn't noticed
    del settings.DISTLOCK


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, default_store: None, tmp_path: Path) -> Iterator[None]:
    """Provide the examples' site, with its tables, in an empty directory.

    What a page changes in the environment is undone.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("shop", "shop.models", "shop.payments"):
        monkeypatch.setitem(sys.modules, name, sys.modules[f"tests.documentation.{name}"])
    payments.collected.clear()
    tables = [models.Customer, models.Invoice]
    with connection.schema_editor() as editor:
        for model in tables:
            editor.create_model(model)
    with mock.patch.dict(os.environ):
        yield
    with connection.schema_editor() as editor:
        for model in reversed(tables):
            editor.delete_model(model)
