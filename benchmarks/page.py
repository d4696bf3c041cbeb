"""Fill the pages of docs/explanation/ with the figures of a run, and draw its plots.

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
PAGES = (
    DIRECTORY / "benchmarks.md",
    DIRECTORY / "fairness.md",
    DIRECTORY / "redis-without-a-token.md",
    ROOT / "README.md",
)
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
    found = {sheet.name: sheet for sheet in (*sheets(run), pauses, of_redis(pauses), about(run))}
    found["fairness"] = fairness(found["contention, 32 processes"])
    return {name: as_markdown(sheet) for name, sheet in found.items()}


def fairness(contention: Sheet) -> Sheet:
    """Return how many grants there were, and how evenly they were spread."""
    rows = [[row[0], row[1], row[-1]] for row in contention.rows]
    headings = ["", contention.headings[1], contention.headings[-1]]
    return Sheet("fairness", contention.title, headings, rows)


def of_redis(pauses: Sheet) -> Sheet:
    """Return the rows of locks in Redis, with the columns that count updates."""
    columns = slice(1 + pauses.headings.index("refused"))
    rows = [row[columns] for row in pauses.rows if ", Redis" in row[0]]
    return Sheet("pauses, Redis", pauses.title, pauses.headings[columns], rows)


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
