"""Fixtures for the tests of the example."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the example without the database of earlier runs."""
    ignored = shutil.ignore_patterns("*.sqlite3*", "__pycache__")
    return shutil.copytree(ROOT / "example_project", tmp_path / "example", ignore=ignored)
