"""Which thread an async call runs in, and what it waits for."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import asgiref
import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from packaging.version import Version

from django_distlock import (
    Lease,
    LockLost,
    aacquire_lock,
    distributed_lock,
)
from django_distlock.concurrency.process_queue import queues
from django_distlock.signals import lock_acquired, lock_lost
from tests.support.concurrency import run, until
from tests.support.databases import committed, on_each_database, on_each_server
from tests.support.holders import acquire
from tests.support.tasks import Stall, get, in_other_thread

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend


pytestmark = committed


@on_each_database
def test_receivers_leave_no_connection_in_the_locks_threads(alias: str) -> None:
    """They may use the database, and run in the thread that sends the signal."""
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


@on_each_database
def test_many_waiting_tasks_take_no_threads_and_hardly_ask(
    alias: str, asking_owners: list[str]
) -> None:
    """Of an event loop's tasks that wait for one lock, the first one polls, or each rarely."""
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
        await asyncio.sleep(0.3)  # the number of polls in a time is the subject
        return len(asking_owners) <= tasks * (time.monotonic() - begun)

    async def main() -> None:
        lease = await in_other_thread(acquire, alias)
        before = threading.active_count()
        waiting = [asyncio.create_task(work(number)) for number in range(tasks)]
        async with asyncio.timeout(60):
            while not await are_at_rest():
                pass  # at first each asks
        assert threading.active_count() <= before + 4  # one of them is this test's
        await in_other_thread(lease.release)
        await asyncio.gather(*waiting)

    run(main())
    assert sorted(order) == [*range(tasks)]
    assert len(queues) == 0


def test_task_whose_timeout_passes_leaves_its_turn_to_the_next(scripted: ScriptedBackend) -> None:
    """The timeout passes while another task is asking."""

    async def work() -> None:
        found = await aacquire_lock("1234collectPayment", timeout=60)
        assert found is not None
        await found.arelease()

    async def main() -> None:
        lease = await get("default")
        asks_again = asyncio.Event()  # when it has the turn
        note = partial(asyncio.get_running_loop().call_soon_threadsafe, asks_again.set)
        scripted.answer("acquire", None, note)
        async with asyncio.TaskGroup() as others:
            others.create_task(work())
            await asks_again.wait()
            assert (
                await asyncio.create_task(aacquire_lock("1234collectPayment", timeout=0.02)) is None
            )
            others.create_task(work())
            await lease.arelease()

    run(main())


@on_each_server
def test_forked_child_has_threads_of_its_own(alias: str) -> None:
    """The parent's threads don't run there."""
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
    """Locks don't need asgiref's thread for sync code."""
    stall = Stall()

    async def main() -> None:
        busy = asyncio.create_task(sync_to_async(stall)())
        await stall.has_begun()
        await release_at_once(alias)
        stall.ended.set()
        await busy

    run(main())


@pytest.mark.skipif(
    Version(asgiref.__version__) < Version("3.9"),
    reason="asgiref 3.8 confuses the threads of simultaneous async_to_sync()",
)
@on_each_server
def test_receivers_may_lock(alias: str) -> None:
    """However many do so at once: none waits for its own thread."""

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
    """Some receivers can't be called there; acheck() calls them."""
    received: list[Lease] = []

    async def receive(*, lease: Lease, **kwargs: object) -> None:
        received.append(lease)

    async def main() -> None:
        lease = await get("default", ttl=60, renew=False)
        moved_clock.expire(lease)
        with pytest.raises(LockLost):
            lease.check()
        assert received == []
        with pytest.raises(LockLost):
            await lease.acheck()
        assert received == [lease]

    lock_lost.connect(receive)
    try:
        run(main())
    finally:
        lock_lost.disconnect(receive)


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
        """Cancel the call by a timeout while it is under way."""
        await stall.has_begun()
        limit.reschedule(0)
        await asyncio.to_thread(until, limit.expired)
        stall.ended.set()

    run(main())
    assert [name.startswith("django_distlock default async") for name in names] == [True]
