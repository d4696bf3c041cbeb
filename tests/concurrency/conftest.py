"""Fixtures for the tests of async code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import (
    lock_backends,
)
from django_distlock.concurrency import executors

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def lock_threads() -> Iterator[None]:
    """Give this test its own threads for locks."""
    executors.executors.clear()
    yield
    while executors.executors:
        _, executor = executors.executors.popitem()
        executor.shutdown()


@pytest.fixture
def asking_owners(alias: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the owners that ask the store for a lock."""
    store = type(lock_backends[alias])
    asked: list[str] = []

    def note(backend: Any, semaphore: str, owner: str, *arguments: Any) -> Any:
        asked.append(owner)
        return acquire_from(backend, semaphore, owner, *arguments)

    acquire_from = store.acquire
    monkeypatch.setattr(store, "acquire", note)
    return asked
