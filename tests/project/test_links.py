"""Relative links in documents lead to files and headings that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.documentation import PAGES, anchors, prose

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


def links(text: str) -> list[str]:
    """Return the targets of links and images in a page without code, those in HTML too."""
    pattern = r"""\]\(([^()\s]+)\)|\bsrc(?:set)?="([^"]+)\""""
    return ["".join(each) for each in re.findall(pattern, re.sub(r"`[^`\n]*`", "", text))]


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


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_lead_somewhere(name: str) -> None:
    """A reader who follows one reaches the section that it names."""
    assert broken(PAGES[name]) == []


def test_anchors_are_those_that_github_makes() -> None:
    """Lower case, with dashes for spaces, and without punctuation; a second one is numbered."""
    text = "# What it can't do\n## `max_hold`, [linked](x.md)\n## To add …\n## Same\n## Same\n"
    expected = {"what-it-cant-do", "max_hold-linked", "to-add-", "same", "same-1"}
    assert anchors(text) == expected
