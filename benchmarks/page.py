"""Fill docs/explanation/benchmarks.md with the figures of a run, and draw its plots.

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`; so nobody types a figure.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report.figures import Run
from benchmarks.report.sheets import Sheet, sheets
from benchmarks.report.tables import as_markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
DIRECTORY = ROOT / "docs" / "explanation"
FIGURES, PAUSES = DIRECTORY / "benchmarks.json", DIRECTORY / "pauses.json"
PAGES = (DIRECTORY / "benchmarks.md", ROOT / "README.md")
BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Fill the pages, and draw the plots."""
    from benchmarks.report.plots import draw

    draw(Run.load(FIGURES), DIRECTORY)
    tables = markdown()
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), tables), "utf-8")


def markdown() -> dict[str, str]:
    """Return the tables by their name."""
    run = Run.load(FIGURES)
    pauses = Sheet(**json.loads(PAUSES.read_text("utf-8"))["sheet"])
    found = {sheet.name: as_markdown(sheet) for sheet in (*sheets(run), pauses)}
    return found | {"about": as_markdown(about(run))}


def about(run: Run) -> Sheet:
    """Lay out on what the figures were measured."""
    machine = run.about["machine"]
    size = f"{machine['cores']} cores, {machine['memory']} of memory, {machine['kernel']}"
    versions = ", ".join(f"{name} {number}" for name, number in run.about["versions"].items())
    rows = [
        ["command", f"`{run.about['command']}`, in {run.about['seconds'] / 60:.0f} minutes"],
        ["machine", size],
        ["versions", versions],
    ]
    return Sheet("about", "What was measured", ["", ""], rows)


def filled(text: str, tables: Mapping[str, str]) -> str:
    """Return a page with each table in its place."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n{found[3]}", text)


if __name__ == "__main__":
    main()
