"""The judge finds each mistake of a store, in a short run of real processes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.faults.checker import Fault
from tests.faults.missing_servers import skip_if_missing
from tests.faults.mutant_runs import SMALL, runs, shows
from tests.faults.stores.postgresql import PostgreSQL
from tests.faults.stores.sqlite import SQLite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.environment import Environment

pytestmark = pytest.mark.once

ONE_LOCK = replace(SMALL, seconds=6, workers=3, actors=3, semaphores=1, late=0.5)
"""That of a guarded register."""
LONG_LEASES = replace(SMALL, seconds=6, semaphores=4, ttls=(0.2, 0.2, 6.0))
"""Some outlast the time in which the judge expects that a free lock is granted."""
WAITERS = replace(SMALL, seconds=6, actors=3)


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Environment]:
    """Return a prepared file."""
    with SQLite() as environment:
        yield environment


@pytest.fixture(scope="module")
def postgresql(request: pytest.FixtureRequest) -> Iterator[Environment]:
    """Run a server for all mutants."""
    skip_if_missing(request, "postgresql")
    with PostgreSQL() as environment:
        yield environment


def test_token_that_does_not_rise(sqlite: Environment, tmp_path: Path) -> None:
    """A constant token."""
    assert shows(sqlite, "constant_token", SMALL, tmp_path, Fault.TOKEN_ORDER)


def test_release_by_another_owner(sqlite: Environment, tmp_path: Path) -> None:
    """A release that compares no owner."""
    mutant = "release_without_owner_check"
    assert shows(sqlite, mutant, SMALL, tmp_path, Fault.OWN_RELEASE)


def test_clock_of_the_client(sqlite: Environment, tmp_path: Path) -> None:
    """Two workers, whose clocks differ by an hour."""
    assert shows(sqlite, "client_clock", SMALL, tmp_path, Fault.OVERLAP)


def test_unguarded_commit(postgresql: Environment, tmp_path: Path) -> None:
    """The pause between reading and writing outlasts some leases."""
    assert shows(postgresql, "no_commit_guard", ONE_LOCK, tmp_path, Fault.LOST_UPDATE)


def test_release_before_the_commit(postgresql: Environment, tmp_path: Path) -> None:
    """The next holder reads what is not committed yet."""
    assert shows(postgresql, "release_before_commit", ONE_LOCK, tmp_path, Fault.LOST_UPDATE)


def test_retry_as_another_owner(sqlite: Environment, tmp_path: Path) -> None:
    """The grant whose reply was lost keeps all out, and nobody knows of it."""
    assert shows(sqlite, "retry_as_new_owner", LONG_LEASES, tmp_path, Fault.REFUSED_FREE)


def test_offer_that_is_not_withdrawn(postgresql: Environment, tmp_path: Path) -> None:
    """Waiters whose timeouts end when they are offered the lock."""
    assert shows(postgresql, "offer_not_withdrawn", WAITERS, tmp_path, Fault.REFUSED_FREE)


def test_no_mistake(sqlite: Environment, postgresql: Environment, tmp_path: Path) -> None:
    """The same runs show nothing where replies are lost, or offers last, but nothing is wrong."""
    for name, environment, mutant, scale in (
        ("replies", sqlite, "lost_replies", LONG_LEASES),
        ("offers", postgresql, "lasting_offers", WAITERS),
    ):
        [result] = runs(environment, mutant, scale, tmp_path / name, tries=1)
        assert result.violations == []
