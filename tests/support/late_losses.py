"""Locks that are force-released when their store was last asked long ago."""

from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from django_distlock import Lease, LockBackendUnavailable, distributed_lock
from tests.app.models import Counter

DOWN = LockBackendUnavailable("no route")
FORCED = "its store no longer has it"

once = pytest.mark.once
REMOTE = [
    pytest.param("redis", marks=[pytest.mark.needs("redis"), once]),
    pytest.param("lock_server", marks=[pytest.mark.needs("lock_server"), once]),
]
"""The same code asks them, whatever the version of Django."""
on_each_store = pytest.mark.parametrize("store", ["memory", *REMOTE])
on_each_data = pytest.mark.parametrize(
    "using",
    [
        pytest.param("default", id="sqlite"),
        pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
    ],
)

LoseLate = Callable[[], Lease]
"""Takes the last lease's lock away, and returns the lease."""


def charging(store: str, using: str, lose_late: LoseLate) -> Callable[..., Any]:
    """Return a locked view that writes, and whose lock is force-released before it answers."""

    @distributed_lock("1234collectPayment", backend=store, http=True)
    def charge(request: HttpRequest) -> HttpResponse:
        Counter.objects.using(using).create(value=1)
        lose_late()
        return HttpResponse("charged")

    return charge
