"""The same lock in async code: what its calls do."""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation

import django_distlock
from django_distlock import (
    Lease,
    LockError,
    LockLost,
    LockNotAcquired,
    LockNotHeld,
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    release_lock,
    skip,
)
from django_distlock.fencing import FencedModel
from django_distlock.signals import lock_contended
from tests.app.models import Invoice
from tests.support.concurrency import run
from tests.support.databases import committed, on_each_database
from tests.support.fenced_rows import create
from tests.support.holders import acquire, free_for_others, take_away
from tests.support.leases import internals
from tests.support.tasks import get, in_other_thread

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend


pytestmark = committed


TWINS: list[tuple[Any, Any]] = [
    (acquire_lock, aacquire_lock),
    (release_lock, arelease_lock),
    *((getattr(Lease, name), getattr(Lease, f"a{name}")) for name in ("check", "renew", "release")),
    (FencedModel.save, FencedModel.asave),
    (FencedModel.delete, FencedModel.adelete),
]


@pytest.mark.parametrize(("sync", "twin"), TWINS, ids=lambda each: each.__qualname__)
def test_twins_are_alike(sync: Any, twin: Any) -> None:
    """They differ only in being awaited; the twin's docstring names the sync function."""
    assert inspect.iscoroutinefunction(twin)
    assert inspect.signature(sync) == inspect.signature(twin)
    assert sync.__doc__
    assert twin.__doc__.startswith(f"See `{sync.__name__}()`.")


def test_every_public_function_has_a_twin() -> None:
    """A new sync function needs an async one."""
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
            assert internals(lease).released
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
    """It yields the lease, raises when contended, and releases, also when its body fails."""

    async def main() -> None:
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            assert lease.held
            with pytest.raises(LockNotAcquired):
                async with distributed_lock("1234collectPayment", backend=alias):
                    pytest.fail("It is held.")
        assert internals(lease).released
        with pytest.raises(ZeroDivisionError):
            async with distributed_lock("1234collectPayment", backend=alias) as lease:
                raise ZeroDivisionError
        assert internals(lease).released
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            async with distributed_lock(
                "1234collectPayment", backend=alias, reentrant=True
            ) as inner:
                assert inner is lease
            assert lease.held
            await lease.arelease()

    run(main())


@on_each_database
def test_lost_lease_is_reported(
    alias: str, lost: dict[Lease, str], moved_clock: MovedClock
) -> None:
    """By every action, and at the end of the block, unless the block raises already."""

    async def main() -> None:
        with pytest.raises(LockLost):
            async with distributed_lock("1234collectPayment", backend=alias) as lease:
                await asyncio.to_thread(take_away, lease)
                with pytest.raises(LockLost, match="no longer has it"):
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
    """The holder may be a thread or a task."""

    async def main() -> None:
        lease = await in_other_thread(acquire, alias)
        assert await aacquire_lock("1234collectPayment", backend=alias, timeout=0.05) is None
        waiting = asyncio.create_task(get(alias, timeout=60))
        await asyncio.sleep(0)
        await in_other_thread(lease.release)
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


def test_contention_sends_a_signal(scripted: ScriptedBackend) -> None:
    """Receivers may be sync or async."""
    received: list[object] = []

    def receive(*, semaphore: str, **kwargs: object) -> None:
        received.append(semaphore)

    async def areceive(*, semaphore: str, **kwargs: object) -> None:
        received.append(asyncio.current_task())

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
    assert len(received) == 2
    assert "1234collectPayment" in received


def test_one_block_object_serves_many_tasks(scripted: ScriptedBackend) -> None:
    """The object keeps no state of an entry (peer defects 1, 9 and 14)."""
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


@on_each_database
def test_fenced_writes(alias: str) -> None:
    """They set the fence, and are refused to an earlier holder."""
    invoice = create(alias)
    rows = Invoice.objects.using(alias).filter(pk=invoice.pk)
    semaphore = f"{invoice.customer_id}collectPayment"

    async def main() -> None:
        early = await in_other_thread(acquire, alias, semaphore)
        await in_other_thread(take_away, early)
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


@on_each_database
def test_sync_calls_are_refused_in_a_running_loop(alias: str, asking_owners: list[str]) -> None:
    """They would block it. Attributes of the lease can be read."""

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
