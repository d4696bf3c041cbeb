"""Sync code goes on when the task that called it has been cancelled, as by a closed connection."""

from __future__ import annotations

import asyncio
import gc
import threading
from weakref import ref

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from django_distlock import LockLost, distributed_lock, release_lock
from tests.support.concurrency import run
from tests.support.databases import committed
from tests.support.holders import acquire, take_away
from tests.support.leases import internals
from tests.support.tasks import Stall

pytestmark = committed


@pytest.mark.parametrize("thread_sensitive", [True, False])
def test_sync_code_keeps_its_leases_when_its_task_has_ended(thread_sensitive: bool) -> None:
    """It releases by name, and its commits are guarded."""
    stall, has_ended = Stall(), threading.Event()
    seen: list[object] = []

    def view() -> None:
        try:
            acquire("memory")
            try:
                with distributed_lock("report", backend="memory") as lease:
                    stall()
                    take_away(lease)
                    internals(lease).mark_lost()
                    with transaction.atomic(using="locks"):
                        seen.append("open")
            except LockLost as error:
                seen.append(str(error))
            seen.append(acquire("memory", reentrant=True).held)
            seen.append(release_lock("1234collectPayment", backend="memory"))
            seen.append(release_lock("1234collectPayment", backend="memory"))
        finally:
            connections.close_all()
            has_ended.set()

    async def main() -> None:
        task = asyncio.create_task(sync_to_async(view, thread_sensitive=thread_sensitive)())
        while not (stall.begun.is_set() or task.done()):  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.001)
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.wait([task])
        ended = ref(task)
        del task
        gc.collect()
        stall.ended.set()
        assert ended() is None
        assert await asyncio.to_thread(has_ended.wait, 60)

    run(main())
    assert "lost before the commit" in str(seen.pop(1))
    assert seen == ["open", True, True, True]
