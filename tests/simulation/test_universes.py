"""Universes keep the promise, and each can be seen again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulation.installation import installed
from tests.simulation.universe import Universe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.installation import ErrorLog

pytestmark = pytest.mark.once


@pytest.fixture
def errors() -> Iterator[ErrorLog]:
    """Let universes run; return what the package logs as an error meanwhile."""
    with installed() as log:
        yield log


def test_promise_is_kept_in_some_universes(errors: ErrorLog) -> None:
    """`python -m tests.simulation` runs more of them."""
    problems = {}
    for seed in range(200):
        result = Universe(seed).run()
        if result.problems:
            problems[seed] = result.problems
    assert problems == {}
    assert errors.lines == []


def test_seed_gives_the_same_universe_again(errors: ErrorLog) -> None:
    """Whatever ran before."""
    first = [Universe(seed).run().trace() for seed in range(30, 35)]
    again = [Universe(seed).run().trace() for seed in reversed(range(30, 35))]
    assert again == first[::-1]
    assert all(first)
