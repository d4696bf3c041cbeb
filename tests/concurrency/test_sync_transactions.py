"""Transactions of the sync code that a task calls, or is called by."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction

from django_distlock import (
    LockError,
    LockLost,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
)
from django_distlock.concurrency import sync_transactions
from django_distlock.leases import release
from django_distlock.runtime import stack_of, sync_call
from tests.support.concurrency import run, until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import due_now, free_for_others, renewed_since, take_away
from tests.support.leases import internals
from tests.support.tasks import Stall, cancelled, get, is_free

if TYPE_CHECKING:
    from types import FrameType

    from django_distlock.leases.state import LeaseState

pytestmark = committed


@on_each_server
def test_release_waits_for_the_callers_transaction(alias: str) -> None:
    """Async code that is called inside atomic() is part of it."""

    async def work() -> None:
        async with distributed_lock("1234collectPayment", backend=alias):
            pass
        lease = await get(alias, "report")
        assert await lease.arelease() is True

    with transaction.atomic(using=alias):
        async_to_sync(work)()
        assert not free_for_others(alias)
    assert free_for_others(alias)


@on_each_server
def test_release_waits_for_a_transaction_that_a_task_keeps_open(alias: str) -> None:
    """There is no async atomic() yet, so code enters and leaves it in one thread by two calls."""

    async def main() -> None:
        block = transaction.atomic(using=alias)
        await sync_to_async(block.__enter__)()
        async with distributed_lock("1234collectPayment", backend=alias):
            pass
        assert not await is_free(alias)
        await sync_to_async(block.__exit__)(None, None, None)
        assert await is_free(alias)

    run(main())


@on_each_database
def test_commit_under_a_lost_lock_is_refused(alias: str) -> None:
    """Also if the lock is a task's, and the transaction one of sync code that it calls."""

    async def main() -> None:
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            await asyncio.to_thread(take_away, lease)
            internals(lease).mark_lost()
            await sync_to_async(write)()

    def write() -> None:
        with transaction.atomic(using=alias):
            pass

    with pytest.raises(LockLost, match="before the commit"):
        run(main())


@on_each_server
def test_autocommit_that_is_off_is_refused(alias: str) -> None:
    """By async code that is called with it, too."""
    transaction.set_autocommit(False, using=alias)
    try:
        with pytest.raises(LockError, match="Autocommit is off"):
            async_to_sync(aacquire_lock)("1234collectPayment", backend=alias)
    finally:
        transaction.rollback(using=alias)
        transaction.set_autocommit(True, using=alias)


@on_each_server
def test_transactions_of_others_do_not_hold_up_a_release(alias: str) -> None:
    """A task that waits for the lock in a transaction occupies the thread for sync code."""

    def wait_in_transaction() -> bool:
        with transaction.atomic(using=alias):
            waiting.set()
            lease = acquire_lock("1234collectPayment", backend=alias, timeout=60)
            return lease is not None and lease.release()

    waiting = threading.Event()

    async def main() -> None:
        lease = await get(alias)
        task = asyncio.create_task(sync_to_async(wait_in_transaction)())
        assert await asyncio.to_thread(waiting.wait, 60)
        assert await lease.arelease() is True
        assert await task is True

    run(main())


def write_in_child(alias: str) -> None:
    """Do as a sync view: a child task of its async code writes under a lock, in a transaction."""

    def write() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")

    async def child() -> None:
        async with distributed_lock("1234collectPayment", backend=alias):
            await sync_to_async(write)()

    async def work() -> bool:
        await asyncio.gather(child(), asyncio.create_task(sync_to_async(write)()))
        return await is_free(alias)

    with transaction.atomic(using=alias):
        assert async_to_sync(work)() is False
    assert free_for_others(alias)


@on_each_server
def test_release_of_a_child_waits_for_the_transaction_that_it_writes_in(alias: str) -> None:
    """The transaction is that of the outer sync code, under WSGI and under ASGI."""
    write_in_child(alias)
    run(sync_to_async(write_in_child)(alias))


@on_each_server
def test_release_waits_for_a_transaction_left_open_while_its_thread_is_busy(alias: str) -> None:
    """The thread is busy with another task."""
    stall = Stall()

    async def main() -> None:
        block = transaction.atomic(using=alias)
        await sync_to_async(block.__enter__)()
        lease = await get(alias)
        busy = asyncio.create_task(sync_to_async(stall)())
        await stall.has_begun()
        asyncio.get_running_loop().call_soon(stall.ended.set)  # when the release has begun
        await lease.arelease()
        await busy
        assert not await is_free(alias)
        await sync_to_async(block.__exit__)(None, None, None)
        assert await is_free(alias)

    run(main())


def test_transaction_that_ends_while_it_is_looked_at_was_not_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A later one of the same decorated function would be taken for another task's for ever."""

    @transaction.atomic(using="locks")
    def work(stall: Stall) -> None:
        connections["locks"].ensure_connection()
        stall()

    async def main() -> None:
        first, second = Stall(), Stall()

        def look_at(thread: threading.Thread) -> FrameType | None:
            first.ended.set()
            until(lambda: sync_call(stack_of(thread)) is None)
            return stack_of(thread)

        with monkeypatch.context() as patch:
            patch.setattr(sync_transactions, "stack_of", look_at)
            for stall in (first, second):
                task = asyncio.create_task(sync_to_async(work)(stall))
                await stall.has_begun()
                assert not await sync_transactions.has_open_transaction()
                patch.undo()
                stall.ended.set()
                await task

    run(main())


@on_each_server
def test_lease_of_a_cancelled_task_is_renewed_until_its_deferred_release(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the transaction has ended: it can still be committed."""
    stall = Stall()
    release_or_defer = release.release_or_defer

    async def release_slowly(calls: Any, lease: LeaseState, **options: Any) -> bool:
        released = await release_or_defer(calls, lease, **options)
        stall()
        return released

    leases = []

    async def hold() -> None:
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            leases.append(lease)
            monkeypatch.setattr(release, "release_or_defer", release_slowly)

    async def work() -> None:
        task = asyncio.create_task(hold())
        await stall.has_begun()
        task.cancel()
        stall.ended.set()
        await cancelled(task)

    with transaction.atomic(using=alias):
        async_to_sync(work)()
        is_renewed = renewed_since(leases)
        due_now(leases)
        until(is_renewed)
        assert not free_for_others(alias)
    assert free_for_others(alias)
