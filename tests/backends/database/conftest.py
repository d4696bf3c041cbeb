"""Fixtures for the tests of the database backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.backends.database import (
    DatabaseBackend,
    listening,
    places,
    polled_places,
    queue,
)
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.conf import lock_backends
from tests.support.polled_waiters import MARIADB, MYSQL, SQLITE
from tests.support.postgresql_waiters import SOON, let_offers_last

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def store_timeout(settings: Any) -> Iterator[Callable[[str, float], None]]:
    """Return a function that sets the store_timeout of a store's database, in seconds."""
    yield lambda alias, seconds: set_store_timeout(settings, alias, seconds)
    own.close_own_connections()  # some drivers take the time limit when they connect


def set_store_timeout(settings: Any, alias: str, seconds: float) -> None:
    """Change the option; the new stores reuse the open connections."""
    entry = settings.DISTLOCK[alias]
    options = entry["OPTIONS"] | {"store_timeout": seconds}
    settings.DISTLOCK = settings.DISTLOCK | {alias: entry | {"OPTIONS": options}}


@pytest.fixture
def fresh_listeners(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin and end without a listening connection and without known waiters."""
    monkeypatch.setattr(listening, "PROBING", SOON)
    listening.close_listeners()
    monkeypatch.setattr("django_distlock.backends.listening.listeners", {})
    recent_handovers.clear()
    yield
    listening.close_listeners()
    left = dict(places.places)
    places.places.clear()  # one failure shouldn't become the failure of all tests
    assert not left


@pytest.fixture
def only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep waiters from polling: they have to be woken."""
    for name in ("FIRST_RETRY_ALONE", "FIRST_RETRY", "RETRY", "POLL_INTERVAL"):
        monkeypatch.setattr(places, name, 600.0)


@pytest.fixture
def long_offers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep offers from expiring, however slow this machine is."""
    let_offers_last(monkeypatch.setattr)
    own.close_own_connections()  # which have the statements
    yield
    own.close_own_connections()


@pytest.fixture
def listened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the sessions on which this process listens, one after the other."""
    sessions: list[int] = []
    listen = PostgreSQLStatements.listen

    def note(statements: PostgreSQLStatements, process: int) -> int:
        sessions.append(listen(statements, process))
        return sessions[-1]

    monkeypatch.setattr(PostgreSQLStatements, "listen", note)
    return sessions


@pytest.fixture(params=[MARIADB, MYSQL, SQLITE])
def store(request: pytest.FixtureRequest) -> Iterator[DatabaseBackend]:
    """Return a store with such a queue; at the end nobody may have a place."""
    found = lock_backends[request.param]
    assert isinstance(found, DatabaseBackend)
    yield found
    left, lasting = dict(places.places), dict(polled_places.granted_places)
    places.places.clear()
    polled_places.granted_places.clear()
    assert not left
    assert not lasting


@pytest.fixture
def long_lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have waiters count as alive that have not been seen for a while."""
    monkeypatch.setattr(queue, "ALIVE", 60_000_000)
    own.close_own_connections()  # which have the statements
    yield
    own.close_own_connections()
