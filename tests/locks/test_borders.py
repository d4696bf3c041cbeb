"""For whom code works, where sync and async code call each other, and what outlasts its task."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import threading
import warnings
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any
from weakref import ref

import asgiref
import pytest
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from django.db import close_old_connections, connections, transaction
from packaging.version import Version

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotHeld,
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    release_lock,
)
from django_distlock.concurrency import callers, executors
from django_distlock.concurrency.background import background
from django_distlock.leases import release
from django_distlock.leases.cleanup import cleanup_release
from django_distlock.leases.registry import current_registry
from django_distlock.signals import lock_acquired, lock_lost
from tests.support.concurrency import run, until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire, due_now, free_for_others, renewed_since
from tests.support.tasks import Stall, abroad, cancelled, get, is_free, others_ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed

# None before Python 3.12.
EAGER = getattr(asyncio, "eager_task_factory", None)


class WithFreshConnections(SyncToAsync[Any, Any]):
    """Call in a thread as Channels does, by a subclass of asgiref's."""

    def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
        """Let go of connections before and after that."""
        close_old_connections()
        try:
            return super().thread_handler(loop, *args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            close_old_connections()


@on_each_database
def test_others_ways_to_call_a_thread_keep_whose_it_is(alias: str) -> None:
    """Subclasses of asgiref's, and calls with keyword arguments or in a given context."""

    async def main() -> None:
        await get(alias)
        assert await WithFreshConnections(release_lock)("1234collectPayment", backend=alias) is True
        await WithFreshConnections(acquire)(alias)
        assert await arelease_lock("1234collectPayment", backend=alias) is True
        await get(alias)
        release = sync_to_async(async_to_sync(arelease_lock))
        assert await release(semaphore="1234collectPayment", backend=alias) is True

    run(main())


@pytest.mark.skipif(
    "context" not in SyncToAsync.__init__.__code__.co_varnames,
    reason="this asgiref takes no context",
)
def test_call_in_a_given_context_is_the_callers(scripted: ScriptedBackend) -> None:
    """Though what the context has comes from elsewhere."""

    async def main() -> None:
        await get("default")
        assert await sync_to_async(release_lock, context=Context())("1234collectPayment") is True

    run(main())


def test_thread_that_is_given_a_context_inherits_nothing(scripted: ScriptedBackend) -> None:
    """Nor does one that gets the number of one that has ended."""
    contexts = []

    def begin() -> None:
        acquire("default")
        contexts.append(copy_context())

    def go_on() -> None:
        with pytest.raises(LockNotHeld):
            contexts[0].run(release_lock, "1234collectPayment")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first one leaves its lease behind
        for work in (begin, go_on):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(60)
        gc.collect()


def test_forked_child_is_another_worker(scripted: ScriptedBackend) -> None:
    """Also inside a task, which goes on in it."""

    async def main() -> None:
        lease = await get("default")
        if not (pid := os.fork()):
            os._exit(len(current_registry().leases()))
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0
        assert current_registry().leases()
        await lease.arelease()

    run(main())


@on_each_server
def test_generator_keeps_its_lease_in_another_task(alias: str) -> None:
    """The task that began it has ended meanwhile, as in Python 3.11's wait_for()."""

    async def generate() -> AsyncIterator[Lease]:
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            yield lease

    async def main() -> None:
        generator: Any = generate()
        lease = await asyncio.create_task(anext(generator))
        gc.collect()
        is_renewed = renewed_since([lease])
        due_now([lease])
        await asyncio.to_thread(until, is_renewed)
        assert lease.held
        await generator.aclose()
        assert lease.released

    run(main())


@on_each_database
def test_block_may_be_left_by_another_task(alias: str) -> None:
    """One that holds the same block object itself leaves its own first."""

    async def main() -> None:
        block = distributed_lock("1234collectPayment", backend=alias)
        lease = await asyncio.create_task(block.__aenter__())
        assert await block.__aexit__(None, None, None) is False
        assert lease.released
        entered, leave = asyncio.Event(), asyncio.Event()

        async def enter_and_wait() -> None:
            await block.__aenter__()
            entered.set()
            await leave.wait()

        task = asyncio.create_task(enter_and_wait())
        await entered.wait()
        await block.__aexit__(None, None, None)
        leave.set()
        await task

    run(main())
    assert free_for_others(alias)


def test_child_does_not_keep_its_parents_lease(scripted: ScriptedBackend) -> None:
    """A lease that a task leaves behind is nobody's, though a child has a copy of its context."""
    children = []

    async def parent() -> None:
        await get("default")
        children.append(asyncio.create_task(asyncio.Event().wait()))

    async def main() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await asyncio.create_task(parent())
            await asyncio.sleep(0)  # till then the event loop has the task
            gc.collect()
        assert any("was never released" in str(each.message) for each in caught)
        assert background("default").renewals.next_due() == math.inf
        children[0].cancel()

    run(main())


@pytest.mark.skipif(EAGER is None, reason="Python 3.11 has no eager tasks")
def test_eager_tasks_are_no_exception(scripted: ScriptedBackend) -> None:
    """They run before anybody can take note of them."""
    workers = []

    async def note() -> None:
        workers.append(callers.current_caller())

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(EAGER)
        await get("default")
        with pytest.raises(LockNotHeld):
            await asyncio.gather(arelease_lock("1234collectPayment"))
        await callers.continue_in_task(note())
        assert workers == [callers.current_caller()]
        assert await arelease_lock("1234collectPayment") is True

    run(main())


def test_thread_whose_caller_has_ended_works_for_itself(scripted: ScriptedBackend) -> None:
    """The task may have been cancelled before the thread began."""
    stall, has_served = Stall(), threading.Event()
    seen: list[object] = []

    class Late(SyncToAsync[Any, Any]):
        """Call in a thread that takes its time to begin."""

        def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
            """Stall first."""
            stall()
            try:
                return super().thread_handler(loop, *args, **kwargs)  # type: ignore[no-untyped-call]
            finally:
                has_served.set()

    def use() -> None:
        seen.append(callers.current_caller().has_ended())
        seen.append(acquire("default"))
        seen.append(release_lock("1234collectPayment"))

    async def main() -> None:
        task = asyncio.create_task(Late(use, thread_sensitive=False)())
        await stall.has_begun()
        task.cancel()
        await asyncio.wait([task])
        ended = ref(task)
        del task
        gc.collect()
        assert ended() is None
        stall.ended.set()
        assert await asyncio.to_thread(has_served.wait, 60)

    run(main())
    assert seen[0] is False
    assert seen[2] is True


# Transactions


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
    """Who waits for the lock in sync code, in a transaction, has the thread for sync code."""

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
    """As a sync view: let a child task of async code write under a lock, in a transaction."""

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
    """It is the sync code's that all of this is called by, under WSGI and under ASGI."""
    write_in_child(alias)
    run(sync_to_async(write_in_child)(alias))


@on_each_server
def test_release_waits_for_a_transaction_left_open_while_its_thread_is_busy(alias: str) -> None:
    """With the work of another task."""
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


@on_each_server
def test_deferred_release_of_who_is_cancelled_is_renewed(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the transaction has ended: it can still be committed."""
    stall = Stall()
    release_or_defer = release.release_or_defer

    async def release_slowly(calls: Any, lease: Lease, **options: Any) -> bool:
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


# Signals


@pytest.mark.skipif(
    Version(asgiref.__version__) < Version("3.9"),
    reason="asgiref 3.8 confuses the threads of simultaneous async_to_sync()",
)
@on_each_server
def test_receivers_may_lock(alias: str) -> None:
    """However many do at the same time: none waits for the thread that it is called in."""

    async def audit(*, lease: Lease, **kwargs: object) -> None:
        if not lease.semaphore.startswith("audit"):
            await together.wait()
            async with distributed_lock(f"audit {lease.semaphore}", backend=alias) as another:
                audited.append(another.held)

    audited: list[bool] = []
    together: Any = None

    async def main() -> None:
        nonlocal together
        together = asyncio.Barrier(2)
        for lease in await asyncio.gather(*(get(alias, f"{number}") for number in range(4))):
            await lease.arelease()

    lock_acquired.connect(audit)
    try:
        run(main())
    finally:
        lock_acquired.disconnect(audit)
    assert audited == [True] * 4


def test_check_in_a_loop_calls_no_receiver(
    scripted: ScriptedBackend, moved_clock: MovedClock
) -> None:
    """Some can't be called there; acheck() does."""
    told: list[Lease] = []

    async def receive(*, lease: Lease, **kwargs: object) -> None:
        told.append(lease)

    async def main() -> None:
        lease = await get("default", ttl=60, renew=False)
        moved_clock.expire(lease)
        with pytest.raises(LockLost):
            lease.check()
        assert told == []
        with pytest.raises(LockLost):
            await lease.acheck()
        assert told == [lease]

    lock_lost.connect(receive)
    try:
        run(main())
    finally:
        lock_lost.disconnect(receive)


# Ends


def test_call_after_a_cancelled_one_is_made_in_the_locks_threads(
    scripted: ScriptedBackend,
) -> None:
    """The cancelled one leaves nothing in the task's context."""
    names: list[str] = []
    stall = Stall()
    scripted.answer("acquire", stall, lambda: names.append(threading.current_thread().name))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                ending = asyncio.create_task(time_out(limit))
                await aacquire_lock("1234collectPayment")
        await ending
        lease = await get("default")
        await lease.arelease()

    async def time_out(limit: asyncio.Timeout) -> None:
        """Let the time of the call be over while it is under way."""
        await stall.has_begun()
        limit.reschedule(0)
        await asyncio.to_thread(until, limit.expired)
        stall.ended.set()

    run(main())
    assert [name.startswith("django_distlock default async") for name in names] == [True]


@pytest.mark.parametrize("ttl", [60, None])
def test_grant_that_comes_when_the_loop_has_ended_is_given_back(
    scripted: ScriptedBackend, ttl: float | None
) -> None:
    """The task was cancelled, and then once more by asyncio.run()."""
    stall = Stall()
    scripted.answer("acquire", stall)

    async def main() -> None:
        task = asyncio.create_task(aacquire_lock("1234collectPayment", ttl=ttl))
        await stall.has_begun()
        task.cancel()

    asyncio.run(main())
    assert scripted.calls == ["acquire"]
    stall.ended.set()
    executors.executors.pop("default").shutdown()
    assert scripted.calls == ["acquire", "release"]


def test_cancelled_after_the_grant_but_before_it_is_told_of_it(scripted: ScriptedBackend) -> None:
    """The call has ended by then, so another one undoes it."""

    stall = Stall()
    scripted.answer("acquire", stall)

    async def main() -> None:
        task = asyncio.create_task(aacquire_lock("1234collectPayment"))
        await stall.has_begun()
        stall.ended.set()
        executors.executors.pop("default").shutdown()  # the loop stands still until it is granted
        assert scripted.owner
        task.cancel()
        await cancelled(task)

    run(main())
    assert scripted.calls == ["acquire", "release"]
    assert scripted.owner == ""


@pytest.mark.parametrize("action", ["release", "renew"])
def test_error_keeps_nothing_alive(scripted: ScriptedBackend, action: str) -> None:
    """No cycle of references that only the garbage collector would end."""

    def fail() -> None:
        raise LockBackendUnavailable("down")

    async def main() -> ref[Any]:
        lease = await get("default")
        current_registry().remove(lease)
        scripted.answer(action, fail)
        with suppress(LockBackendUnavailable):
            await (lease.arelease() if action == "release" else lease.arenew())
        return ref(lease)

    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a lease whose release failed is left behind
            weakly = run(main())
            assert weakly() is None
    finally:
        gc.enable()


@on_each_database
def test_hundreds_of_acquisitions_leave_nothing_behind(alias: str) -> None:
    """Neither threads nor leases nor what keeps account of them."""

    async def use(number: int) -> None:
        async with distributed_lock(f"{number % 20}", backend=alias, timeout=60):
            pass

    async def main() -> tuple[int, int]:
        for first in range(0, 200, 20):
            await asyncio.gather(*(use(first + number) for number in range(20)))
        return threading.active_count(), alive()

    run(main())
    gc.collect()
    gc.freeze()  # what there is by now doesn't count
    before = threading.active_count()
    try:
        during, in_loop = run(main())
        left = alive()
    finally:
        gc.unfreeze()
    assert during <= before + 2
    assert in_loop <= 2 * (1 + 20)  # of the task, and the last ones that it waited for
    assert left == 0
    assert len(background(alias).renewals) == 0


def alive() -> int:
    """Count the tasks that there are, and what is known of tasks and threads."""
    gc.collect()
    return sum(type(each) in (asyncio.Task, callers.Caller) for each in gc.get_objects())


def test_detached_work_is_referred_to(scripted: ScriptedBackend) -> None:
    """Or else the event loop might let go of it before it is done."""
    done = []

    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            gc.collect()
            done.append(1)

        executors.detach(work())
        await others_ended()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert done == [1]


@on_each_database
def test_leftovers_are_released_without_blocking_the_loop(alias: str) -> None:
    """What nobody waits for is done in a thread."""

    async def main() -> None:
        lease = await get(alias)
        cleanup_release(lease)
        assert lease.held
        await others_ended()
        assert lease.released
        assert await is_free(alias)
        await abroad(connections.close_all)

    run(main())
