"""Fixtures for what is particular to Memcached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import caches

from django_distlock import clocks
from django_distlock.backends import memcached_clients
from tests.support.memcached_stores import ask, leading_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest, settings: Any) -> Iterator[None]:
    """Empty the servers that this test needs, and close its connections."""
    yield
    needed = {name for marker in request.node.iter_markers("needs") for name in marker.args}
    for alias in needed & {*settings.CACHES}:
        assert ask(alias, "flush_all") == ["OK"]
    caches.close_all()
    memcached_clients.close_idle()


@pytest.fixture
def spare_memcached(memcached_server: Server, alias: str) -> Iterator[Server]:
    """Use an empty server that the test may pause, kill and start again."""
    with leading_to(memcached_server.port, alias):
        assert ask(alias, "flush_all") == ["OK"]
        yield memcached_server


@pytest.fixture
def stores_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the clock of leases and stores, which the test moves.

    It begins about now, since the renewing thread runs before and after the test.
    """
    now = [float(round(clocks.monotonic()))]
    monkeypatch.setattr(clocks, "monotonic", lambda: now[0])
    return now
