"""Fixtures for the tests of the database backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.backends.database import connections as own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OF_SERVERS = {"postgresql", "mariadb", "mysql"}
"""The stores whose calls have a deadline: those with connections of their own."""


@pytest.fixture(autouse=True)
def long_store_timeout(settings: Any) -> None:
    """Give a database more time to answer than a busy machine takes."""
    for alias in OF_SERVERS & set(settings.DISTLOCK):
        set_store_timeout(settings, alias, 60)


@pytest.fixture
def store_timeout(settings: Any) -> Iterator[Callable[[str, float], None]]:
    """Return what gives a store's database so many seconds to answer."""
    yield lambda alias, seconds: set_store_timeout(settings, alias, seconds)
    own.close_own_connections()  # some drivers were told of the time as they connected


def set_store_timeout(settings: Any, alias: str, seconds: float) -> None:
    """Change the option; the new stores go on with the connections that are open."""
    entry = settings.DISTLOCK[alias]
    options = entry["OPTIONS"] | {"store_timeout": seconds}
    settings.DISTLOCK = settings.DISTLOCK | {alias: entry | {"OPTIONS": options}}
