"""What watches locks, on each store."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from django_distlock import aacquire_lock, acquire_lock, distributed_lock
from django_distlock.test import LockTestMixin, assert_locked, no_lock_held_after_test
from tests.support.concurrency import elsewhere
from tests.support.databases import committed
from tests.support.kit_stores import on_each_store

pytestmark = [pytest.mark.once, committed]
LOCK = "1234collectPayment"


@on_each_store
def test_leaks_and_assertions(store: str) -> None:
    """Memcached neither lists its locks nor tells who holds one."""
    case = LockTestMixin()
    with pytest.raises(
        AssertionError, match=rf"'{LOCK}' \({store}\): acquired at \S+test_watching_s"
    ):
        with no_lock_held_after_test():
            lease = elsewhere(lambda: acquire_lock(LOCK, backend=store))
            case.assertHeld(LOCK, backend=store)
            with pytest.raises(AssertionError, match="It holds no lock") as raised:
                assert_locked(LOCK, store)
    assert ("can't list" in str(raised.value)) is (store == "memcached")
    assert lease is not None
    assert not lease.held
    case.assertNotHeld(LOCK, backend=store)
    with distributed_lock(LOCK, backend=store):
        assert_locked(LOCK, store)


@on_each_store
def test_leaks_and_assertions_in_async_code(store: str) -> None:
    """Where the store can't be asked, the process's own records count."""

    @no_lock_held_after_test()
    async def leak() -> None:
        assert await aacquire_lock(LOCK, backend=store)
        assert_locked(LOCK, store)

    async def main() -> None:
        try:
            await leak()
        finally:
            await sync_to_async(connections.close_all)()

    with pytest.raises(AssertionError, match=r"acquired at \S+test_watching_s\S+:\d+, in test_"):
        asyncio.run(main())
    LockTestMixin().assertNotHeld(LOCK, backend=store)
