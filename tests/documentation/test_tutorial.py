"""The page "tutorial.md" works for a newcomer, from an empty folder to the test for the 409."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

for library in ("hatchling", "markdown_it", "sybil", "yaml"):
    pytest.importorskip(library)

from hatchling.build import build_wheel  # noqa: E402

from tests.documentation.newcomer import Newcomer  # noqa: E402
from tests.support.documentation import DOCUMENTS  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the package in a folder of its own."""
    monkeypatch.chdir(ROOT)
    wheel = tmp_path / build_wheel(str(tmp_path))
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def newcomer(tmp_path: Path, package: Path, unused_port: int) -> Iterator[Newcomer]:
    """Return a person with an empty folder."""
    folder = tmp_path / "tutorial"
    folder.mkdir()
    person = Newcomer(DOCUMENTS / "tutorial.md", folder, package, unused_port)
    yield person
    person.leave()


def test_tutorial_can_be_followed(newcomer: Newcomer) -> None:
    """Every command prints what the page shows, and the admin shows the lock."""
    newcomer.follow(until_heading="Kill the process that holds the lock")
    shown = newcomer.open_in_browser()
    assert re.search(r"1234collectPayment.*Python shell", shown, re.DOTALL)
    newcomer.follow()
