"""The pages of docs/explanation/ have the figures of the run that is stored beside them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from benchmarks.page import BLOCK, DIRECTORY, FIGURES, PAGES, filled, markdown
from benchmarks.report.figures import Figure, Run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_have_the_figures_of_the_run(page: Path) -> None:
    """If this fails, run: tox run -e benchmark -- page."""
    text = page.read_text("utf-8")
    assert filled(text, markdown()) == text


def test_every_table_and_plot_is_on_a_page() -> None:
    """A figure that was measured, but isn't shown, is missed by nobody."""
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert {name for _, name, _ in BLOCK.findall(text)} == set(markdown())
    plots = {path.name for path in DIRECTORY.glob("*.svg")}
    assert plots
    assert plots <= set(re.findall(r"\]\((\w+\.svg)\)", text))


def test_ratios_are_taken_within_a_round() -> None:
    """A busy moment hits both, and leaves their ratio alone."""
    mine = Figure("pair", "Redis", "ours", "sync", "µs", [10, 20, 1000])
    other = Figure("pair", "Redis", "theirs", "sync", "µs", [5, 10, 500])
    assert mine.over(other) == (2, 2, 2)


def test_run_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """The stored one, too."""
    run = Run.load(FIGURES)
    run.save(tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json") == run
