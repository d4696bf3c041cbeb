"""Rooms stay small enough to be read in one go. Which may import which: see pyproject.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT
from tests.support.plugin import ONCE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

PACKAGE = ROOT / "django_distlock"
TESTS = ROOT / "tests"
FILES = sorted([*PACKAGE.rglob("*.py"), *TESTS.rglob("*.py")])

MOST_MODULES = 15
MOST_LINES = 300
FEWEST_LINES = 15


def line_count(file: Path) -> int:
    """Return how many lines the file has."""
    return len(file.read_text("utf-8").splitlines())


def needs_length(file: Path) -> bool:
    """Return whether the file is no `__init__`, settings module, or the paths of all tests."""
    return file.name not in {"__init__.py", "paths.py"} and not file.name.endswith("_settings.py")


def test_few_modules_stand_outside_a_room() -> None:
    """A newcomer takes in the package's top level at a glance."""
    assert len([*PACKAGE.glob("*.py")]) <= MOST_MODULES


def test_no_file_is_long() -> None:
    """A longer file has a second subject, which deserves a file of its own."""
    lengths = {str(file.relative_to(ROOT)): line_count(file) for file in FILES}
    assert {file: length for file, length in lengths.items() if length > MOST_LINES} == {}


def test_no_file_is_tiny() -> None:
    """A shorter file sends its reader to another one for nothing."""
    lengths = {
        str(file.relative_to(ROOT)): line_count(file) for file in FILES if needs_length(file)
    }
    assert {file: length for file, length in lengths.items() if length < FEWEST_LINES} == {}


def test_folders_whose_tests_run_once_exist() -> None:
    """One that was moved would run on every version of Python, unnoticed."""
    assert [folder for folder in ONCE if not folder.is_dir()] == []
