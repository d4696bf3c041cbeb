"""Fixtures for the tests of the example."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


QUICK_HASH = """
# A password's hash takes half a second, by intention.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the example without the database of earlier runs."""
    ignored = shutil.ignore_patterns("*.sqlite3*", "__pycache__")
    project = shutil.copytree(ROOT / "example_project", tmp_path / "example", ignore=ignored)
    with (project / "example" / "settings.py").open("a") as settings:
        settings.write(QUICK_HASH)
    return project
