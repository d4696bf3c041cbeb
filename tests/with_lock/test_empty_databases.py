"""with_lock before this package's table exists: pods that start at once, and migrate."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import on_each_server
from tests.support.with_lock import empty_database, environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.django_db(databases="__all__", transaction=True)]

PODS = {"postgresql": 20, "mariadb": 8}


@on_each_server
def test_pods_migrate_an_empty_database_one_at_a_time(alias: str, tmp_path: Path) -> None:
    """Each pod runs `migrate` alone; the first one creates the table, which the others then use."""
    number = PODS[alias]
    with_lock = ["deploy:migrate", "--timeout", "none", "--"]
    migrate = [sys.executable, "-m", "tests.support.migrating", str(tmp_path / "alone")]
    with empty_database(alias) as settings:
        pods = subprocess.run(
            [sys.executable, "-m", "tests.support.pods", str(number), *with_lock, *migrate],
            env=environment(settings),
            capture_output=True,
            text=True,
            check=True,
        )
    *said, codes = pods.stdout.splitlines()
    assert json.loads(codes) == [0] * number, pods.stderr
    assert said.count("  Applying distlock.0001_initial... OK") == 1
    assert said.count("  No migrations to apply.") == number - 1
