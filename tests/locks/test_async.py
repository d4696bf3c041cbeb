"""The same lock in async code."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction

import django_distlock
from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotAcquired,
    LockNotHeld,
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    lock_backends,
    release_lock,
    skip,
)
from django_distlock.concurrency import executors
from django_distlock.concurrency.background import background
from django_distlock.concurrency.process_queue import queues
from django_distlock.fencing import FencedModel
from django_distlock.signals import lock_acquired, lock_contended
from tests.app.models import Invoice
from tests.support.concurrency import run, until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.fenced_rows import create
from tests.support.holders import acquire, free_for_others, take_away
from tests.support.tasks import (
    Stall,
    abroad,
    cancel_during,
    cancelled,
    get,
    is_free,
    others_ended,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed

DOWN = LockBackendUnavailable("down")


@pytest.fixture(autouse=True)
def lock_threads() -> Iterator[None]:
    """Have threads for this test alone."""
    executors.executors.clear()
    yield
    while executors.executors:
        _, executor = executors.executors.popitem()
        executor.shutdown()


@pytest.fixture
def asking_owners(alias: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the owners that ask the store for a lock."""
    store = type(lock_backends[alias])
    asked: list[str] = []

    def note(backend: Any, semaphore: str, owner: str, *arguments: Any) -> Any:
        asked.append(owner)
        return acquire_from(backend, semaphore, owner, *arguments)

    acquire_from = store.acquire
    monkeypatch.setattr(store, "acquire", note)
    return asked


# The twins

TWINS: list[tuple[Any, Any]] = [
    (acquire_lock, aacquire_lock),
    (release_lock, arelease_lock),
    *((getattr(Lease, name), getattr(Lease, f"a{name}")) for name in ("check", "renew", "release")),
    (FencedModel.save, FencedModel.asave),
    (FencedModel.delete, FencedModel.adelete),
]


@pytest.mark.parametrize(("sync", "twin"), TWINS, ids=lambda each: each.__qualname__)
def test_twins_are_alike(sync: Any, twin: Any) -> None:
    """They differ in being awaited, and in nothing else; the twin's docstring names the other."""
    assert inspect.iscoroutinefunction(twin)
    assert inspect.signature(sync) == inspect.signature(twin)
    assert sync.__doc__
    assert twin.__doc__.startswith(f"See {sync.__name__}().")


def test_every_public_function_has_a_twin() -> None:
    """Whoever adds one adds two."""
    public = {
        name
        for name in django_distlock.__all__
        if inspect.isfunction(getattr(django_distlock, name)) and name != skip.__name__
    }
    methods = {name for name, _ in inspect.getmembers(Lease, inspect.isfunction)}
    asked = {"acquire_lock", "release_lock"}
    assert public == asked | {f"a{name}" for name in asked}
    for name in ("check", "renew", "release"):
        assert {name, f"a{name}"} <= methods
    assert hasattr(distributed_lock, "__aenter__")


# What it does


@on_each_database
def test_acquire_and_release(alias: str) -> None:
    """By the name, by the lease; and contended in between."""

    async def main() -> None:
        tokens = []
        for by_name in (True, False):
            lease = await get(alias, label="nightly")
            tokens.append(lease.token or 0)
            assert lease.held
            assert f"nightly ({os.uname().nodename} pid {os.getpid()} Task-" in lease.holder
            assert await aacquire_lock("1234collectPayment", backend=alias) is None
            await lease.arenew()
            await lease.acheck()
            released = (
                arelease_lock("1234collectPayment", backend=alias) if by_name else lease.arelease()
            )
            assert await released is True
            assert lease.released
            assert await lease.arelease() is False
            with pytest.raises(LockLost, match="was released"):
                await lease.acheck()
        assert tokens == sorted(tokens)
        with pytest.raises(LockNotHeld):
            await arelease_lock("1234collectPayment", backend=alias)

    run(main())
    assert free_for_others(alias)


@on_each_database
def test_block(alias: str) -> None:
    """It yields the lease, raises when contended, and releases, also when it fails."""

    async def main() -> None:
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            assert lease.held
            with pytest.raises(LockNotAcquired):
                async with distributed_lock("1234collectPayment", backend=alias):
                    pytest.fail("It is held.")
        assert lease.released
        with pytest.raises(ZeroDivisionError):
            async with distributed_lock("1234collectPayment", backend=alias) as lease:
                raise ZeroDivisionError
        assert lease.released
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            async with distributed_lock(
                "1234collectPayment", backend=alias, reentrant=True
            ) as inner:
                assert inner is lease
            assert lease.held
            await lease.arelease()

    run(main())


@on_each_database
def test_lost_lease_is_told(alias: str, lost: dict[Lease, str], moved_clock: MovedClock) -> None:
    """By every action, and at the end of the block, unless that raises already."""

    async def main() -> None:
        with pytest.raises(LockLost):
            async with distributed_lock("1234collectPayment", backend=alias) as lease:
                await asyncio.to_thread(take_away, lease)
                with pytest.raises(LockLost, match="has it no more"):
                    await lease.arenew()
                with pytest.raises(LockLost):
                    await lease.acheck()
                assert not lease.held
        with pytest.raises(ZeroDivisionError):
            async with distributed_lock("1234collectPayment", backend=alias) as lease:
                await asyncio.to_thread(take_away, lease)
                raise ZeroDivisionError
        lease = await get(alias, ttl=60, renew=False)
        moved_clock.expire(lease)
        with pytest.raises(LockLost, match="ttl of 60 seconds has passed"):
            await lease.acheck()

    run(main())
    assert len(lost) == 3


@on_each_database
def test_waits_until_it_is_released(alias: str) -> None:
    """By whoever holds it."""

    async def main() -> None:
        lease = await abroad(acquire, alias)
        assert await aacquire_lock("1234collectPayment", backend=alias, timeout=0.05) is None
        waiting = asyncio.create_task(get(alias, timeout=60))
        await asyncio.sleep(0)
        await abroad(lease.release)
        await (await waiting).arelease()

    run(main())


@on_each_database
def test_waiting_for_oneself_and_reentering(alias: str) -> None:
    """It raises at once; with `reentrant` it is the same lease, and the last release counts."""

    async def main() -> None:
        lease = await get(alias)
        with pytest.raises(LockError, match="wait for itself"):
            await get(alias, timeout=60)
        assert await get(alias, reentrant=True) is lease
        assert await lease.arelease() is True
        assert lease.held
        assert await lease.arelease() is True
        assert not lease.held

    run(main())


def test_contention_is_told(scripted: ScriptedBackend) -> None:
    """To receivers, sync and async."""
    told: list[object] = []

    def receive(*, semaphore: str, **kwargs: object) -> None:
        told.append(semaphore)

    async def areceive(*, semaphore: str, **kwargs: object) -> None:
        told.append(asyncio.current_task())

    async def main() -> None:
        for receiver in (receive, areceive):
            lock_contended.connect(receiver)
        await get("default")
        await aacquire_lock("1234collectPayment")
        await arelease_lock("1234collectPayment")

    try:
        run(main())
    finally:
        for receiver in (receive, areceive):
            lock_contended.disconnect(receiver)
    assert len(told) == 2
    assert "1234collectPayment" in told


@on_each_database
def test_receivers_leave_no_connection_in_the_locks_threads(alias: str) -> None:
    """They may need the database; and are called in the thread that notices."""
    users: list[tuple[Any, str]] = []

    def receive(**kwargs: object) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
        users.append((connections[alias], threading.current_thread().name))

    async def main() -> None:
        lease = await get(alias)
        await lease.arelease()

    lock_acquired.connect(receive)
    try:
        run(main())
    finally:
        lock_acquired.disconnect(receive)
    [(connection, thread)] = users
    own = connections[alias].vendor != "sqlite"
    assert thread.startswith(f"django_distlock {alias} async") is own
    assert connection.connection is None


# Whose it is


@on_each_database
def test_children_inherit_nothing(alias: str) -> None:
    """Neither a task's, nor those of a thread that it starts, nor both in turn."""

    async def child() -> None:
        with pytest.raises(LockNotHeld):
            await arelease_lock("1234collectPayment", backend=alias)
        assert await aacquire_lock("1234collectPayment", backend=alias, reentrant=True) is None

    def sync_child() -> None:
        with pytest.raises(LockNotHeld):
            release_lock("1234collectPayment", backend=alias)
        assert acquire_lock("1234collectPayment", backend=alias, reentrant=True) is None

    def thread() -> None:
        try:
            sync_child()
            async_to_sync(child)()
        finally:
            connections.close_all()

    async def main() -> None:
        for acquire_here in (get, sync_to_async(acquire)):
            lease = await acquire_here(alias)
            sync = sync_to_async(sync_child)
            await asyncio.gather(child(), sync(), asyncio.to_thread(thread))
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                group.create_task(sync())
                await sync_to_async(lease.check)()
            assert await arelease_lock("1234collectPayment", backend=alias) is True

    run(main())


@on_each_database
def test_leases_cross_the_borders_between_sync_and_async(alias: str) -> None:
    """What a task acquired it can release in sync code that it calls, and so on, and back."""

    async def main() -> None:
        await get(alias)
        assert await sync_to_async(release_lock)("1234collectPayment", backend=alias) is True
        await sync_to_async(acquire)(alias)
        assert await arelease_lock("1234collectPayment", backend=alias) is True
        await sync_to_async(async_to_sync(get))(alias)
        assert (
            await sync_to_async(async_to_sync(arelease_lock))("1234collectPayment", backend=alias)
            is True
        )
        await get(alias)
        await sync_to_async(thread_sensitive=False)(without_connections)()

    def without_connections() -> None:
        try:
            assert release_lock("1234collectPayment", backend=alias) is True
        finally:
            connections.close_all()

    run(main())


@on_each_database
def test_leases_cross_the_borders_between_async_and_sync(alias: str) -> None:
    """What a thread acquired it can release in async code that it calls, and back."""
    acquire(alias)
    assert async_to_sync(arelease_lock)("1234collectPayment", backend=alias) is True
    lease = async_to_sync(get)(alias)
    assert release_lock("1234collectPayment", backend=alias) is True

    async def main() -> None:
        with pytest.raises(LockNotHeld):
            await asyncio.gather(arelease_lock("1234collectPayment", backend=alias))
        assert await sync_to_async(release_lock)("1234collectPayment", backend=alias) is True

    acquire(alias)
    async_to_sync(main)()
    assert not lease.held


def test_one_block_object_serves_many_tasks(scripted: ScriptedBackend) -> None:
    """Nothing of an entrance is in it (peer defects 1, 9 and 14)."""
    block = distributed_lock("1234collectPayment", timeout=60)
    inside: list[asyncio.Task[Any] | None] = []

    async def enter() -> int:
        async with block as lease:
            inside.append(asyncio.current_task())
            await asyncio.sleep(0)
            assert inside == [asyncio.current_task()]
            inside.clear()
            assert lease.token is not None
            return lease.token

    async def main() -> list[int]:
        return await asyncio.gather(*(enter() for _ in range(20)))

    assert len({*run(main())}) == 20
    assert scripted.owner == ""


# Fenced rows


@on_each_database
def test_fenced_writes(alias: str) -> None:
    """They set the fence, and are refused to an earlier holder."""
    invoice = create(alias)
    rows = Invoice.objects.using(alias).filter(pk=invoice.pk)
    semaphore = f"{invoice.customer_id}collectPayment"

    async def main() -> None:
        early = await abroad(acquire, alias, semaphore)
        await abroad(take_away, early)
        async with distributed_lock(semaphore, backend=alias) as lease:
            invoice.amount = 13
            await invoice.asave(lease=lease)
            assert invoice.fence == lease.token
            assert await rows.fenced(lease).aupdate(amount=14) == 1
            with pytest.raises(LockLost, match="a later holder"):
                await invoice.asave(lease=early)
            with pytest.raises(LockLost, match="was not written"):
                await invoice.adelete(lease=early)
            with pytest.raises(LockLost, match="was not written"):
                await rows.fenced(early).aupdate(amount=15)
            assert await rows.aget() == invoice
            assert await invoice.adelete(lease=lease) == (1, {"app.Invoice": 1})
        assert not await rows.aexists()

    run(main())


# Transactions of sync code


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
    """There is no async atomic() yet, so people enter it in one thread by two calls."""

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
            lease.mark_lost()
            await sync_to_async(write)()

    def write() -> None:
        with transaction.atomic(using=alias):
            pass

    with pytest.raises(LockLost, match="before the commit"):
        run(main())


# Cancellation


@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_while_acquiring_leaves_no_lock(scripted: ScriptedBackend, times: int) -> None:
    """What the store grants then is given back, before the task ends if it is cancelled once."""
    stall = Stall()
    scripted.answer("acquire", stall)

    async def main() -> None:
        task = asyncio.create_task(aacquire_lock("1234collectPayment"))
        await stall.has_begun()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        if times == 2:
            await cancelled(task)
        stall.ended.set()
        if times == 1:
            await cancelled(task)
            assert scripted.calls == ["acquire", "release"]
        await others_ended()

    run(main())
    until(
        lambda: scripted.calls == ["acquire", "release"]
    )  # the thread does it, if cancelled twice
    until(lambda: scripted.owner == "")


def test_cancelled_while_it_is_contended_has_nothing_to_release(
    scripted: ScriptedBackend,
) -> None:
    """The lock is another's."""
    scripted.owner = "another"
    stall = Stall()
    scripted.answer("acquire", stall)

    run(cancel_during(stall, aacquire_lock("1234collectPayment")))
    assert scripted.calls == ["acquire"]
    assert scripted.owner == "another"


def test_call_whose_thread_comes_too_late_is_not_made() -> None:
    """The task was cancelled between the thread's beginning and the call's."""
    calls: list[int] = []
    work = executors.Work(lambda: calls.append(1), None)
    assert work.outcome.cancel()
    work.run()
    assert calls == []


def test_cancelled_before_the_store_is_asked_asks_it_nothing(scripted: ScriptedBackend) -> None:
    """Others are being served."""
    stalls = [Stall(), Stall()]
    scripted.answer("acquire", *stalls)

    async def main() -> None:
        first = [asyncio.create_task(aacquire_lock(name)) for name in ("first", "second")]
        for stall in stalls:
            await stall.has_begun()
        task = asyncio.create_task(aacquire_lock("1234collectPayment"))
        await asyncio.sleep(0)
        task.cancel()
        await cancelled(task)
        for stall in stalls:
            stall.ended.set()
        leases = await asyncio.gather(*first)
        await asyncio.gather(*(lease.arelease() for lease in leases if lease))

    run(main())
    assert scripted.calls == ["acquire", "acquire", "release"]


def test_cancelled_while_the_store_fails_is_cancelled(scripted: ScriptedBackend) -> None:
    """There is nothing to be given back."""
    stall = Stall()

    def fail() -> None:
        stall()
        raise DOWN

    scripted.answer("acquire", fail)

    run(cancel_during(stall, aacquire_lock("1234collectPayment")))
    assert scripted.calls == ["acquire"]


def test_what_was_granted_to_who_is_gone_and_can_not_be_released_ends_by_itself(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """It is renewed no more."""
    stall = Stall()
    scripted.answer("acquire", stall)
    scripted.answer("release", DOWN)

    run(cancel_during(stall, aacquire_lock("1234collectPayment")))
    assert "could not be released" in caplog.text


@on_each_database
def test_cancelled_while_waiting_leaves_no_lock(alias: str, asking_owners: list[str]) -> None:
    """Be it the one that asks the store, or one that waits for its turn."""

    async def main() -> None:
        lease = await abroad(acquire, alias)
        asking_owners.clear()
        tasks = [asyncio.create_task(get(alias, timeout=None)) for _ in range(3)]
        await asyncio.to_thread(until, lambda: len(asking_owners) > 0)
        for index in (1, 0):
            tasks[index].cancel()
            await cancelled(tasks[index])
        await abroad(lease.release)
        await (await tasks[2]).arelease()
        with pytest.raises(TimeoutError):
            async with distributed_lock("1234collectPayment", backend=alias):
                async with asyncio.timeout(0.01):
                    await asyncio.gather(get(alias, timeout=60))

    run(main())
    assert free_for_others(alias)


@on_each_database
def test_cancelled_while_holding_releases(alias: str) -> None:
    """As any block that fails; `asyncio.timeout` and a failing TaskGroup cancel, too."""

    async def hold(enter: Callable[[], None]) -> None:
        async with distributed_lock("1234collectPayment", backend=alias):
            enter()
            await asyncio.Event().wait()

    async def fail(entered: asyncio.Event) -> None:
        await entered.wait()
        raise ZeroDivisionError

    async def main() -> None:
        entered = asyncio.Event()
        task = asyncio.create_task(hold(entered.set))
        await entered.wait()
        task.cancel()
        await cancelled(task)
        assert await is_free(alias)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await hold(partial(limit.reschedule, 0))
        assert await is_free(alias)

        entered = asyncio.Event()
        with pytest.RaisesGroup(ZeroDivisionError):
            async with asyncio.TaskGroup() as group:
                group.create_task(hold(entered.set))
                group.create_task(fail(entered))
        assert await is_free(alias)

    run(main())


@pytest.mark.parametrize("begun", [True, False])
def test_cancelled_while_releasing_releases(scripted: ScriptedBackend, begun: bool) -> None:
    """And waits for that, be it that all threads are busy: who comes next can have it."""
    stalls = [Stall()] if begun else [Stall(), Stall()]
    entered, leaving = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with distributed_lock("1234collectPayment"):
            entered.set()
            await leaving.wait()

    async def main() -> None:
        task = asyncio.create_task(hold())
        await entered.wait()
        scripted.answer("release" if begun else "acquire", *stalls)
        others = (
            []
            if begun
            else [asyncio.create_task(aacquire_lock("1234collectPayment")) for _ in stalls]
        )
        leaving.set()
        for stall in stalls:
            await stall.has_begun()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        for stall in stalls:
            stall.ended.set()
        await cancelled(task)
        leases = await asyncio.gather(*others)
        await asyncio.gather(*(lease.arelease() for lease in leases if lease))

    run(main())
    assert scripted.owner == ""


@pytest.mark.parametrize("failure", [DOWN, ZeroDivisionError()])
def test_cancelled_while_the_release_fails_ends_by_itself(
    scripted: ScriptedBackend, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """It is renewed no more; and the task is cancelled, whatever the failure."""
    stall = Stall()

    def fail() -> None:
        stall()
        raise failure

    scripted.answer("release", fail)

    async def hold() -> None:
        async with distributed_lock("1234collectPayment"):
            pass

    run(cancel_during(stall, hold()))
    assert "what it asked a lock's store for failed" in caplog.text
    assert len(background("default").renewals) == 0


# Waiting


@on_each_database
def test_many_waiting_tasks_take_no_threads_and_hardly_ask(
    alias: str, asking_owners: list[str]
) -> None:
    """Of those that wait in a loop for one lock, the first one asks, or each once in a while."""
    tasks = 20
    order: list[int] = []

    async def work(number: int) -> None:
        async with distributed_lock("1234collectPayment", backend=alias, timeout=60):
            order.append(number)

    async def are_at_rest() -> bool:
        asking_owners.clear()
        if alias != "postgresql":
            await asyncio.to_thread(until, lambda: len(asking_owners) >= 5)
            return len({*asking_owners[:5]}) == 1
        begun = time.monotonic()
        await asyncio.sleep(0.3)  # how often they ask in some time is what this is about
        return len(asking_owners) <= tasks * (time.monotonic() - begun)

    async def main() -> None:
        lease = await abroad(acquire, alias)
        before = threading.active_count()
        waiting = [asyncio.create_task(work(number)) for number in range(tasks)]
        async with asyncio.timeout(60):
            while not await are_at_rest():
                pass  # at first each asks
        assert threading.active_count() <= before + 4  # one of them is ours
        await abroad(lease.release)
        await asyncio.gather(*waiting)

    run(main())
    assert sorted(order) == [*range(tasks)]
    assert len(queues) == 0


def test_who_gives_up_leaves_the_turn_to_the_next(scripted: ScriptedBackend) -> None:
    """His timeout passes while another is asking."""

    async def work() -> None:
        found = await aacquire_lock("1234collectPayment", timeout=60)
        assert found is not None
        await found.arelease()

    async def main() -> None:
        lease = await get("default")
        asks_again = asyncio.Event()  # when it has the turn
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, asks_again.set)
        scripted.answer("acquire", None, tell)
        async with asyncio.TaskGroup() as others:
            others.create_task(work())
            await asks_again.wait()
            assert (
                await asyncio.create_task(aacquire_lock("1234collectPayment", timeout=0.02)) is None
            )
            others.create_task(work())
            await lease.arelease()

    run(main())


# Processes and threads


@on_each_server
def test_forked_child_has_threads_of_its_own(alias: str) -> None:
    """The parent's don't run there."""
    run(release_at_once(alias))
    if not (pid := os.fork()):
        status = 1
        try:
            asyncio.run(release_at_once(alias))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


async def release_at_once(alias: str) -> None:
    """Acquire and release."""
    lease = await get(alias)
    assert await lease.arelease() is True


@on_each_server
def test_sync_code_of_others_holds_up_no_lock(alias: str) -> None:
    """The thread that asgiref has for it isn't needed."""
    stall = Stall()

    async def main() -> None:
        busy = asyncio.create_task(sync_to_async(stall)())
        await stall.has_begun()
        await release_at_once(alias)
        stall.ended.set()
        await busy

    run(main())


@on_each_database
def test_sync_calls_are_refused_in_a_running_loop(alias: str, asking_owners: list[str]) -> None:
    """They would block it. What only looks at the lease is not."""

    async def main() -> None:
        lease = await get(alias)
        for call in (
            lambda: acquire_lock("1234collectPayment", backend=alias),
            lambda: release_lock("1234collectPayment", backend=alias),
            lambda: release_lock(lease),
            lambda: distributed_lock("1234collectPayment", backend=alias).__enter__(),
            distributed_lock("1234collectPayment", backend=alias)(skip),
            lease.renew,
            lease.release,
        ):
            with pytest.raises(SynchronousOnlyOperation, match=r"async twin .* sync_to_async"):
                call()
        assert len(asking_owners) == 1
        lease.check()
        assert await lease.arelease() is True

    run(main())
