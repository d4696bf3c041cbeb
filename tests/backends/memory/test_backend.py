"""The memory backend: the locks of one process, for its threads and tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockLost, aacquire_lock, acquire_lock, distributed_lock
from tests.support.concurrency import run, until
from tests.support.holders import acquire, due_now, free_for_others, outlast
from tests.support.memory_stores import ALIAS, TableClock, memory_store, until_waiting, waiting
from tests.support.processes import forked

if TYPE_CHECKING:
    from django_distlock.backends import memory

# What a process's locks are


def test_two_aliases_have_different_locks(settings: Any) -> None:
    """Each has its own, which all threads share."""
    settings.DISTLOCK = {
        alias: {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
        for alias in ("default", ALIAS, "jobs")
    }
    with distributed_lock("1234collectPayment", backend=ALIAS):
        with distributed_lock("1234collectPayment", backend="jobs"):
            assert not free_for_others("jobs")
            assert not free_for_others(ALIAS)
        assert free_for_others("jobs")
        assert not free_for_others(ALIAS)


def test_forked_child_has_locks_of_its_own() -> None:
    """It starts with none; its locks don't affect its parent."""

    def work() -> None:
        assert list(memory_store().held()) == []
        memory_store().clear()
        assert acquire_lock("1234collectPayment", backend=ALIAS)
        assert acquire_lock("5678collectPayment", backend=ALIAS)

    lease = acquire(ALIAS)
    with forked(work):
        pass
    assert not free_for_others(ALIAS)
    assert [each.semaphore for each in memory_store().held()] == ["1234collectPayment"]
    assert lease.release()


def test_clear_removes_all_locks(shared_table: memory.SharedTable) -> None:
    """Holders lose their locks, and waiters get them."""
    lease, other = acquire(ALIAS), acquire(ALIAS, "5678collectPayment", ttl=None)
    memory_store().clear()
    assert not lease.release()
    assert not other.release()
    assert len(shared_table.table) == 0
    assert free_for_others(ALIAS)


def test_system_check_warns_of_other_processes_unless_in_debug(settings: Any) -> None:
    """A deployed site usually has more than one process."""
    settings.DEBUG = True
    assert memory_store().check() == []
    settings.DEBUG = False
    [warning] = memory_store().check()
    assert warning.id == "distlock.W005"
    assert warning.msg.startswith("DISTLOCK['memory']: MemoryBackend keeps out nobody in another")
    assert warning.hint


# Listing


def test_held_lists_in_order_by_prefix_and_up_to_a_limit(table_clock: TableClock) -> None:
    """Ended locks are not listed, and don't count for the limit."""
    store = memory_store()
    for number in (3, 1, 2):
        store.acquire(f"a{number}", "one", 60, f"host {number}")
    store.acquire("a0", "one", 1, "")
    store.acquire("b", "one", None, "")
    table_clock.now += 1
    assert [each.semaphore for each in store.held(limit=1)] == ["a1"]
    assert [each.semaphore for each in store.held()] == ["a1", "a2", "a3", "b"]
    assert [each.semaphore for each in store.held("a")] == ["a1", "a2", "a3"]
    assert [each.semaphore for each in store.held("a", 2)] == ["a1", "a2"]
    assert list(store.held("c")) == list(store.held(limit=0)) == []
    first, *_, endless = store.held()
    assert first.holder == "host 1"
    assert first.expires_at is not None
    assert (first.expires_at - first.seen_at).total_seconds() == 59
    assert endless.expires_at is None


def test_force_release_takes_the_lock_from_its_holder_and_wakes_the_waiter(
    table_clock: TableClock,
) -> None:
    """Only with the holder's token; a newcomer doesn't overtake the waiter."""
    store, woken = memory_store(), list[str]()
    grant = store.acquire("1234collectPayment", "one", 60, "")
    assert grant
    assert grant.token is not None
    store.join("1234collectPayment", "two", "", lambda: woken.append("two"))
    assert not store.force_release("1234collectPayment", grant.token + 1)
    assert not woken
    assert store.force_release("1234collectPayment", grant.token)
    assert woken == ["two"]
    assert not store.acquire("1234collectPayment", "three", 60, "")
    assert store.acquire("1234collectPayment", "two", 60, "")


# The life of a lease


def test_tasks_do_all_that_threads_do(shared_table: memory.SharedTable) -> None:
    """Acquire, renew, be contended, give up waiting, keep others out, release."""

    async def main() -> None:
        lease = await aacquire_lock("1234collectPayment", backend=ALIAS)
        assert lease is not None
        await lease.arenew()
        assert await aacquire_lock("1234collectPayment", backend=ALIAS) is None
        waits = asyncio.create_task(aacquire_lock("1234collectPayment", backend=ALIAS, timeout=60))
        await until_waiting(shared_table, 1)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert waiting(shared_table, 0)
        assert await lease.arelease()
        kept = await aacquire_lock("1234collectPayment", backend=ALIAS, min_hold=30)
        assert kept is not None
        assert await kept.arelease()
        assert await aacquire_lock("1234collectPayment", backend=ALIAS) is None

    run(main())
    [described] = shared_table.table.describe(["1234collectPayment"])
    assert described.kept
    assert 0 < described.remaining <= 30


def test_lease_is_renewed_in_the_background(
    shared_table: memory.SharedTable, table_clock: TableClock
) -> None:
    """Each renewal restarts its ttl, by the table's clock."""
    with distributed_lock("1234collectPayment", backend=ALIAS, ttl=60) as lease:
        table_clock.now += 50
        assert shared_table.table.remaining("1234collectPayment") == 10
        due_now([lease])
        until(lambda: shared_table.table.remaining("1234collectPayment") == 60)
        assert not free_for_others(ALIAS)


def test_lease_that_is_not_renewed_is_lost() -> None:
    """The next renewal says so."""
    lease = acquire(ALIAS, ttl=0.05, renew=False)
    outlast(lease)
    with pytest.raises(LockLost):
        lease.renew()
    assert free_for_others(ALIAS)


def test_lease_without_a_ttl_has_no_end(shared_table: memory.SharedTable) -> None:
    """A renewal doesn't set one."""
    with distributed_lock("1234collectPayment", backend=ALIAS, ttl=None) as lease:
        lease.renew()
        assert lease.expires_at is None
        assert shared_table.table.remaining("1234collectPayment") > 1e9
