"""Fixtures for the tests of the admin's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.admin_pages import locks_on, log_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client


@pytest.fixture
def locks_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Keep locks in the database that the test is parametrised with, else in the default one."""
    alias = getattr(request, "param", "default")
    with locks_on(alias):
        yield alias


@pytest.fixture
def viewer() -> Client:
    """Log in as a user whose only permission is to view locks."""
    return log_in("view_lock")
