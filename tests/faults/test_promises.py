"""The page about reliability has what promises.py waives, and nothing else."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.faults.promises import LIMITS
from tests.support.paths import ROOT

pytestmark = pytest.mark.once

PAGE = ROOT / "docs" / "explanation" / "reliability.md"
HEAD = "| fault | stores | excuses | seconds after it |"


def table() -> list[str]:
    """Return the rows of what is waived: as the page should have them."""
    stores: dict[tuple[str, str, float], list[str]] = defaultdict(list)
    for store, limits in LIMITS.items():
        for fault, limit in limits.items():
            excused = "; ".join(sorted(limit.breaks))
            stores[fault, excused, limit.after].append(store)
    rows = []
    for (fault, excused, after), its in sorted(stores.items()):
        names = ", ".join(f"`{store}`" for store in sorted(its))
        rows.append(f"| `{fault}` | {names} | {excused} | {after:g} |")
    return rows


def test_page_has_the_table() -> None:
    """Row by row. If it is outdated, the rows to paste are in the failure."""
    _, _, after = PAGE.read_text("utf-8").partition(f"{HEAD}\n|---|---|---|--:|\n")
    rows = after.partition("\n\n")[0].splitlines()
    assert rows == table(), "\n".join(table())
