"""Tasks that are cancelled while they acquire, hold, wait or release."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from django_distlock import (
    LockBackendUnavailable,
    aacquire_lock,
    distributed_lock,
)
from django_distlock.concurrency import executors
from django_distlock.concurrency.background import background
from tests.support.concurrency import run, until
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, free_for_others
from tests.support.tasks import (
    Stall,
    cancel_during,
    cancelled,
    get,
    in_other_thread,
    is_free,
    others_ended,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted_store import ScriptedBackend


pytestmark = committed


DOWN = LockBackendUnavailable("down")


@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_while_acquiring_leaves_no_lock(scripted: ScriptedBackend, times: int) -> None:
    """A grant is released, before the task ends if it is cancelled once."""
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
    )  # the thread releases it if the task is cancelled twice
    until(lambda: scripted.owner == "")


def test_cancelled_while_contended_has_nothing_to_release(
    scripted: ScriptedBackend,
) -> None:
    """The lock is held by another owner."""
    scripted.owner = "another"
    stall = Stall()
    scripted.answer("acquire", stall)

    run(cancel_during(stall, aacquire_lock("1234collectPayment")))
    assert scripted.calls == ["acquire"]
    assert scripted.owner == "another"


def test_call_whose_thread_comes_too_late_is_not_made() -> None:
    """The task was cancelled after the thread began and before the call did."""
    calls: list[int] = []
    work = executors.Work(lambda: calls.append(1), None)
    assert work.outcome.cancel()
    work.run()
    assert calls == []


def test_cancelled_before_the_store_is_asked_asks_it_nothing(scripted: ScriptedBackend) -> None:
    """The threads were busy with other calls."""
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
    """There is no grant to release."""
    stall = Stall()

    def fail() -> None:
        stall()
        raise DOWN

    scripted.answer("acquire", fail)

    run(cancel_during(stall, aacquire_lock("1234collectPayment")))
    assert scripted.calls == ["acquire"]


def test_unreleasable_grant_of_a_cancelled_task_ends_by_itself(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no longer renewed."""
    stall = Stall()
    scripted.answer("acquire", stall)
    scripted.answer("release", DOWN)

    run(cancel_during(stall, aacquire_lock("1234collectPayment")))
    assert "could not be released" in caplog.text


@on_each_database
def test_cancelled_while_waiting_leaves_no_lock(alias: str, asking_owners: list[str]) -> None:
    """Whether it is the task that polls the store, or one that waits for its turn."""

    async def main() -> None:
        lease = await in_other_thread(acquire, alias)
        asking_owners.clear()
        tasks = [asyncio.create_task(get(alias, timeout=None)) for _ in range(3)]
        await asyncio.to_thread(until, lambda: len(asking_owners) > 0)
        for index in (1, 0):
            tasks[index].cancel()
            await cancelled(tasks[index])
        await in_other_thread(lease.release)
        await (await tasks[2]).arelease()
        with pytest.raises(TimeoutError):
            async with distributed_lock("1234collectPayment", backend=alias):
                async with asyncio.timeout(0.01):
                    await asyncio.gather(get(alias, timeout=60))

    run(main())
    assert free_for_others(alias)


@on_each_database
def test_cancelled_while_holding_releases(alias: str) -> None:
    """Like any block that fails; `asyncio.timeout` and a failing TaskGroup cancel, too."""

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
    """It waits for the release, even if all threads are busy: then the lock is free."""
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
    """It is no longer renewed; and the task is cancelled, whatever the failure."""
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


@pytest.mark.parametrize("ttl", [60, None])
def test_grant_that_comes_when_the_loop_has_ended_is_released(
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


def test_cancelled_between_the_grant_and_its_answer_leaves_no_lock(
    scripted: ScriptedBackend,
) -> None:
    """The call has ended by then, so another call undoes the grant."""

    stall = Stall()
    scripted.answer("acquire", stall)

    async def main() -> None:
        task = asyncio.create_task(aacquire_lock("1234collectPayment"))
        await stall.has_begun()
        stall.ended.set()
        executors.executors.pop("default").shutdown()  # blocks the loop until the grant
        assert scripted.owner
        task.cancel()
        await cancelled(task)

    run(main())
    assert scripted.calls == ["acquire", "release"]
    assert scripted.owner == ""
