"""Relative links in documents lead to files and headings that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.documentation import anchors, prose
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

OTHERS = (
    "README.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
)
PAGES = sorted([*(ROOT / name for name in OTHERS), *ROOT.glob("docs/**/*.md")])


def links(text: str) -> list[str]:
    """Return the targets of links and images in a page without code."""
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`\n]*`", "", text))


def broken(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    found = []
    for link in links(prose(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if link.startswith(("https://", "http://")):
            continue
        if not target.exists() or (anchor and anchor not in anchors(prose(target))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    """A reader who follows one reaches the section that it names."""
    assert broken(page) == []


def test_anchors_are_those_that_github_makes() -> None:
    """Lower case, with dashes for spaces, and without punctuation; a second one is numbered."""
    text = "# What it can't do\n## `max_hold`, [linked](x.md)\n## To add …\n## Same\n## Same\n"
    expected = {"what-it-cant-do", "max_hold-linked", "to-add-", "same", "same-1"}
    assert anchors(text) == expected
