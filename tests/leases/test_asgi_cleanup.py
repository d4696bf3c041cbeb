"""Cleanup release at the end of a request that Django handles by ASGI."""

from __future__ import annotations

import asyncio
import gc
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.test import AsyncClient

from django_distlock.leases.registry import Registries
from tests.support.concurrency import run
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire
from tests.support.leaving_views import (
    LEFT,
    about_leases,
    going_on,
    let_view,
    names,
    threads_lease,
)

pytestmark = [
    committed,
    pytest.mark.urls("tests.support.leaving_views"),
    pytest.mark.usefixtures("no_middleware"),
]


async def get(url: str) -> list[Any]:
    """Answer a request as a server would, and return the messages that are sent."""
    sent = []
    asked = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            await asyncio.Event().wait()
        asked.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": url, "headers": [], "query_string": b""}
    await ASGIHandler()(scope, receive, send)
    return sent


@on_each_database
def test_asgi_request_of_a_sync_view_leaves_no_lock_behind(alias: str) -> None:
    """The view runs in its own thread, but the request is one task."""
    let_view(lambda: acquire(alias))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sent = asyncio.run(get("/leaving/"))
        gc.collect()
    assert sent[0]["status"] == 200
    warned = [LEFT in str(each.message) for each in about_leases(caught)]
    assert (warned, names(alias)) == ([True], [])


def test_asgi_request_leaves_no_lock_behind_that_it_acquired_several_crossings_away() -> None:
    """As an async view does in sync code below a sync middleware."""
    let_view(lambda: async_to_sync(sync_to_async(acquire))("default"))
    with pytest.warns(ResourceWarning, match="was not released by a request"):
        asyncio.run(get("/leaving/"))
    assert names("default") == []


def test_tasks_that_outlast_their_request_keep_their_leases() -> None:
    """Threads, too. Leases of tasks that ended before are released, and leave no entries."""

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with pytest.warns(ResourceWarning, match="'left' was not released by"):
            await get("/starting/")
        assert await sync_to_async(names)("default") == ["a thread's", "mine"]
        await asyncio.to_thread(threads_lease.pop().release)
        await asyncio.to_thread(connections.close_all)
        gc.collect()
        requests = [each for each in gc.get_objects() if type(each) is Registries]
        assert [(each.ended, len(each)) for each in requests] == [(True, 0)]
        task = going_on.pop()
        task.cancel()
        await asyncio.wait([task])

    run(main())


@pytest.mark.xfail(
    django.VERSION < (6, 1),
    reason="for this client, Django before 6.1 sends request_started in a child task",
    raises=AssertionError,
    strict=True,
)
@on_each_database
def test_request_of_the_async_client_leaves_no_lock_behind(alias: str) -> None:
    """As after any other request."""
    let_view(lambda: acquire(alias))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(ask(AsyncClient(), "/leaving/"))
        gc.collect()
    assert [LEFT in str(each.message) for each in about_leases(caught)] == [True]


async def ask(client: AsyncClient, url: str) -> None:
    """Answer a request."""
    await client.get(url)
