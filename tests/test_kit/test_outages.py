"""store_down(): a store that can't be reached."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from django.test import TestCase

from django_distlock import (
    InvalidLockBackend,
    Lease,
    LockBackendUnavailable,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    health,
    lock_backends,
)
from django_distlock.backends.base import AsyncStore, BaseLockBackend, QueueingStore
from django_distlock.backends.operations import ListingStore, PausingStore
from django_distlock.backends.server import ServerBackend
from django_distlock.test import held_elsewhere, override_locks, store_down
from django_distlock.test.outages import CALLS
from tests.app.models import Counter
from tests.support.admin_pages import LIST, log_in, text_of
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.holders import acquire, free_for_others, held_in, renew_now
from tests.support.kit_stores import on_each_store
from tests.support.leases import internals
from tests.support.visits import visit

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

pytestmark = pytest.mark.once

LOCK = "1234collectPayment"
DOWN = r"DISTLOCK\['\w+'\]: down, by store_down\(\)"
ASK_NOTHING = {
    *("caller", "can_renew", "joins_transaction", "keeps_open", "queues_all", "close", "clear"),
    *("check", "check_database", "check_deployment", "new_deadline", "time_budget"),
    *("events_using", "server", "send_force_released", "statements", "supports_pausing"),
    *("validate_ttl", "hosts", "place", "guard_by_renewal"),
}
"""Public names of stores that ask none, or not for locks, or by another one of these calls."""


@committed
@on_each_store
def test_each_call_fails_in_every_thread_and_afterwards_leases_go_on(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Other aliases are untouched."""
    lease = acquire(store)
    calls: list[Callable[[], object]] = [
        lambda: acquire_lock("another", backend=store, timeout=5),
        lambda: elsewhere(lambda: acquire_lock("another", backend=store)),
        lambda: run(aacquire("another", backend=store)),
        lease.renew,
    ]
    with store_down(store):
        for ask in calls:
            with pytest.raises(LockBackendUnavailable, match=DOWN):
                ask()
        if isinstance(lock_backends[store], ListingStore):
            with pytest.raises(LockBackendUnavailable, match=DOWN):
                held_in(store)
        assert health.check(store).status == "down"
        renew_now(lease)
        assert lease.held
        assert acquire("minimal").release()
    assert "could not be renewed" in caplog.text
    lease.renew()
    assert not free_for_others(store)
    assert lease.release()
    assert free_for_others(store)


async def aacquire(*args: Any, **kwargs: Any) -> Lease | None:
    return await aacquire_lock(*args, **kwargs)


@committed
@on_each_store
def test_request_whose_reply_gets_lost_is_carried_out(store: str) -> None:
    """What was granted is released if nobody gets to know of it: that request arrives, too."""
    with store_down(store, reply_lost=True):
        with pytest.raises(LockBackendUnavailable) as lost:
            acquire(store)
        assert lost.value.reply_lost
        with pytest.raises(LockBackendUnavailable):
            run(aacquire(LOCK, backend=store))
    assert free_for_others(store)
    lease = acquire(store)
    with store_down(store, reply_lost=True), pytest.raises(LockBackendUnavailable):
        lease.release()
    assert free_for_others(store)


@committed
@pytest.mark.parametrize(("store", "kept"), [("memory", True), ("default", False)])
def test_commit_while_the_store_is_down(store: str, kept: bool) -> None:
    """Nobody else gets the lock before the ttl has passed; a database can't commit anyway."""
    with suppress(LockBackendUnavailable), distributed_lock(LOCK, backend=store) as lease:
        internals(lease).forget_confirmation()
        with store_down(store), transaction.atomic():
            Counter.objects.create()
    assert Counter.objects.exists() is kept
    assert free_for_others(store)


def test_every_call_of_a_store_is_known() -> None:
    """A new one must be added, to one list or the other."""
    for kind in (BaseLockBackend, AsyncStore, QueueingStore, ListingStore, PausingStore):
        check_names(kind)
    for alias in ("default", "memory"):
        check_names(type(lock_backends[alias]))
    check_names(ServerBackend)


def check_names(kind: type) -> None:
    public = {name for name in dir(kind) if not name.startswith("_")}
    methods = {name for name in public if callable(getattr(kind, name))}
    assert methods <= {*CALLS, *ASK_NOTHING}


def test_unknown_alias_is_refused() -> None:
    """It would be down, and nobody would notice."""
    with pytest.raises(InvalidLockBackend, match="not configured"):
        store_down("defualt").__enter__()


@pytest.mark.usefixtures("in_memory")
def test_other_forms_and_other_stores_of_its_class() -> None:
    """A decorator of sync and async functions, and blocks inside each other."""

    @store_down("default")
    def unavailable() -> None:
        with pytest.raises(LockBackendUnavailable):
            acquire_lock(LOCK)
        assert acquire("other").release()

    @store_down("default")
    async def aunavailable() -> None:
        with pytest.raises(LockBackendUnavailable):
            await aacquire_lock(LOCK)

    for _ in range(2):
        unavailable()
        run(aunavailable())
    with store_down("other"), store_down("default"), store_down("default"):
        with pytest.raises(LockBackendUnavailable):
            acquire("other")
    with store_down("default"), override_locks(), pytest.raises(LockBackendUnavailable):
        acquire("default")
    assert acquire("default").release()
    assert acquire("other").release()


@pytest.mark.usefixtures("in_memory")
def test_outage_during_a_wait() -> None:
    """It goes on afterwards, if the waiter does not ask meanwhile."""

    async def main() -> None:
        lease = await aacquire_lock(LOCK)
        assert lease is not None
        waiting = asyncio.create_task(aacquire(LOCK, timeout=60))
        await asyncio.sleep(0)
        async with store_down():
            with pytest.raises(LockBackendUnavailable):
                await lease.arelease()
        assert await lease.arelease()
        later = await waiting
        assert later is not None
        assert await later.arelease()

    run(main())


@override_locks()
class Views(TestCase):
    def test_view_answers_503_and_is_not_called(self) -> None:
        @distributed_lock(LOCK)
        def view(request: HttpRequest) -> HttpResponse:
            raise NotImplementedError

        with store_down():
            self.assertEqual(visit(view).status_code, 503)

    @held_elsewhere(LOCK)
    @store_down()
    def test_admin_says_that_it_is_unreachable(self) -> None:
        page = text_of(log_in("view_lock").get(LIST).content.decode())
        self.assertIn("unreachable", page)
        self.assertNotIn(LOCK, page)
