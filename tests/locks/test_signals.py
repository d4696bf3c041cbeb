"""The signals about a lock, and its log: acquired, contended, released, force-released."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.test import override_settings

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
    signals,
)
from django_distlock.leases.request import describe_holder
from tests.support.concurrency import elsewhere
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire, renew_now, take_away
from tests.support.leases import internals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.records import Released
    from tests.support.scripted_store import ScriptedBackend
from tests.support.signals import SentSignals, lose

pytestmark = committed


@on_each_database
def test_signals_follow_the_life_of_a_lease(alias: str, signals_sent: SentSignals) -> None:
    """Acquired, then released: once each, with the lease."""
    lease = acquire(alias)
    assert signals_sent.names == ["acquired"]
    lease.release()
    lease.release()
    assert signals_sent.about(lease) == signals_sent.names == ["acquired", "released"]
    assert {arguments["sender"] for _, arguments in signals_sent.all} == {Lease}


@on_each_database
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_contended_is_sent_once_for_each_call(
    alias: str, signals_sent: SentSignals, timeout: float
) -> None:
    """However often the store was polled during the wait."""
    other = elsewhere(lambda: acquire(alias))
    for _ in range(2):
        assert acquire_lock("1234collectPayment", backend=alias, timeout=timeout) is None
    with (
        pytest.raises(LockNotAcquired),
        distributed_lock("1234collectPayment", backend=alias, timeout=timeout),
    ):
        pytest.fail("it is held by another thread")
    assert signals_sent.names == ["acquired"] + 3 * ["contended"]
    sent = signals_sent.all[1][1]
    assert timeout <= sent.pop("waited") < 60
    assert sent.pop("holder") in (None, other.holder)
    assert sent == {
        "signal": signals.lock_contended,
        "sender": Lease,
        "semaphore": "1234collectPayment",
        "backend": alias,
        "template": "",
        "reason": "",
        "refused": describe_holder(),
    }
    other.release()


def test_wait_that_ends_with_a_grant_sends_no_contended(
    scripted: ScriptedBackend, signals_sent: SentSignals
) -> None:
    """The lock was acquired before the timeout."""
    scripted.owner = "somebody else"
    tries = scripted.acquire

    def acquire_and_let_go(*args: Any) -> Any:
        grant = tries(*args)
        scripted.owner = ""
        return grant

    vars(scripted)["acquire"] = acquire_and_let_go
    assert acquire_lock("1234collectPayment", timeout=60)
    assert signals_sent.names == ["acquired"]


@pytest.mark.parametrize(
    ("error", "sent"), [(LockBackendUnavailable("down"), ["unavailable"]), (SystemExit(), [])]
)
def test_store_that_does_not_answer_sends_no_contended(
    scripted: ScriptedBackend, signals_sent: SentSignals, error: BaseException, sent: list[str]
) -> None:
    """Busy is not down."""
    scripted.answer("acquire", error)
    with pytest.raises(type(error)):
        acquire_lock("1234collectPayment")
    assert signals_sent.names == sent


def test_wait_for_oneself_sends_no_contended(
    scripted: ScriptedBackend, signals_sent: SentSignals
) -> None:
    """It is a bug in the program."""
    lease = acquire("default")
    with pytest.raises(LockError):
        acquire_lock("1234collectPayment", timeout=1)
    assert signals_sent.about(lease) == signals_sent.names == ["acquired"]


def test_reentry_sends_no_signal(scripted: ScriptedBackend, signals_sent: SentSignals) -> None:
    """It is one lease, acquired and released once."""
    for _ in range(3):
        acquire("default", reentrant=True)
    for _ in range(3):
        assert "released" not in signals_sent.names
        release_lock("1234collectPayment")
    assert signals_sent.names == ["acquired", "released"]


@on_each_database
def test_release_of_a_lost_lease_sends_lost(alias: str, signals_sent: SentSignals) -> None:
    """It sends "lost", and not "released"."""
    lease = acquire(alias, renew=False)
    take_away(lease)
    assert lease.release() is False
    assert signals_sent.names == ["acquired", "force_released", "lost"]
    assert signals_sent.all[-1][1]["lease"] is lease
    assert "an operator took it away" in signals_sent.all[-1][1]["reason"]


def test_failed_release_sends_no_signal(
    scripted: ScriptedBackend, signals_sent: SentSignals
) -> None:
    """Only the release that succeeds does."""
    lease = acquire("default")
    scripted.answer("release", LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable):
        lease.release()
    assert signals_sent.names == ["acquired"]
    lease.release()
    assert signals_sent.names == ["acquired", "released"]


# Unavailable


@pytest.mark.parametrize("timeout", [0, 0.05])
@pytest.mark.parametrize("is_async", [False, True])
def test_store_without_an_answer_is_told_once_for_each_call(
    scripted: ScriptedBackend, signals_sent: SentSignals, timeout: float, is_async: bool
) -> None:
    """It is neither granted nor contended; a block that raises something else tells nothing."""
    scripted.answer("acquire", LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable) as raised:
        if is_async:
            async_to_sync(aacquire_lock)("1234collectPayment", timeout=timeout)
        else:
            acquire_lock("1234collectPayment", timeout=timeout)
    with pytest.raises(ZeroDivisionError), distributed_lock("1234collectPayment"):
        raise ZeroDivisionError
    assert signals_sent.names == ["unavailable", "acquired", "released"]
    sent = signals_sent.all[0][1]
    assert 0 <= sent.pop("waited") < 60
    assert sent == {
        "signal": signals.lock_unavailable,
        "sender": Lease,
        "semaphore": "1234collectPayment",
        "backend": "default",
        "error": raised.value,
        "template": "",
    }


# Force-released


@on_each_database
def test_force_released_is_sent_with_the_token(alias: str, signals_sent: SentSignals) -> None:
    """A force-release that fails sends nothing."""
    lease = acquire(alias, renew=False)
    assert lease.token
    store = lock_backends[alias]
    assert not store.force_release("1234collectPayment", lease.token - 1)
    assert not store.force_release("another", lease.token)
    assert signals_sent.names == ["acquired"]
    assert store.force_release("1234collectPayment", lease.token)
    assert not store.force_release("1234collectPayment", lease.token)
    assert signals_sent.names == ["acquired", "force_released"]
    assert signals_sent.all[-1][1] == {
        "signal": signals.lock_force_released,
        "sender": type(store),
        "semaphore": "1234collectPayment",
        "backend": alias,
        "token": lease.token,
        "by": "",
    }


# The log


@on_each_database
@pytest.mark.parametrize("debug", [False, True])
def test_owner_is_in_no_log_over_a_whole_life(
    alias: str, debug: bool, signals_sent: SentSignals, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor in the signals' arguments, if somebody logs these."""
    caplog.set_level(logging.DEBUG)
    owners: list[str] = []

    def live(**arguments: Any) -> Lease:
        lease = acquire(alias, label="who", **arguments)
        owners.append(str(lease.owner))
        return lease

    with override_settings(DEBUG=debug):
        lease = live(min_hold=0.01)
        assert acquire_lock("1234collectPayment", backend=alias) is None
        lease.renew()
        renew_now(lease)
        lease.release()
        with transaction.atomic(using=alias):
            assert acquire_lock("1234collectPayment", backend=alias, timeout=60)
            release_lock("1234collectPayment", backend=alias)
        lose(live())
        assert signals_sent.lost.wait(60)
        with suppress(LockLost), transaction.atomic(using=alias):
            lease = live()
            lease.release()
            if connections[alias].vendor != "sqlite":
                take_away(lease)
        refuse = mock_release(alias)
        with refuse, distributed_lock("1234collectPayment", backend=alias) as left:
            owners.append(str(internals(left).owner))
        logged = "".join([caplog.text, str(connections[alias].queries), repr(signals_sent.all)])
        logged += "".join(repr(vars(record)) for record in caplog.records)
    assert len(owners) == 4
    for owner in owners:
        assert owner not in logged
    left.release()


@contextmanager
def mock_release(alias: str) -> Iterator[None]:
    """Make a release fail, with the statement's parameters in the traceback."""
    store = type(lock_backends[alias])
    release = vars(store)["release"]

    def refuse(self: Any, lease: Any, keep: float = 0) -> Released:
        raise LockBackendUnavailable("down")

    store.release = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        store.release = release  # type: ignore[method-assign]
