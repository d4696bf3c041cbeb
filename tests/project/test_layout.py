"""Rooms stay small enough to be read in one go. Which may import which: see pyproject.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

PACKAGE = ROOT / "django_distlock"
TESTS = ROOT / "tests"
FILES = sorted([*PACKAGE.rglob("*.py"), *TESTS.rglob("*.py")])
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))

MOST_MODULES = 15
MOST_LINES = 300
FEWEST_LINES = 15


def line_count(file: Path) -> int:
    """Return how many lines the file has."""
    return len(file.read_text("utf-8").splitlines())


def may_be_short(file: Path) -> bool:
    """Return whether the file is an `__init__`, a settings module, or the paths of all tests."""
    return file.name in {"__init__.py", "paths.py"} or file.name.endswith("_settings.py")


def test_few_modules_stand_outside_a_room() -> None:
    """A newcomer takes in the package's top level at a glance."""
    assert len([*PACKAGE.glob("*.py")]) <= MOST_MODULES


@each_file
def test_no_file_is_long(file: Path) -> None:
    """A longer file has a second subject, which deserves a file of its own."""
    assert line_count(file) <= MOST_LINES


@each_file
def test_no_file_is_tiny(file: Path) -> None:
    """A shorter file sends its reader to another one for nothing."""
    if not may_be_short(file):
        assert line_count(file) >= FEWEST_LINES
