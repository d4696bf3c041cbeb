"""Fixtures for the tests of the admin's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.admin_pages import BOTH, log_in, stopped_clock
from tests.support.shown_stores import Shown, shown_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client


@pytest.fixture
def locks_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Stop the clock of the database that the test is parametrised with, else the default one's."""
    alias = getattr(request, "param", "default")
    with stopped_clock(alias):
        yield alias


@pytest.fixture
def shown() -> Iterator[Shown]:
    """Make DISTLOCK a store whose locks the test says."""
    with shown_store() as store:
        yield store


@pytest.fixture
def viewer() -> Client:
    """Log in as a user whose only permission is to view locks."""
    return log_in("view_lock")


@pytest.fixture
def operator() -> Client:
    """Log in as a user who may force-release locks, too."""
    return log_in(*BOTH)
