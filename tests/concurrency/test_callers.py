"""Which task or thread owns a lease, where sync and async code call each other."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from django.db import close_old_connections, connections

from django_distlock import (
    Lease,
    LockNotHeld,
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    release_lock,
)
from django_distlock.concurrency import callers
from django_distlock.leases.registry import current_registry
from tests.support.concurrency import run
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire
from tests.support.tasks import Stall, get

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend


pytestmark = committed


@on_each_database
def test_children_inherit_nothing(alias: str) -> None:
    """Child tasks and threads don't own their parent's leases, nor do their children."""

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
def test_lease_of_a_task_follows_its_calls_of_sync_code(alias: str) -> None:
    """Sync code that a task calls can release its leases by name, and so on, and back."""

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
def test_lease_of_a_thread_follows_its_calls_of_async_code(alias: str) -> None:
    """Async code that a thread calls can release its leases by name, and back."""
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


# None before Python 3.12.
EAGER = getattr(asyncio, "eager_task_factory", None)


class WithFreshConnections(SyncToAsync[Any, Any]):
    """Call in a thread as Channels does, by a subclass of asgiref's."""

    def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
        """Close connections before and after the call."""
        close_old_connections()
        try:
            return super().thread_handler(loop, *args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            close_old_connections()


@on_each_database
def test_other_ways_to_call_a_thread_keep_the_owner(alias: str) -> None:
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
    """Even if the context was copied elsewhere."""

    async def main() -> None:
        await get("default")
        assert await sync_to_async(release_lock, context=Context())("1234collectPayment") is True

    run(main())


def test_thread_that_is_given_a_context_inherits_nothing(scripted: ScriptedBackend) -> None:
    """Nor does a thread that gets the ident of one that has ended."""
    contexts = []

    def begin() -> None:
        acquire("default")
        contexts.append(copy_context())

    def go_on() -> None:
        with pytest.raises(LockNotHeld):
            contexts[0].run(release_lock, "1234collectPayment")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first one doesn't release its lease
        for work in (begin, go_on):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(60)
        gc.collect()


def test_forked_child_is_another_worker(scripted: ScriptedBackend) -> None:
    """Also inside a task, which continues in the child."""

    async def main() -> None:
        lease = await get("default")
        if not (pid := os.fork()):
            os._exit(len(current_registry().leases()))
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0
        assert current_registry().leases()
        await lease.arelease()

    run(main())


@pytest.mark.skipif(EAGER is None, reason="Python 3.11 has no eager tasks")
def test_eager_task_does_not_own_its_parents_lease(scripted: ScriptedBackend) -> None:
    """They begin to run before create_task() returns."""
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
            """Wait first."""
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


def test_reentrant_lock_is_not_shared_by_children(scripted: ScriptedBackend) -> None:
    """Two tasks whose sync code uses a lock first exclude each other."""

    def enter() -> Lease | None:
        return acquire_lock("1234collectPayment", reentrant=True)

    async def main() -> None:
        leases = await asyncio.gather(
            *(sync_to_async(enter, thread_sensitive=False)() for _ in range(4))
        )
        [lease] = [each for each in leases if each]
        assert await lease.arelease()

    asyncio.run(main())
