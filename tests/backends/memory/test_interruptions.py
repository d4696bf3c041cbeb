"""Interruptions of calls to the memory backend: threads, signals, finalizers and forks."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING

import pytest

from django_distlock import Lease, acquire_lock, distributed_lock, release_lock
from tests.support.concurrency import elsewhere
from tests.support.holders import acquire
from tests.support.memory_stores import ALIAS, memory_store
from tests.support.processes import forked

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock.backends import memory


class Cycle:
    """An object that only the garbage collector frees, and whose finalizer releases a lock."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.itself = self

    def __del__(self) -> None:
        self.lease.release()


def test_finalizer_can_release_a_lock_during_another_call(
    shared_table: memory.SharedTable,
) -> None:
    """The garbage collector may run in any thread, also in one that uses the table."""
    microseconds = shared_table.table.microseconds

    def collect() -> int:
        gc.collect()
        return microseconds()

    def work() -> None:
        for semaphore in ("5678collectPayment", "9012collectPayment"):
            Cycle(acquire(ALIAS, semaphore))
        shared_table.table.microseconds = collect
        with distributed_lock("1234collectPayment", backend=ALIAS):
            assert shared_table.table.names() == ["1234collectPayment"]

    thread = threading.Thread(target=work, daemon=True)
    gc.disable()
    try:
        thread.start()
        thread.join(30)
    finally:
        gc.enable()
    assert not thread.is_alive()
    assert len(shared_table.table) == 0


def test_exception_in_a_signal_handler_never_leaves_the_table_locked(
    shared_table: memory.SharedTable,
) -> None:
    """As of a time limit: wherever it strikes, the other threads can use the table."""
    store, numbers = memory_store(), count()

    def ask(times: int) -> None:
        for number in islice(numbers, times):
            store.acquire(f"a{number % 10}", f"{number}", 0.0001, "")

    ask(1)
    earlier, trace = signal.signal(signal.SIGALRM, signal.default_int_handler), sys.gettrace()
    for each in range(200):
        sys.settrace(
            lambda *arguments: None
        )  # keep the coverage measurement from being interrupted
        with suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + each * 0.000003)
            ask(5000)
            pytest.fail("it was not interrupted")
        sys.settrace(trace)
        assert elsewhere(partial(shared_table.mutex.acquire, timeout=30)), each
        shared_table.reset()
    signal.signal(signal.SIGALRM, earlier)


def test_one_thread_at_a_time_uses_the_table(
    shared_table: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """While one thread uses the table, all others wait; then each has its turn."""
    store, (held, other) = memory_store(), (acquire(ALIAS), acquire(ALIAS, "5678collectPayment"))
    place = store.join("1234collectPayment", "waits", "", lambda: None)
    assert held.token is not None
    calls: list[Callable[[], object]] = [
        partial(store.acquire, "9012collectPayment", "one", 60, ""),
        partial(store.join, "1234collectPayment", "one", "", lambda: None),
        partial(store.renew, [held]),
        partial(store.release, other),
        partial(store.force_release, "1234collectPayment", held.token),
        lambda: list(store.held()),
        lambda: place.patience,
        partial(store.leave, place, False),
        store.clear,
    ]
    with shared_table.mutex:
        under_way = [threads.submit(call) for call in calls]
        assert not wait(under_way, timeout=0.1).done
    assert not wait(under_way, timeout=30).not_done
    assert [each.exception() for each in under_way] == [None] * len(calls)


def test_child_forked_while_another_thread_uses_the_table_does_not_hang(
    shared_table: memory.SharedTable, threads: ThreadPoolExecutor
) -> None:
    """That thread doesn't exist in the child, so it would never release the table's lock."""
    inside, done = threading.Event(), threading.Event()

    def be_at_it() -> None:
        with shared_table.mutex:
            inside.set()
            done.wait(30)

    def work() -> None:
        signal.alarm(20)  # otherwise a failure would hang
        assert acquire_lock("1234collectPayment", backend=ALIAS)
        assert release_lock("1234collectPayment", backend=ALIAS)

    at_it = threads.submit(be_at_it)
    assert inside.wait(30)
    try:
        with forked(work):
            pass
    finally:
        done.set()
    at_it.result(30)
