"""What requests and tasks leave behind, and leases that nobody refers to any more."""

from __future__ import annotations

import asyncio
import gc
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import django
import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.db import connections, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    aacquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.concurrency.background import background
from django_distlock.leases import cleanup
from django_distlock.leases.registry import RequestRegistries, current_registry
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, take_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.http import HttpRequest

    from django_distlock.records import Released
    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend

pytestmark = [committed, pytest.mark.urls(__name__)]

LEFT = "The lease on '1234collectPayment' was left behind by a request or task, and ended with it"

views_work: list[Callable[[], object]] = []


def leaving(request: HttpRequest) -> HttpResponse:
    """Do what the test wants."""
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
    """Start a task that goes on when the request has ended, and one that ends before it does."""
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


@pytest.fixture(autouse=True)
def no_middleware() -> Iterator[None]:
    """Need none of the apps that the middleware does."""
    with override_settings(MIDDLEWARE=[]):
        yield


def let_view(do: Callable[[], object]) -> None:
    """Let the view do that."""
    views_work[:] = [do]


def about_leases(caught: Iterable[warnings.WarningMessage]) -> list[warnings.WarningMessage]:
    """Return the package's own warnings: others may be collected meanwhile."""
    return [warning for warning in caught if "The lease on" in str(warning.message)]


def names(alias: str) -> list[str]:
    """Return the semaphores that are held."""
    return [lock.semaphore for lock in lock_backends[alias].held()]


@on_each_database
def test_request_leaves_no_lock_behind(alias: str, client: Client) -> None:
    """It is told which one, that it may be released in the view."""
    let_view(lambda: acquire(alias))
    for _ in range(2):
        with pytest.warns(ResourceWarning, match=LEFT) as caught:
            client.get("/leaving/")
        assert len(about_leases(caught)) == 1
        assert names(alias) == []
        assert not current_registry().leases()


@on_each_database
def test_what_was_held_before_the_request_is_left_alone(alias: str, client: Client) -> None:
    """It isn't the request's."""
    lease = acquire(alias)
    let_view(lambda: acquire(alias, "the request's").release())
    client.get("/leaving/")
    assert lease.held
    assert names(alias) == ["1234collectPayment"]
    let_view(lambda: acquire(alias, reentrant=True).release())
    client.get("/leaving/")
    assert lease.release()
    assert names(alias) == []


def test_request_that_releases_is_not_warned_of(scripted: ScriptedBackend, client: Client) -> None:
    """By its name, its lease, or at the end of a block."""

    def tidy() -> None:
        acquire("default").release()
        acquire("default")
        release_lock("1234collectPayment")
        with distributed_lock("1234collectPayment"):
            pass

    let_view(tidy)
    client.get("/leaving/")
    assert scripted.owner == ""


def test_request_that_fails_leaves_no_lock_behind(
    scripted: ScriptedBackend, client: Client
) -> None:
    """As any other."""

    def fail() -> None:
        acquire("default")
        raise ZeroDivisionError

    let_view(fail)
    with pytest.warns(ResourceWarning, match=LEFT), pytest.raises(ZeroDivisionError):
        client.get("/leaving/")
    assert scripted.owner == ""


@on_each_database
def test_what_was_reentered_is_released_as_often(alias: str, client: Client) -> None:
    """It is left behind once."""
    let_view(lambda: [acquire(alias, reentrant=True) for _ in range(3)])
    with pytest.warns(ResourceWarning, match=LEFT) as caught:
        client.get("/leaving/")
    assert len(about_leases(caught)) == 1
    assert names(alias) == []


@on_each_database
def test_streamed_response_holds_until_it_is_closed(alias: str, client: Client) -> None:
    """That is the end of the request."""
    let_view(lambda: acquire(alias))
    response: Any = client.get("/streaming/")
    assert next(response.streaming_content) == b"one"
    assert names(alias) == ["1234collectPayment"]
    with pytest.warns(ResourceWarning, match=LEFT):
        assert list(response.streaming_content) == [b"two"]
    assert names(alias) == []


@on_each_database
def test_several_are_released_though_one_can_not_be(
    alias: str,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is logged, and it is renewed no more."""
    leases: list[Lease] = []
    store = type(lock_backends[alias])
    release = store.release

    def refuse_first(self: Any, lease: Any, keep: float = 0) -> Released:
        if lease.semaphore == "report":
            raise LockBackendUnavailable("down")
        return release(self, lease, keep)

    monkeypatch.setattr(store, "release", refuse_first)
    let_view(lambda: leases.extend(acquire(alias, name) for name in ("report", "import", "export")))
    with pytest.warns(ResourceWarning) as caught:
        client.get("/leaving/")
    assert len(about_leases(caught)) == 3
    assert names(alias) == ["report"]
    assert "'report', which was left behind, could not be released" in caplog.text
    assert leases[0] not in background(alias).renewals
    monkeypatch.undo()
    assert leases[0].release()


def test_warning_that_is_an_error_keeps_no_lock(scripted: ScriptedBackend) -> None:
    """All are released first."""
    cleanup.start_task()
    acquire("default")
    with pytest.raises(ResourceWarning, match=LEFT):
        cleanup.finish_task()
    assert scripted.owner == ""


@on_each_database
def test_request_inside_a_request_ends_for_itself(alias: str, client: Client) -> None:
    """What the outer one acquired before and after it is the outer one's."""
    outer: list[list[str]] = []

    def nest() -> None:
        acquire(alias, "before")
        let_view(lambda: acquire(alias))
        with pytest.warns(ResourceWarning, match=LEFT):
            Client().get("/leaving/")
        acquire(alias, "later")
        outer.append(names(alias))

    let_view(nest)
    with pytest.warns(ResourceWarning) as caught:
        client.get("/leaving/")
    assert outer == [["before", "later"]]
    assert len(about_leases(caught)) == 2
    assert names(alias) == []


def test_end_without_a_beginning_releases_nothing(scripted: ScriptedBackend) -> None:
    """As of a request that began in another thread."""
    lease = acquire("default")
    request_finished.send(sender=object)
    assert lease.held
    assert lease.release()


def test_beginning_without_an_end_is_of_no_consequence(
    scripted: ScriptedBackend, client: Client
) -> None:
    """The next request ends for itself."""
    request_started.send(sender=object, environ={})
    let_view(lambda: acquire("default"))
    with pytest.warns(ResourceWarning, match=LEFT):
        client.get("/leaving/")
    assert scripted.owner == ""
    current_registry().held_at_start.clear()


@on_each_database
def test_request_in_another_thread_ends_for_itself(alias: str) -> None:
    """What this one holds is none of its concern."""
    lease = acquire(alias)
    let_view(lambda: acquire(alias, "the request's"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        elsewhere(lambda: Client().get("/leaving/"))
    assert len(about_leases(caught)) == 1
    assert names(alias) == ["1234collectPayment"]
    assert lease.release()


# ASGI


async def get(url: str) -> list[Any]:
    """Have a request answered as a server would, and return what it is sent."""
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
    """It is run in a thread of its own, but the request is one task's."""
    let_view(lambda: acquire(alias))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sent = asyncio.run(get("/leaving/"))
        gc.collect()
    assert sent[0]["status"] == 200
    warned = [LEFT in str(each.message) for each in about_leases(caught)]
    assert (warned, names(alias)) == ([True], [])


def test_tasks_that_outlast_their_request_keep_what_they_have() -> None:
    """And threads. What ended before it did is released with it; nothing is kept for it then."""

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with pytest.warns(ResourceWarning, match="'left' was left behind"):
            await get("/starting/")
        assert await sync_to_async(names)("default") == ["a thread's", "mine"]
        await asyncio.to_thread(threads_lease.pop().release)
        await asyncio.to_thread(connections.close_all)
        gc.collect()
        requests = [each for each in gc.get_objects() if isinstance(each, RequestRegistries)]
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
    """As any other."""
    let_view(lambda: acquire(alias))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(ask(AsyncClient(), "/leaving/"))
        gc.collect()
    assert [LEFT in str(each.message) for each in about_leases(caught)] == [True]


async def ask(client: AsyncClient, url: str) -> None:
    """Have a request answered."""
    await client.get(url)


# Tasks


@on_each_database
def test_task_leaves_no_lock_behind(alias: str) -> None:
    """Nor does it take its caller's."""
    lease = acquire(alias, "caller's")
    let_view(lambda: acquire(alias))
    with override_settings(TASKS={"default": {"BACKEND": IMMEDIATE}}):
        with pytest.warns(ResourceWarning, match=LEFT):
            results = enqueue_task()
    assert [result.errors for result in results] == [[]] * len(results)
    assert names(alias) == ["caller's"]
    assert lease.release()


IMMEDIATE = "django.tasks.backends.immediate.ImmediateBackend"
tasks: Any = import_module("django.tasks") if find_spec("django.tasks") else None


def enqueue_task() -> list[Any]:
    """Run it, and return its result; where Django has no tasks, what its signals would call."""
    by_hand = (cleanup.start_task, run_task, cleanup.finish_task)
    return [tasks.task(run_task).enqueue()] if tasks else [call() for call in by_hand][:0]


def run_task() -> None:
    """Do what the test wants."""
    views_work[-1]()


# Nobody's leases


@on_each_database
def test_lease_that_nobody_refers_to_is_warned_of(alias: str) -> None:
    """It is not released, since what was done under it may not be done; nor is it renewed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        elsewhere(lambda: bool(acquire(alias)))
        gc.collect()
    [warning] = about_leases(caught)
    assert warning.category is ResourceWarning
    assert "The lease on '1234collectPayment' was never released. It ends in" in str(
        warning.message
    )
    assert names(alias) == ["1234collectPayment"]
    renewals = background(alias).renewals
    assert renewals.next_due() == math.inf
    assert len(renewals) == 0


@on_each_database
@pytest.mark.parametrize("ending", ["released", "lost", "expired", "deferred"])
def test_lease_that_has_ended_is_not_warned_of(
    alias: str, ending: str, moved_clock: MovedClock
) -> None:
    """Nobody misses it."""

    def end() -> None:
        with (
            transaction.atomic(using=alias) if ending == "deferred" else distributed_lock("report")
        ):
            lease = acquire(alias, renew=False)
            if ending in ("released", "deferred"):
                lease.release()
        if ending == "lost":
            take_away(lease)
            lease.mark_lost()
        if ending == "expired":
            moved_clock.expire(lease)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        elsewhere(end)
        gc.collect()
    assert about_leases(caught) == []
