"""The promise holds in every state of the model."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT

from .premises import CHECKS
from .spin import search

PAGE = (ROOT / "docs" / "explanation" / "model.md").read_text("utf-8")

pytestmark = [pytest.mark.needs("spin"), pytest.mark.once]


@pytest.mark.parametrize("name", CHECKS)
def test_promise_holds_in_every_state(name: str) -> None:
    """And no step of the model is one that never happens."""
    found = search(*CHECKS[name])
    assert found.violated == ""
    assert found.unreached == []
    assert found.megabytes < 500
    assert f"| {name} | {found.states:,} | {found.transitions:,} |" in PAGE
