"""What is told about locks: by signals, to whoever receives them, and in the log."""

from __future__ import annotations

import logging
import threading
from collections import Counter as Tally
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections, transaction
from django.test import override_settings

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotAcquired,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
    signals,
)
from django_distlock.concurrency.background import background
from tests.app.models import Counter
from tests.support.concurrency import elsewhere
from tests.support.databases import SERVERS, committed, on_each_database, on_each_server
from tests.support.holders import (
    acquire,
    brief,
    due_now,
    expired,
    free_for_others,
    renew_now,
    take_away,
    work_off,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.dispatch import Signal

    from tests.support.scripted_store import ScriptedBackend

pytestmark = committed

NAMES = ["acquired", "contended", "released", "lost", "force_released"]


def signal(name: str) -> Signal:
    """Return one of the signals."""
    found: Signal = getattr(signals, f"lock_{name}")
    return found


@contextmanager
def received(name: str, receive: Callable[..., object]) -> Iterator[None]:
    """Call this for each signal of that name in the block."""
    signal(name).connect(receive, weak=False, dispatch_uid="received")
    try:
        yield
    finally:
        signal(name).disconnect(dispatch_uid="received")


class Told:
    """What was sent, in which order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []
        self.lost = threading.Event()
        self.receivers = {name: self._receiver(name) for name in NAMES}
        for name, receiver in self.receivers.items():
            signal(name).connect(receiver)

    def _receiver(self, name: str) -> Callable[..., None]:
        def receive(**arguments: Any) -> None:
            self.all.append((name, arguments))
            if name == "lost":
                self.lost.set()

        return receive

    @property
    def names(self) -> list[str]:
        """Return what was sent, but not its arguments."""
        work_off()
        return [name for name, _ in self.all]

    def about(self, lease: Lease) -> list[str]:
        """Return what was sent about this lease."""
        work_off()
        return [name for name, arguments in self.all if arguments.get("lease") is lease]

    def stop(self) -> None:
        """Receive no more."""
        for name, receiver in self.receivers.items():
            signal(name).disconnect(receiver)


@pytest.fixture
def told() -> Iterator[Told]:
    """Collect what is sent."""
    told = Told()
    yield told
    told.stop()


def lose(lease: Lease) -> None:
    """Let the thread that renews notice that an operator took the lease away."""
    take_away(lease)
    renew_now(lease)


@on_each_database
def test_life_of_a_lease_is_told(alias: str, told: Told) -> None:
    """Acquired, then released: once each, with the lease."""
    lease = acquire(alias)
    assert told.names == ["acquired"]
    lease.release()
    lease.release()
    assert told.about(lease) == told.names == ["acquired", "released"]
    assert {arguments["sender"] for _, arguments in told.all} == {Lease}


def test_lease_is_complete_when_it_is_told(scripted: ScriptedBackend) -> None:
    """A receiver may release what has been acquired, and knows what was released."""
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
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_contention_is_told_once_for_each_call(alias: str, told: Told, timeout: float) -> None:
    """However often the store was asked during the wait."""
    other = elsewhere(lambda: acquire(alias))
    for _ in range(2):
        assert acquire_lock("1234collectPayment", backend=alias, timeout=timeout) is None
    with (
        pytest.raises(LockNotAcquired),
        distributed_lock("1234collectPayment", backend=alias, timeout=timeout),
    ):
        pytest.fail("it is held by another thread")
    assert told.names == ["acquired"] + 3 * ["contended"]
    assert told.all[1][1] == {
        "signal": signals.lock_contended,
        "sender": Lease,
        "semaphore": "1234collectPayment",
        "backend": alias,
    }
    other.release()


def test_wait_that_was_worth_it_is_no_contention(scripted: ScriptedBackend, told: Told) -> None:
    """The lock was acquired before the timeout."""
    scripted.owner = "somebody else"
    tries = scripted.acquire

    def acquire_and_let_go(*args: Any) -> Any:
        grant = tries(*args)
        scripted.owner = ""
        return grant

    vars(scripted)["acquire"] = acquire_and_let_go
    assert acquire_lock("1234collectPayment", timeout=60)
    assert told.names == ["acquired"]


@pytest.mark.parametrize("error", [LockBackendUnavailable("down"), SystemExit()])
def test_store_that_does_not_answer_is_no_contention(
    scripted: ScriptedBackend, told: Told, error: BaseException
) -> None:
    """Busy is not down."""
    scripted.answer("acquire", error)
    with pytest.raises(type(error)):
        acquire_lock("1234collectPayment")
    assert told.names == []


def test_wait_for_oneself_is_no_contention(scripted: ScriptedBackend, told: Told) -> None:
    """It is an error of the program."""
    lease = acquire("default")
    with pytest.raises(LockError):
        acquire_lock("1234collectPayment", timeout=1)
    assert told.about(lease) == told.names == ["acquired"]


def test_reentry_is_not_told(scripted: ScriptedBackend, told: Told) -> None:
    """It is one lease, acquired and released once."""
    for _ in range(3):
        acquire("default", reentrant=True)
    for _ in range(3):
        assert "released" not in told.names
        release_lock("1234collectPayment")
    assert told.names == ["acquired", "released"]


@on_each_database
def test_release_that_was_a_loss_is_told_as_one(alias: str, told: Told) -> None:
    """Lost, and not released."""
    lease = acquire(alias, renew=False)
    take_away(lease)
    assert lease.release() is False
    assert told.names == ["acquired", "force_released", "lost"]
    assert told.all[-1][1]["lease"] is lease
    assert "an operator took it away" in told.all[-1][1]["reason"]


def test_failed_release_is_not_told(scripted: ScriptedBackend, told: Told) -> None:
    """Only the one that succeeds is."""
    lease = acquire("default")
    scripted.answer("release", LockBackendUnavailable("down"))
    with pytest.raises(LockBackendUnavailable):
        lease.release()
    assert told.names == ["acquired"]
    lease.release()
    assert told.names == ["acquired", "released"]


@on_each_database
@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("acquired", ["before", "inside"])
@pytest.mark.parametrize("depth", [1, 2])
def test_release_in_a_transaction_is_told_when_that_has_ended(
    alias: str, told: Told, failing: bool, acquired: str, depth: int
) -> None:
    """However it ends, and however deep inside the release was; on SQLite too."""
    lease = acquire(alias) if acquired == "before" else None
    with suppress(ZeroDivisionError), transaction.atomic(using=alias):
        with transaction.atomic(using=alias) if depth == 2 else nullcontext():
            given = lease or acquire(alias)
            assert given.release()
        assert told.names == ["acquired"]
        if failing:
            raise ZeroDivisionError
    assert told.about(given) == told.names == ["acquired", "released"]


@on_each_database
def test_release_that_an_inner_rollback_undid_is_told_once(alias: str, told: Told) -> None:
    """When the outer transaction has ended, and it is done again."""
    with transaction.atomic(using=alias):
        lease = acquire(alias)
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            lease.release()
            raise ZeroDivisionError
        assert told.names == ["acquired"]
    assert told.names == ["acquired", "released"]
    assert free_for_others(alias)


@on_each_server
def test_lock_that_is_acquired_again_in_a_transaction_is_told_once(alias: str, told: Told) -> None:
    """Nobody else had it in between, so it was neither released nor acquired."""
    leases = []
    with transaction.atomic(using=alias):
        for _ in range(3):
            with distributed_lock("1234collectPayment", backend=alias) as lease:
                leases.append(lease)
    for each in leases:
        renew_now(each)  # which nothing is renewed by any more
    assert told.names == ["acquired", "released"]
    assert [each.released for each in leases] == [True] * 3


@on_each_server
@pytest.mark.parametrize("failing", [False, True])
def test_deferred_release_that_is_a_loss_is_told_as_one(
    alias: str, told: Told, failing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The transaction is another database's, so its commit can't be refused."""
    with suppress(ZeroDivisionError), transaction.atomic():
        lease = acquire(alias)
        lease.release()
        take_away(lease)
        if failing:
            raise ZeroDivisionError
    assert told.names == ["acquired", "force_released", "lost"]
    assert "an operator took it away" in caplog.text
    assert not lease.released


@on_each_database
def test_receiver_may_acquire_what_is_released(alias: str, told: Told) -> None:
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
    assert Tally(told.names) == {"acquired": 2, "released": 2}


@on_each_server
def test_receiver_may_acquire_what_is_released_after_a_commit(alias: str, told: Told) -> None:
    """It isn't the transaction's any more."""
    again: list[Lease] = []

    def acquire_again(lease: Lease, **kwargs: Any) -> None:
        again.append(acquire(alias))

    with received("released", acquire_again), transaction.atomic(using=alias):
        acquire(alias).release()
    assert told.names == ["acquired", "released", "acquired"]
    [lease] = again
    assert lease.held
    assert lease.release()


@on_each_server
@pytest.mark.parametrize("failing", [False, True])
def test_receiver_may_write_when_the_release_is_told(alias: str, failing: bool) -> None:
    """As an audit does, also after a rollback: it is called in another thread then."""
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


# Lost


@on_each_database
def test_loss_is_told_once_whoever_notices(
    alias: str, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """The background first, here; then who asks, who releases, and who leaves the block."""
    with pytest.raises(LockLost), distributed_lock("1234collectPayment", backend=alias) as lease:
        lose(lease)
        assert told.lost.wait(60)
        with pytest.raises(LockLost):
            lease.check()
        with pytest.raises(LockLost):
            lease.renew()
        assert lease.release() is False
        assert release_lock(lease) is False
    assert told.about(lease) == ["acquired", "lost"]
    assert told.all[-1][1] == {
        "signal": signals.lock_lost,
        "sender": Lease,
        "lease": lease,
        "reason": told.all[-1][1]["reason"],
    }
    [line] = [record for record in caplog.records if "was lost" in record.message]
    assert line.levelno == logging.WARNING
    assert line.name == "django_distlock"
    for word in ("'1234collectPayment'", lease.holder, told.all[-1][1]["reason"]):
        assert word in line.message


@on_each_database
@pytest.mark.parametrize("how", ["check", "renew", "release", "leave"])
def test_loss_is_told_by_whatever_notices_it_first(alias: str, told: Told, how: str) -> None:
    """Without a background that could, here; and not again when the others notice."""
    with (
        pytest.raises(LockLost),
        distributed_lock("1234collectPayment", backend=alias, renew=False) as lease,
    ):
        take_away(lease)
        if how == "check":
            lease.mark_lost()
        with suppress(LockLost):
            if how != "leave":
                getattr(lease, how)()
        assert told.about(lease) == ["acquired"] + ["lost"] * (how != "leave")
    assert told.about(lease) == ["acquired", "lost"]


@on_each_database
def test_expiry_is_told_by_the_background(alias: str, told: Told) -> None:
    """With the reason, as soon as its time has passed."""
    lease = brief(alias, max_hold=0.1)
    assert told.lost.wait(60)
    assert told.about(lease) == ["acquired", "lost"]
    assert told.all[-1][1]["reason"] == "its max_hold has passed"
    assert lease.release() is False


@on_each_server
def test_loss_before_a_commit_is_told_once(alias: str, told: Told) -> None:
    """The guard notices, then the block."""
    with pytest.raises(LockLost), distributed_lock("1234collectPayment", backend=alias) as lease:
        with transaction.atomic(using=alias):
            take_away(lease)
    assert told.about(lease) == ["acquired", "lost"]


def test_release_is_not_told_of_what_expired_here(scripted: ScriptedBackend, told: Told) -> None:
    """Its successor's grant is told, and its own loss."""
    lease = expired("default")
    scripted.owner = ""
    successor = acquire("default")
    assert lease.release() is False
    assert told.about(lease) == ["acquired", "lost"]
    assert told.about(successor) == ["acquired"]


# Force-released


@on_each_database
def test_force_release_is_told_with_its_token(alias: str, told: Told) -> None:
    """And not what was tried in vain."""
    lease = acquire(alias, renew=False)
    assert lease.token
    store = lock_backends[alias]
    assert not store.force_release("1234collectPayment", lease.token - 1)
    assert not store.force_release("another", lease.token)
    assert told.names == ["acquired"]
    assert store.force_release("1234collectPayment", lease.token)
    assert not store.force_release("1234collectPayment", lease.token)
    assert told.names == ["acquired", "force_released"]
    assert told.all[-1][1] == {
        "signal": signals.lock_force_released,
        "sender": type(store),
        "semaphore": "1234collectPayment",
        "backend": alias,
        "token": lease.token,
    }


# Receivers that fail


@on_each_database
@pytest.mark.parametrize("name", NAMES)
def test_receiver_that_fails_breaks_nothing(
    alias: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises is logged; the other receivers are told."""
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
    """Nor any other callback."""
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
        work_off()
    assert called == (["receiver"] if failing else ["receiver", "callback"])
    assert "Error calling" in caplog.text
    assert free_for_others(alias)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("alias", SERVERS)
def test_receiver_that_fails_in_the_background_does_not_end_it(
    alias: str, told: Told, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """All that is lost is told, and what is held is renewed."""
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
        for _ in leases:  # what ends a process ends the look at the leases, too
            due_now(leases)
            work_off()
        renew_now(held)
    assert {*lost} == {*leases}
    assert len(lost) == 3
    assert caplog.text.count("a receiver's") >= 3
    assert thread.is_alive()
    assert background(alias).thread is thread
    first = held.expires_at
    renew_now(held)
    assert first
    assert held.expires_at
    assert held.expires_at > first
    assert held.release()


# The log


@on_each_database
@pytest.mark.parametrize("debug", [False, True])
def test_owner_is_in_no_log_over_a_whole_life(
    alias: str, debug: bool, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor in what is sent, if somebody logs that."""
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
        assert told.lost.wait(60)
        with suppress(LockLost), transaction.atomic(using=alias):
            lease = live()
            lease.release()
            if connections[alias].vendor != "sqlite":
                take_away(lease)
        refuse = mock_release(alias)
        with refuse, distributed_lock("1234collectPayment", backend=alias) as left:
            owners.append(str(left.owner))
        logged = "".join([caplog.text, str(connections[alias].queries), repr(told.all)])
    assert len(owners) == 4
    for owner in owners:
        assert owner not in logged
    left.release()


@contextmanager
def mock_release(alias: str) -> Iterator[None]:
    """Let the store be down for a release, with the statement's parameters in the traceback."""
    store = type(lock_backends[alias])
    release = vars(store)["release"]

    def refuse(self: Any, lease: Any, keep: float = 0) -> bool:
        raise LockBackendUnavailable("down")

    store.release = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        store.release = release  # type: ignore[method-assign]
