"""The pages, and what code says, are in plain English, as far as a regular expression can tell."""

from __future__ import annotations

import pytest

pytest.importorskip("markdown_it")
pytestmark = pytest.mark.once

from tests.documentation.plain_english import complaints, persons  # noqa: E402
from tests.support.documentation import PAGES  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402


@pytest.mark.parametrize("name", [name for name in PAGES if "CODE_OF_CONDUCT" not in name])
def test_page_is_in_plain_english(name: str) -> None:
    """Short lines and paragraphs, headings like sentences, a noun where there is a person."""
    found = complaints(PAGES[name].read_text("utf-8"))
    assert found == [], "\n".join(["", *found])


@pytest.mark.parametrize(
    "text",
    [
        "Who gets the lock works.",
        "The log says who holds it.",
        "A client is never told who holds it.",
        "Those who wait get it.",
        "Whoever reads keeps others from writing.",
        "This lets a worker in.",
        "Such a lock is free.",
        "Only then is it released.",
        "A worker gives back its lock.",
        "## Lock A View",
        "one\ntwo\nthree\nfour\nfive",
        f"{'word ' * 20} word",
        "and\n".join(["word " * 12] * 4),
        "| a | b |\n|---|---|\n| Whoever | c |",
        ":::{note}\nThe secret of whoever holds it.\n:::",
    ],
)
def test_a_page_that_breaks_a_rule_is_found(text: str) -> None:
    """A rule that finds nothing holds nothing."""
    assert len(complaints(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "The worker that gets the lock does the job. Anyone who knows the secret can release it.",
        "A lock whose holder died ends by itself; `let` is a keyword, such as `who`.",
        "## Use Redis: a server, PostgreSQL or Django's cache",
        "```text\nWhoever waits\n```",
        "<!-- Whoever -->",
        "- [a link](https://example.org/such)\n- one\n  two\n  three\n  four\n- five",
    ],
)
def test_a_page_that_keeps_the_rules_is_not_complained_of(text: str) -> None:
    """Otherwise nobody would heed what is found."""
    assert complaints(text) == []


def test_code_names_persons_and_processes_by_a_noun() -> None:
    """In docstrings, comments and messages."""
    folders = ("django_distlock", "benchmarks", "example_project")
    files = [ROOT / "dev.py", *(file for each in folders for file in (ROOT / each).rglob("*.*"))]
    found = {
        str(file.relative_to(ROOT)): persons(file.read_text("utf-8"))
        for file in files
        if file.suffix in {".py", ".lua", ".js"}
    }
    assert {name: texts for name, texts in found.items() if texts} == {}
    assert persons('"""Who waits."""\n# Those\n# who wait, and whoever comes.') != []
