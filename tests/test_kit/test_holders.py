"""held_elsewhere(): a lock that another worker has, and waits that take no time."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.test import LiveServerTestCase, TestCase

from django_distlock import (
    LockBackendUnavailable,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
    skip,
)
from django_distlock.test import held_elsewhere, override_locks, store_down
from tests.support.admin_pages import LIST, log_in, text_of
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.holders import acquire, free_for_others, held_in
from tests.support.kit_stores import on_each_store
from tests.support.signals import received
from tests.support.visits import visit

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

pytestmark = pytest.mark.once

LOCK = "1234collectPayment"
LONG = 200
"""Seconds of a wait that a test does not take."""


@committed
@on_each_store
def test_lock_is_contended_in_the_block_whatever_the_timeout(store: str) -> None:
    """Waits are refused at once, with the whole timeout as `waited`; afterwards it is free."""
    began, told = time.monotonic(), list[dict[str, Any]]()
    with received("contended", lambda **fields: told.append(fields)):
        with held_elsewhere(LOCK, holder="db1 <b> worker", backend=store):
            assert acquire_lock(LOCK, backend=store) is None
            assert acquire_lock(LOCK, backend=store, timeout=LONG) is None
            assert elsewhere(lambda: acquire_lock(LOCK, backend=store, timeout=LONG)) is None
            with pytest.raises(LockNotAcquired) as refused:
                distributed_lock(LOCK, backend=store, timeout=LONG).__enter__()
    assert time.monotonic() - began < LONG / 10
    assert [round(fields["waited"]) for fields in told] == [0, LONG, LONG, LONG]
    if lock_backends[store].tells_holder:
        assert refused.value.holder == "db1 <b> worker"
        assert "Somebody else holds" in str(refused.value)
    assert free_for_others(store)


@committed
@on_each_store
def test_async_code_is_refused_at_once_too(store: str) -> None:
    """In the event loop, and in a thread of sync_to_async()."""

    async def main() -> None:
        async with held_elsewhere(LOCK, backend=store):
            assert await aacquire_lock(LOCK, backend=store, timeout=LONG) is None
            refused = partial(acquire_lock, LOCK, backend=store, timeout=LONG)
            assert await asyncio.to_thread(elsewhere, refused) is None
        lease = await aacquire_lock(LOCK, backend=store)
        assert lease is not None
        assert await lease.arelease()

    run(asyncio.wait_for(main(), LONG / 10))


@committed
@on_each_store
def test_other_worker_releases_the_lock_when_it_was_waited_for_long_enough(store: str) -> None:
    """A shorter wait is refused; from then on the lock is like any other."""
    began = time.monotonic()
    with held_elsewhere(LOCK, backend=store, release_after=30):
        for timeout in (20, 30, 30):
            assert acquire_lock(LOCK, backend=store, timeout=timeout) is None
        lease = acquire(store, timeout=LONG)
        assert 30 <= lease.waited < 32
        assert not free_for_others(store)
        assert lease.release()
        assert acquire(store, timeout=None).release()
    with held_elsewhere(LOCK, backend=store, release_after=30):
        assert acquire(store, timeout=None).release()
    assert time.monotonic() - began < 20


@committed
@on_each_store
def test_lock_that_is_held_already_is_refused_with_its_holder(store: str) -> None:
    """The test is wrong: the tested code, or an earlier one, has left it."""
    lease = acquire(store, label="nightly job")
    with pytest.raises(AssertionError, match="needs a lock that nobody holds") as refused:
        held_elsewhere(LOCK, backend=store).__enter__()
    if lock_backends[store].tells_holder:
        assert "nightly job" in str(refused.value)
    assert lease.release()
    with held_elsewhere(LOCK, backend=store):
        with pytest.raises(AssertionError, match="needs a lock that nobody holds"):
            held_elsewhere(LOCK, backend=store).__enter__()
        assert acquire_lock(LOCK, backend=store) is None


@pytest.mark.usefixtures("in_memory")
def test_wait_without_end_is_an_error_in_the_test() -> None:
    """It would hang."""
    with held_elsewhere(LOCK):
        with pytest.raises(AssertionError, match="for ever: it has no timeout"):
            acquire_lock(LOCK, timeout=None)

    async def main() -> None:
        async with held_elsewhere(LOCK):
            with pytest.raises(AssertionError, match="for ever"):
                await aacquire_lock(LOCK, timeout=None)

    run(main())
    assert held_in("default") == []


@pytest.mark.usefixtures("in_memory")
def test_forced_release_meanwhile_frees_the_lock() -> None:
    """The tested code may be an operator's; leaving the block is no error."""
    store = lock_backends["default"]
    with held_elsewhere(LOCK):
        [lock] = store.held()
        assert store.force_release(LOCK, lock.token or 0)
        with distributed_lock(LOCK) as lease:
            # A real wait: the kit's other worker does not hold it now.
            began = time.monotonic()
            assert elsewhere(lambda: acquire_lock(LOCK, timeout=0.02)) is None
            assert time.monotonic() - began >= 0.02
    assert not lease.held


@pytest.mark.usefixtures("in_memory")
def test_decorated_functions_are_called_while_the_lock_is_held() -> None:
    """Sync and async ones, each time."""

    @held_elsewhere(LOCK)
    def refused() -> bool:
        return acquire_lock(LOCK) is None

    @held_elsewhere(LOCK)
    async def arefused() -> bool:
        return await aacquire_lock(LOCK) is None

    for _ in range(2):
        assert refused()
        assert run(arefused())
    assert held_in("default") == []


@pytest.mark.usefixtures("in_memory")
def test_reentrant_and_on_conflict_are_as_with_any_other_holder() -> None:
    """The running code holds nothing itself."""

    @distributed_lock("<customer>collectPayment", timeout=LONG, on_conflict=skip)
    def collect(customer: int) -> str:
        return "collected"

    with held_elsewhere(LOCK):
        assert acquire_lock(LOCK, reentrant=True, timeout=LONG) is None
        assert collect(1234) is None
        assert collect(5) == "collected"


def test_sync_block_in_a_running_event_loop_needs_the_memory_store() -> None:
    """Another store would block the loop."""

    async def hold(store: str) -> None:
        with held_elsewhere(LOCK, backend=store):
            assert await aacquire_lock(LOCK, backend=store) is None

    run(hold("memory"))
    with pytest.raises(SynchronousOnlyOperation, match="async with"):
        run(hold("default"))


def test_arguments_are_checked_when_they_are_written() -> None:
    """Not in the middle of a test."""
    with pytest.raises(TypeError, match="is a template"):
        held_elsewhere("<customer_id>collectPayment")
    with pytest.raises(TypeError, match="holder is a str"):
        held_elsewhere(LOCK, holder=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="release_after is -1"):
        held_elsewhere(LOCK, release_after=-1)


@pytest.mark.usefixtures("in_memory")
def test_error_of_the_block_wins() -> None:
    """Over one of the store at its end, which is raised otherwise."""
    with ExitStack() as down:
        with pytest.raises(ZeroDivisionError), held_elsewhere(LOCK):
            down.enter_context(store_down())
            raise ZeroDivisionError
    with ExitStack() as down:
        with pytest.raises(LockBackendUnavailable), held_elsewhere("another"):
            down.enter_context(store_down())


@override_locks()
class Views(TestCase):
    @held_elsewhere(LOCK, holder="db1 pid 3 <script>")
    def test_view_answers_409_and_its_log_names_the_holder(self) -> None:
        @distributed_lock(LOCK, timeout=LONG)
        def view(request: HttpRequest) -> HttpResponse:
            raise NotImplementedError

        with self.assertLogs("django_distlock.views", logging.INFO) as logged:
            self.assertEqual(visit(view).status_code, 409)
        self.assertIn("db1 pid 3 <script>", logged.output[0])

    @held_elsewhere(LOCK, holder="db1 pid 3 <script>")
    def test_admin_lists_it(self) -> None:
        page = log_in("view_lock").get(LIST).content.decode()
        self.assertNotIn("pid 3 <script>", page)
        self.assertIn("db1 pid 3 <script>", text_of(page))


@override_locks()
@held_elsewhere(LOCK)
class EachTestOfAClass(TestCase):
    def test_lock_is_held(self) -> None:
        self.assertIsNone(acquire_lock(LOCK))

    test_again = test_lock_is_held


class InALiveServer(LiveServerTestCase):
    databases = {"default", "locks"}

    @override_locks()
    @held_elsewhere("7collectPayment")
    def test_waiting_view_is_refused_at_once(self) -> None:
        with pytest.raises(HTTPError, match="409"):
            urlopen(f"{self.live_server_url}/wait-read-and-write/7/", timeout=10)
