"""Cleanup release: of leases that a request has not released when it ends."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from django.core.signals import request_finished, request_started
from django.test import Client

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
from django_distlock.leases.registry import current_registry
from tests.support.concurrency import elsewhere
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire
from tests.support.leases import internals
from tests.support.leaving_views import (
    LEFT,
    about_leases,
    let_view,
    names,
)

if TYPE_CHECKING:
    from django_distlock.records import Released
    from tests.support.scripted_store import ScriptedBackend

pytestmark = [
    committed,
    pytest.mark.urls("tests.support.leaving_views"),
    pytest.mark.usefixtures("no_middleware"),
]


@on_each_database
def test_request_leaves_no_lock_behind(alias: str, client: Client) -> None:
    """A warning names the lock, so that it can be released in the view."""
    let_view(lambda: acquire(alias))
    for _ in range(2):
        with pytest.warns(ResourceWarning, match=LEFT) as caught:
            client.get("/leaving/")
        assert len(about_leases(caught)) == 1
        assert names(alias) == []
        assert not current_registry().leases()


@on_each_database
def test_lease_from_before_the_request_is_kept(alias: str, client: Client) -> None:
    """It isn't the request's lease."""
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
    """Whether by name, by lease, or at the end of a block."""

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
    """As after any other request."""

    def fail() -> None:
        acquire("default")
        raise ZeroDivisionError

    let_view(fail)
    with pytest.warns(ResourceWarning, match=LEFT), pytest.raises(ZeroDivisionError):
        client.get("/leaving/")
    assert scripted.owner == ""


@on_each_database
def test_reentered_lease_is_released_as_often(alias: str, client: Client) -> None:
    """It is released as often as it was entered, with one warning."""
    let_view(lambda: [acquire(alias, reentrant=True) for _ in range(3)])
    with pytest.warns(ResourceWarning, match=LEFT) as caught:
        client.get("/leaving/")
    assert len(about_leases(caught)) == 1
    assert names(alias) == []


@on_each_database
def test_streamed_response_holds_until_it_is_closed(alias: str, client: Client) -> None:
    """Closing the response ends the request."""
    let_view(lambda: acquire(alias))
    response: Any = client.get("/streaming/")
    assert next(response.streaming_content) == b"one"
    assert names(alias) == ["1234collectPayment"]
    with pytest.warns(ResourceWarning, match=LEFT):
        assert list(response.streaming_content) == [b"two"]
    assert names(alias) == []


@on_each_database
def test_several_are_released_though_one_release_fails(
    alias: str,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The failure is logged, and that lease is no longer renewed."""
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
    assert "'report' could not be released" in caplog.text
    assert internals(leases[0]) not in background(alias).renewals
    monkeypatch.undo()
    assert leases[0].release()


def test_warning_that_is_an_error_keeps_no_lock(scripted: ScriptedBackend) -> None:
    """All leases are released before the error is raised."""
    cleanup.start()
    acquire("default")
    with pytest.raises(ResourceWarning, match=LEFT):
        cleanup.finish()
    assert scripted.owner == ""


def test_event_loop_in_a_request_leaves_no_lock_behind(
    scripted: ScriptedBackend, client: Client
) -> None:
    """Neither do its tasks that have ended."""

    async def work() -> None:
        await asyncio.create_task(aacquire_lock("1234collectPayment"))

    let_view(lambda: asyncio.run(work()))
    with pytest.warns(ResourceWarning, match=LEFT):
        client.get("/leaving/")
    assert scripted.owner == ""


@on_each_database
def test_request_inside_a_request_ends_for_itself(alias: str, client: Client) -> None:
    """The outer request keeps the leases that it acquired before and after it."""
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
    """As after a request that began in another thread."""
    lease = acquire("default")
    request_finished.send(sender=object)
    assert lease.held
    assert lease.release()


def test_request_without_an_end_does_not_affect_the_next(
    scripted: ScriptedBackend, client: Client
) -> None:
    """The next request ends for itself."""
    request_started.send(sender=object, environ={})
    let_view(lambda: acquire("default"))
    with pytest.warns(ResourceWarning, match=LEFT):
        client.get("/leaving/")
    assert scripted.owner == ""
    current_registry().scopes.clear()


@on_each_database
def test_request_in_another_thread_ends_for_itself(alias: str) -> None:
    """This thread's leases are not released."""
    lease = acquire(alias)
    let_view(lambda: acquire(alias, "the request's"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        elsewhere(lambda: Client().get("/leaving/"))
    assert len(about_leases(caught)) == 1
    assert names(alias) == ["1234collectPayment"]
    assert lease.release()
