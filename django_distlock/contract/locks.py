"""The public calls on this store, from threads and from tasks."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections

from django_distlock.clocks import monotonic
from django_distlock.exceptions import LockNotHeld
from django_distlock.locks.api import aacquire_lock, acquire_lock, arelease_lock, release_lock
from django_distlock.views.decorator import distributed_lock

from .cases import StoreTestCase

T = TypeVar("T")


class PublicCallTests(StoreTestCase):
    """acquire_lock(), release_lock(), distributed_lock() and their async twins."""

    def test_acquire_lock_and_release_lock(self) -> None:
        semaphore = self.new_semaphore()
        lease = acquire_lock(semaphore, backend=self.alias, label="contract")
        assert lease is not None
        self.assertTrue(lease.held)
        self.assertIsNone(acquire_lock(semaphore, backend=self.alias))
        self.assertTrue(release_lock(semaphore, backend=self.alias))
        self.assertFalse(lease.held)
        self.assert_free(semaphore)

    def test_async_twins(self) -> None:
        semaphore = self.new_semaphore()

        async def use() -> None:
            lease = await aacquire_lock(semaphore, backend=self.alias)
            assert lease is not None
            self.assertIsNone(await aacquire_lock(semaphore, backend=self.alias))
            await lease.arenew()
            await lease.acheck()
            with self.assertRaises(LockNotHeld):
                await asyncio.gather(arelease_lock(semaphore, backend=self.alias))
            with self.assertRaises(SynchronousOnlyOperation):
                acquire_lock(semaphore, backend=self.alias)
            self.assertTrue(await arelease_lock(semaphore, backend=self.alias))
            self.assertFalse(lease.held)
            async with distributed_lock(semaphore, backend=self.alias) as lease:
                self.assertTrue(lease.held)

        self.run_async(use())
        self.assert_free(semaphore)

    def test_released_lock_goes_to_those_who_wait(self) -> None:
        """A thread and a task get it in turn, and a wait ends at its timeout."""
        held = self.grant(self.new_semaphore())
        wait = partial(distributed_lock, held.semaphore, backend=self.alias, timeout=30)

        def wait_in_thread() -> int | None:
            with wait() as lease:
                return lease.token

        async def wait_in_task() -> int | None:
            async with wait() as lease:
                return lease.token

        kinds = ["thread", "task"]

        def wait_somewhere() -> int | None:
            return wait_in_thread() if kinds.pop() == "thread" else self.run_async(wait_in_task())

        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(self.in_threads, 2, wait_somewhere)
            began = monotonic()
            self.assertIsNone(acquire_lock(held.semaphore, backend=self.alias, timeout=0.1))
            self.assertGreaterEqual(monotonic() - began, 0.1)
            self.assertFalse(waiting.done())
            self.assertTrue(self.backend.release(held))
            tokens = [held.token, *waiting.result(60)]
        if self.backend.supports_fencing:
            self.assertEqual(len({*tokens}), 3)
            self.assertEqual(tokens[0], min(tokens, key=lambda token: token or 0))
        self.assert_free(held.semaphore)

    def test_cancelled_tasks_leave_nothing_behind(self) -> None:
        semaphore = self.new_semaphore()

        async def hold() -> None:
            async with distributed_lock(semaphore, backend=self.alias, timeout=60):
                await asyncio.sleep(60)

        async def cancel() -> None:
            tasks = [asyncio.create_task(hold()) for _ in range(5)]
            for task in tasks:
                await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.wait([task])

        self.run_async(cancel())
        self.assert_free(semaphore)

    def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it, and close the connections of asgiref's thread for sync code."""

        async def run_and_close() -> T:
            try:
                return await work
            finally:
                await sync_to_async(connections.close_all)()

        return asyncio.run(run_and_close())
