"""docs/reference/http.md has every answer of a locked view, with its text."""

from __future__ import annotations

import re

import pytest

from tests.support.documentation import DOCUMENTS, section
from tests.support.paths import ROOT

pytestmark = pytest.mark.once

PAGE = "reference/http.md"
TEXT = (DOCUMENTS / PAGE).read_text("utf-8")
CODE = (ROOT / "django_distlock/views/answers.py").read_text("utf-8")


def test_documented_answers_are_those_of_the_code() -> None:
    """By status and `error`."""
    documented = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert sorted(documented) == sorted(re.findall(r'Answer\((\d{3}), "(\w+)"', CODE))


def test_documented_texts_are_those_of_the_code() -> None:
    """In English, each on a page of another language as its catalogue says."""
    rows = re.findall(
        r"^\| `\w+`[^|]*\| ([A-Z][^|`]+\.) \|$", section(PAGE, "Format"), re.MULTILINE
    )
    assert sorted(rows) == sorted(re.findall(r'_\("([^"]+)"\)', CODE))
