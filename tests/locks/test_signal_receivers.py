"""Receivers of the signals: what they may do, and what happens when they fail."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections, transaction

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.concurrency.background import background
from django_distlock.test import store_down
from tests.app.models import Counter
from tests.support.databases import SERVERS, committed, on_each_database, on_each_server
from tests.support.holders import (
    acquire,
    due_now,
    finish_background_work,
    free_for_others,
    renew_now,
    take_away,
)

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend
from tests.support.signals import NAMES, SentSignals, received, signal

pytestmark = committed


def test_lease_is_complete_when_a_signal_is_sent(scripted: ScriptedBackend) -> None:
    """A receiver may release the acquired lease, and the released one is complete, too."""
    states = []

    def release(lease: Lease, **kwargs: Any) -> None:
        states.append(lease.held)
        assert release_lock("1234collectPayment")
        states.append(lease.held)

    with received("acquired", release):
        lease = acquire("default")
    assert states == [True, False]
    assert not lease.held


@on_each_database
def test_receiver_may_acquire_what_is_released(alias: str, signals_sent: SentSignals) -> None:
    """A released lease has nothing to do with the next."""
    again: list[Lease | None] = []

    def acquire_again(lease: Lease, **kwargs: Any) -> None:
        if not again:
            again.append(None)
            again[0] = acquire(alias)

    with received("released", acquire_again):
        with distributed_lock("1234collectPayment", backend=alias):
            pass
        assert again[0]
        assert again[0].release()
    assert Tally(signals_sent.names) == {"acquired": 2, "released": 2}


@on_each_server
def test_receiver_may_acquire_what_is_released_after_a_commit(
    alias: str, signals_sent: SentSignals
) -> None:
    """The new lease doesn't depend on the transaction."""
    again: list[Lease] = []

    def acquire_again(lease: Lease, **kwargs: Any) -> None:
        again.append(acquire(alias))

    with received("released", acquire_again), transaction.atomic(using=alias):
        acquire(alias).release()
    assert signals_sent.names == ["acquired", "released", "acquired"]
    [lease] = again
    assert lease.held
    assert lease.release()


@on_each_server
@pytest.mark.parametrize("failing", [False, True])
def test_receiver_of_released_may_write(alias: str, failing: bool) -> None:
    """Like an audit; after a rollback, too: then it is called in another thread."""
    written = threading.Event()

    def write(**kwargs: Any) -> None:
        Counter.objects.using(alias).create(value=13)
        written.set()

    with received("released", write):
        with suppress(KeyError), transaction.atomic(using=alias):
            acquire(alias).release()
            if failing:
                raise KeyError
        assert written.wait(60)
    assert connections[alias].get_autocommit()
    assert Counter.objects.using(alias).get().value == 13


# Receivers that fail


@on_each_database
@pytest.mark.parametrize("name", NAMES)
def test_receiver_that_fails_breaks_nothing(
    alias: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged; the other receivers are called."""
    called = []

    def fail(**kwargs: Any) -> None:
        raise ZeroDivisionError("a receiver's")

    def receive(**kwargs: Any) -> None:
        called.append(name)

    signal(name).connect(fail)
    try:
        with received(name, receive):
            lease = acquire(alias)
            assert acquire_lock("1234collectPayment", backend=alias) is None
            assert lease.release() is True
            lease = acquire(alias)
            assert lock_backends[alias].force_release("1234collectPayment", lease.token or 0)
            assert lease.release() is False
            with store_down(alias), pytest.raises(LockBackendUnavailable):
                acquire_lock("1234collectPayment", backend=alias)
    finally:
        signal(name).disconnect(fail)
    assert set(called) == {name}
    lines = [record for record in caplog.records if "a receiver's" in record.getMessage()]
    assert len(lines) == len(called)
    assert free_for_others(alias)


@on_each_server
@pytest.mark.parametrize("failing", [False, True])
def test_receiver_that_fails_after_a_transaction_breaks_nothing(
    alias: str, failing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The other callbacks run, too."""
    called = []

    def fail(**kwargs: Any) -> None:
        called.append("receiver")
        raise ZeroDivisionError

    with received("released", fail):
        with suppress(KeyError), transaction.atomic(using=alias):
            acquire(alias).release()
            transaction.on_commit(lambda: called.append("callback"), using=alias)
            if failing:
                raise KeyError
        finish_background_work()
    assert called == (["receiver"] if failing else ["receiver", "callback"])
    assert "Error calling" in caplog.text
    assert free_for_others(alias)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("alias", SERVERS)
def test_receiver_that_fails_in_the_background_does_not_end_it(
    alias: str,
    signals_sent: SentSignals,
    error: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All losses are sent, and held leases are renewed."""
    lost = []

    def fail(lease: Lease, **kwargs: Any) -> None:
        lost.append(lease)
        raise error("a receiver's")

    leases = [acquire(alias, semaphore) for semaphore in ("first", "second", "third")]
    held = acquire(alias, "held")
    thread = background(alias).thread
    assert thread is not None
    with received("lost", fail):
        for lease in leases:
            take_away(lease)
        for _ in leases:  # an error that ends a process ends this round of renewals, too
            due_now(leases)
            finish_background_work()
        renew_now(held)
    assert {*lost} == {*leases}
    assert len(lost) == 3
    assert "a receiver's" in caplog.text
    assert thread.is_alive()
    assert background(alias).thread is thread
    first = held.expires_at
    renew_now(held)
    assert first
    assert held.expires_at
    assert held.expires_at > first
    assert held.release()
