"""Views that acquire locks and don't release them, and the warnings about that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from django_distlock import (
    Lease,
    aacquire_lock,
    distributed_lock,
    lock_backends,
)
from tests.support.holders import acquire

if TYPE_CHECKING:
    import warnings
    from collections.abc import Callable, Iterable, Iterator

    from django.http import HttpRequest


LEFT = "The lease on '1234collectPayment' was not released by a request or task, and ended with it"

views_work: list[Callable[[], object]] = []


def leaving(request: HttpRequest) -> HttpResponse:
    """Run the test's code."""
    views_work[-1]()
    return HttpResponse("left")


def streaming(request: HttpRequest) -> StreamingHttpResponse:
    """Hold a lock until the response is closed."""
    views_work[-1]()

    def stream() -> Iterator[str]:
        yield "one"
        yield "two"

    return StreamingHttpResponse(stream())


going_on: list[asyncio.Task[None]] = []
threads_lease: list[Lease] = []


async def starting(request: HttpRequest) -> HttpResponse:
    """Start a task that outlasts the request, and one that ends before it."""
    started = asyncio.Event()

    async def go_on() -> None:
        async with distributed_lock("mine"):
            started.set()
            await asyncio.Event().wait()

    going_on.append(asyncio.create_task(go_on()))
    await started.wait()
    await asyncio.gather(aacquire_lock("left"))
    threads_lease.append(await asyncio.to_thread(acquire, "default", "a thread's"))
    return HttpResponse("started")


urlpatterns = [
    path("leaving/", leaving),
    path("streaming/", streaming),
    path("starting/", starting),
]


def let_view(do: Callable[[], object]) -> None:
    """Make the view run this."""
    views_work[:] = [do]


def about_leases(caught: Iterable[warnings.WarningMessage]) -> list[warnings.WarningMessage]:
    """Return the package's own warnings: other objects may be collected at the same time."""
    return [warning for warning in caught if "The lease on" in str(warning.message)]


def names(alias: str) -> list[str]:
    """Return the semaphores that are held."""
    return [lock.semaphore for lock in lock_backends[alias].held()]
