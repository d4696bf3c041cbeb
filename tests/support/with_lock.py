"""Processes that run with_lock, and what they run."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


def environment(database: dict[str, Any]) -> dict[str, str]:
    """Return an environment for processes that keep their locks in this database."""
    return {
        **os.environ,
        "DISTLOCK_TEST_WITH_LOCK": json.dumps(database),
        "DJANGO_SETTINGS_MODULE": "tests.support.with_lock_settings",
        "PYTHONPATH": str(ROOT),
    }


def settings_of(alias: str) -> dict[str, Any]:
    """Return the settings with which another process connects to a test's database."""
    found = connections[alias].settings_dict
    keys = ("ENGINE", "NAME", "HOST", "PORT", "USER", "OPTIONS")
    return {key: found[key] for key in keys if key in found}


@contextmanager
def empty_database(alias: str) -> Iterator[dict[str, Any]]:
    """Create a database without any table on the alias's server; return its settings."""
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE DATABASE empty")
        try:
            yield settings_of(alias) | {"NAME": "empty"}
        finally:
            cursor.execute("DROP DATABASE empty")
