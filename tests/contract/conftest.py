"""The stores that have queues, for tests that hold for all of them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from tests.support.concurrency import until
from tests.support.lock_servers import start_lock_server
from tests.support.redis_stores import lasting_offers
from tests.support.store_queues import QueuedLockServer, QueuedRedis, QueuedStore

if TYPE_CHECKING:
    from collections.abc import Iterator


KINDS = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("redis", "lock_server")]


@contextmanager
def queued_store(request: pytest.FixtureRequest, *, lasting: bool) -> Iterator[QueuedStore]:
    """Keep the locks in a store of this kind; at the end, nobody may hold a lock or wait."""
    with ExitStack() as stack:
        found: QueuedStore
        if request.param == "redis":
            found = QueuedRedis(request.getfixturevalue("redis_server"), lasting=lasting)
            stack.enter_context(lasting_offers() if lasting else nullcontext())
        elif lasting:
            found = QueuedLockServer(request.getfixturevalue("patient_lock_server"))
        else:
            found = QueuedLockServer(stack.enter_context(start_lock_server()))
        stack.enter_context(found.locks())
        yield found
        until(found.is_unused)


@pytest.fixture(params=KINDS)
def queued(request: pytest.FixtureRequest) -> Iterator[QueuedStore]:
    """Return a store whose offers don't expire during a test."""
    with queued_store(request, lasting=True) as found:
        yield found


@pytest.fixture
def woken_only(queued: QueuedStore, monkeypatch: pytest.MonkeyPatch) -> QueuedStore:
    """Return that store, with waiters that try only when woken or when the lock expires."""
    monkeypatch.setattr(queued.places, "SAFETY", 600)
    return queued


@pytest.fixture(params=KINDS)
def short_offers(request: pytest.FixtureRequest) -> Iterator[QueuedStore]:
    """Return a store whose offers expire as usual."""
    with queued_store(request, lasting=False) as found:
        yield found
