"""The site of the examples."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.apps import apps
from django.db import connection
from django.db.models import QuerySet

from tests.documentation.shop import models, payments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEPT = {"auth", "contenttypes"}
"""The apps of which migrations wrote rows."""


@pytest.fixture
def default_store(settings: Any) -> None:
    """Keep locks where a site keeps them that has no DISTLOCK: in its database."""
    settings.DISTLOCK = {}  # a change forgets the stores, and deleting isn't noticed
    del settings.DISTLOCK


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Give access to the database, without a transaction; delete what a page leaves in it.

    Django's own clean-up creates permissions anew, which takes longer than most pages.
    """
    with django_db_blocker.unblock():
        yield
        for app in apps.get_app_configs():
            for model in app.get_models() if app.label not in KEPT else ():
                QuerySet(model).delete()


@pytest.fixture
def shop(
    monkeypatch: pytest.MonkeyPatch,
    database: None,
    default_store: None,
    no_celery_tasks: None,
    tmp_path: Path,
) -> Iterator[None]:
    """Provide the examples' site, with its tables, in an empty directory.

    What a page changes in the environment is undone.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("shop", "shop.models", "shop.payments"):
        monkeypatch.setitem(sys.modules, name, sys.modules[f"tests.documentation.{name}"])
    payments.collected.clear()
    payments.charges.clear()
    tables = [models.Customer, models.Invoice]
    with connection.schema_editor() as editor:
        for model in tables:
            editor.create_model(model)
    with mock.patch.dict(os.environ):
        yield
    with connection.schema_editor() as editor:
        for model in reversed(tables):
            editor.delete_model(model)
