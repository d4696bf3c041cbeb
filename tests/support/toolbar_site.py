"""A site with django-debug-toolbar, whose views acquire locks in each way there is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from debug_toolbar.toolbar import debug_toolbar_urls
from django.db import transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views import View

from django_distlock import LockNotAcquired, aacquire_lock, distributed_lock
from django_distlock.integrations.debug_toolbar import current_panel
from tests.support.holders import acquire, take_away

if TYPE_CHECKING:
    from django.http import HttpRequest

HTML = "<!doctype html><html lang=en><title>Site</title><body><p>Done.</p></body></html>"
both_hold = asyncio.Barrier(2)
tasks_left: list[asyncio.Task[None]] = []


@distributed_lock("<customer_id>collectPayment")
def collect(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Hold four locks, of which the last may be refused."""
    with distributed_lock("stock:4711"), distributed_lock("ledger", backend="database"):
        pass
    with suppress(LockNotAcquired), distributed_lock(request.GET.get("last", "invoices:2026-11")):
        pass
    return HttpResponse(HTML)


class Collect(View):
    """Do nothing under a lock of a method."""

    @distributed_lock("<customer_id>collectPayment")
    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Answer."""
        return HttpResponse(HTML)


@distributed_lock("<customer_id>collectPayment")
def stream(request: HttpRequest, customer_id: str) -> StreamingHttpResponse:
    """Keep the lock until the response is sent."""
    return StreamingHttpResponse(iter([HTML]))


def loses(request: HttpRequest) -> HttpResponse:
    """Have one lock taken away, and keep another."""
    lost = acquire("default", "lost")
    take_away(lost)
    lost.release()
    acquire("default", "kept")
    return HttpResponse(HTML)


def rolls_back(request: HttpRequest) -> HttpResponse:
    """Acquire twice in a transaction, at whose end the lock is released."""
    with transaction.atomic():
        for _ in range(2):
            with distributed_lock("report", backend="database"):
                pass
        transaction.set_rollback(True)
    return HttpResponse(HTML)


async def awaits(request: HttpRequest) -> HttpResponse:
    """Acquire in the event loop, in a thread of the store, in sync code, in a thread, and later."""
    async with distributed_lock("in the event loop"):
        pass
    lease = await aacquire_lock("in a thread", backend="database")
    assert lease
    await lease.arelease()
    await sync_to_async(hold)("in sync code")
    await asyncio.to_thread(hold, "in another thread")
    tasks_left.append(asyncio.create_task(acquire_later()))
    return HttpResponse(HTML)


async def meet(request: HttpRequest, name: str) -> HttpResponse:
    """Hold a lock while the other request holds another one."""
    async with distributed_lock(name):
        await both_hold.wait()
    return HttpResponse(HTML)


async def acquire_later() -> None:
    """Acquire after the response, in the context of the request."""
    while not (panel := current_panel.get()) or not panel.is_complete:  # noqa: ASYNC110
        await asyncio.sleep(0)
    async with distributed_lock("after the response"):
        pass


def hold(semaphore: str) -> None:
    """Acquire and release."""
    with distributed_lock(semaphore):
        pass


urlpatterns: list[Any] = [
    path("collect/<customer_id>/", collect),
    path("class/<customer_id>/", Collect.as_view()),
    path("stream/<customer_id>/", stream),
    path("loses/", loses),
    path("rolls-back/", rolls_back),
    path("awaits/", awaits),
    path("meet/<name>/", meet),
    *debug_toolbar_urls(),
]
