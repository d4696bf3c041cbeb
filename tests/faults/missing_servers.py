"""The servers that runs of stores under faults need, and this machine lacks.

They have servers of their own: the mark `needs` would start another one.
"""

from __future__ import annotations

import pytest

from tests.support.plugin import SURROUNDINGS


def skip_if_missing(request: pytest.FixtureRequest, name: str) -> None:
    """Skip a test whose server can't run here; the run reports that it is not tested."""
    missing = request.config.stash[SURROUNDINGS].missing
    if name in missing:
        pytest.skip(f"{name}: {missing[name]}")
