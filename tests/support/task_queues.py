"""What tasks of task queues do with locks, whichever queue it is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from django_distlock import acquire_lock, lock_backends
from tests.support.leaving_views import about_leases

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT = "was not released by a request or task"


def label_of(semaphore: str, alias: str = "memory") -> str:
    """Return the label of a lock that is held."""
    [held] = lock_backends[alias].held(semaphore)
    return held.label


def leave(semaphore: str) -> str:
    """Acquire a lock, leave it behind, and return its label."""
    assert acquire_lock(semaphore, backend="memory")
    return label_of(semaphore)


@contextmanager
def leaving_behind(number: int = 1) -> Iterator[None]:
    """Expect that so many locks are left behind, released, and warned of."""
    with pytest.warns(ResourceWarning, match=LEFT) as caught:
        yield
    assert len(about_leases(caught)) == number
    assert [*lock_backends["memory"].held()] == []
