"""Fixtures for tests of the lock server's backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.backends.server import ServerBackend
from tests.support.concurrency import until
from tests.support.lock_servers import is_unused, locks_of, note_places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.backends.server import ServerBackend
    from tests.support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server


@pytest.fixture
def lock_server_store(spare_lock_server: Server) -> Iterator[ServerBackend]:
    """Use the spare lock server; at the end, nobody may hold a lock or wait."""
    with locks_of(spare_lock_server) as running:
        yield running
        until(lambda: is_unused(running))


@pytest.fixture
def patient_lock_server_store(patient_lock_server: Server) -> Iterator[ServerBackend]:
    """Use a lock server where offers don't expire; at the end, nobody may hold a lock or wait."""
    with locks_of(patient_lock_server) as running:
        yield running
        until(lambda: is_unused(running))


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the places in queues that their waiters know of. See note_places()."""
    return note_places(monkeypatch)


@pytest.fixture
def lock_server(servers: dict[str, Server]) -> Server:
    """Return the server that runs for all tests."""
    return servers["lock_server"]


@pytest.fixture
def tls_lock_server(servers: dict[str, Server]) -> Server:
    """Return the server that speaks TLS."""
    return servers["lock_server_tls"]
