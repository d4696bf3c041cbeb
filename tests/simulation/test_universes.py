"""Universes keep the promise, show mistakes, and can be seen again."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.simulation.campaign import run_universes
from tests.simulation.installation import installed
from tests.simulation.mutants import MUTANTS
from tests.simulation.universe import Universe
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.installation import ErrorLog

pytestmark = pytest.mark.once


@pytest.fixture
def errors() -> Iterator[ErrorLog]:
    """Let universes run; return what the package logs as an error meanwhile."""
    with installed() as log:
        yield log


def test_promise_is_kept_in_some_universes() -> None:
    """`python -m tests.simulation` runs more of them."""
    summary = run_universes(range(200))
    assert summary.problems == {}
    assert summary.universes == 200
    assert summary.grants > 500
    assert summary.messages > 10_000


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mistake_is_seen(mutant: str) -> None:
    """In one of 1,000 universes; `python -m tests.simulation --mutants` says in which first."""
    first = MUTANTS[mutant].first
    assert run_universes(range(first, first + 1_000), mutant, stop=True).problems


def test_seed_gives_the_same_universe_again(errors: ErrorLog) -> None:
    """Whatever ran before."""
    first = [Universe(seed).run().trace() for seed in range(30, 35)]
    again = [Universe(seed).run().trace() for seed in reversed(range(30, 35))]
    assert again == first[::-1]
    assert all(first)
    assert errors.lines == []


def test_other_seed_gives_another_universe(errors: ErrorLog) -> None:
    """Everything in it depends on the seed."""
    assert Universe(30).run().digest() != Universe(31).run().digest()
    assert errors.lines == []


def test_seed_gives_the_same_universe_in_any_process() -> None:
    """Texts have another order in the sets of each process: nothing may depend on that."""
    command = [sys.executable, "-m", "tests.simulation", "--show", "105"]
    traces = [
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert b"The server starts." in traces[0]
