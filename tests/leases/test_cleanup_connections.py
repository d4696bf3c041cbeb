"""Database connections after the cleanup of a request or task."""

from __future__ import annotations

import pytest
from django.core.signals import request_finished, request_started
from django.db import connections

from django_distlock.leases.cleanup import finish, start
from tests.support.concurrency import elsewhere
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, free_for_others

pytestmark = committed


def opened() -> list[str]:
    """Return the aliases to which this thread is connected."""
    found = connections.all(initialized_only=True)
    return [each.alias for each in found if each.connection is not None]


@on_each_database
def test_request_is_left_without_the_connections_that_its_cleanup_opened(alias: str) -> None:
    """Django has closed the request's connections by then."""

    def serve() -> list[str]:
        request_started.send(sender=None, environ={})
        acquire(alias)
        with pytest.warns(ResourceWarning, match="was not released by"):
            request_finished.send(sender=None)
        return opened()

    assert elsewhere(serve) == []
    assert free_for_others(alias)


@on_each_database
def test_task_keeps_the_connections_that_it_had(alias: str) -> None:
    """The caller, such as a request, may still use them."""

    def work() -> list[str]:
        connections[alias].ensure_connection()
        start()
        acquire(alias)
        with pytest.warns(ResourceWarning, match="was not released by"):
            finish()
        return opened()

    assert elsewhere(work) == [alias]
    assert free_for_others(alias)
