"""docs/explanation/architecture.md describes the code as it is."""

from __future__ import annotations

import re
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import acquire_lock, release_lock
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from types import FrameType

pytestmark = pytest.mark.once

PACKAGE = ROOT / "django_distlock"
TEXT = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
MOST_LINES = 120
MOST_CALLS = 8


def calls_to_the_store(semaphore: str) -> list[tuple[str, str]]:
    """Return the package's functions on the stack in MemoryBackend.acquire(), with files."""
    found: list[tuple[str, str]] = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame.f_code.co_qualname != "MemoryBackend.acquire":
            return
        caller: FrameType | None = frame
        while caller is not None:
            if caller.f_code.co_filename.startswith(str(PACKAGE)):
                file = caller.f_code.co_filename.removeprefix(f"{PACKAGE}/")
                found.insert(0, (caller.f_code.co_qualname, file))
            caller = caller.f_back

    sys.setprofile(look)
    try:
        acquire_lock(semaphore, backend="memory")
    finally:
        sys.setprofile(None)
    return found


def test_the_way_to_the_store_is_short_and_as_described() -> None:
    """The page lists the functions that acquire_lock() passes on the memory store."""
    passed = calls_to_the_store("1234collectPayment")
    assert release_lock("1234collectPayment", backend="memory")
    assert passed == re.findall(r"^\d+\. `([\w.]+)` \(`([\w/.]+)`\)$", TEXT, re.MULTILINE)
    assert 0 < len(passed) <= MOST_CALLS


def test_files_and_rooms_that_are_named_exist() -> None:
    """A page that points to a file that was moved sends its reader away."""
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", TEXT))
    names = {str(each.relative_to(PACKAGE)) for each in PACKAGE.rglob("*.py")}
    names |= {each.name for each in PACKAGE.rglob("*.py")}
    names |= {f"{each.relative_to(PACKAGE)}/" for each in PACKAGE.rglob("*") if each.is_dir()}
    names |= {f"{each.relative_to(ROOT)}/" for each in (ROOT / "tests").rglob("*") if each.is_dir()}
    assert named
    assert named - names - {"tests/"} == set()


def test_floors_are_those_that_the_linter_checks() -> None:
    """In the same order."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [layers] = [
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["id"] == "floors"
    ]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", TEXT, re.MULTILINE)
    shown = [set(re.findall(r"\w+", row)) for row in rows]
    assert shown[: len(layers)] == [set(re.findall(r"\w+", layer)) for layer in layers]


def test_the_page_is_short() -> None:
    """It must be readable in ten minutes."""
    assert len(TEXT.splitlines()) <= MOST_LINES
