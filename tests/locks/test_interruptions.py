"""Exceptions that come at any step: Ctrl-C, a soft time limit, a worker's timeout."""

from __future__ import annotations

import asyncio
import gc
import linecache
import logging
import math
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import connection, transaction

import django_distlock
from django_distlock import acquire_lock, distributed_lock, lock_backends
from django_distlock.concurrency.background import background
from django_distlock.concurrency.callers import current_caller
from django_distlock.leases.outcomes import stop_renewal
from django_distlock.leases.registry import current_registry
from tests.support.databases import committed
from tests.support.holders import acquire, finish_background_work
from tests.support.processes import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

PACKAGE = str(Path(django_distlock.__file__).parent)
ALIAS = "memory"
EVERY_STORE = [
    "default",
    "memory",
    *(
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("postgresql", "mariadb", "redis", "lock_server", "memcached")
    ),
]


class Interrupted(KeyboardInterrupt):
    """What a signal's handler raises."""


class Interruption:
    """Raises at the n-th step that the package takes in this thread: a call, a line, a return.

    Except in finalizers, whose exceptions Python drops, and at lines of `with`: these are traced
    once more on the way out, where no signal handler is ever called. An exception there would keep
    a lock from being released.
    """

    def __init__(self, at: int = -1) -> None:
        self.at = at
        self.steps = 0
        self.where = ""

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Raise in this block."""
        before = sys.gettrace()  # may be coverage's
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) or code.co_name == "__del__":
            return None
        if event in ("call", "line", "return") and not _is_with(frame, event):
            if self.steps == self.at:
                self.where = f"{code.co_qualname} {event}"
                raise Interrupted
            self.steps += 1
        return self._trace


def _is_with(frame: FrameType, event: str) -> bool:
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
    return event == "line" and line.startswith(("with ", "async with "))


def block() -> None:
    """Hold a lock in a block."""
    with distributed_lock("1234collectPayment", backend=ALIAS):
        pass


SHARED = distributed_lock("1234collectPayment", backend=ALIAS)


def shared_block() -> None:
    """Hold a lock in a block of an object that is also used elsewhere."""
    with SHARED:
        pass


@distributed_lock("1234collectPayment", backend=ALIAS)
def decorated() -> None:
    """Hold a lock during a call."""


def reentered() -> None:
    """Hold a lock in two blocks."""
    with distributed_lock("1234collectPayment", backend=ALIAS):
        with distributed_lock("1234collectPayment", backend=ALIAS, reentrant=True):
            pass


def block_in_transaction() -> None:
    """Leave a block in a transaction, whose end the release waits for."""
    with transaction.atomic(), distributed_lock("1234collectPayment", backend=ALIAS):
        pass


def block_in_task() -> None:
    """Hold a lock in a task's block."""

    async def main() -> None:
        async with distributed_lock("1234collectPayment", backend=ALIAS):
            pass

    with asyncio.Runner() as runner:
        runner.run(main())


def acquisition() -> None:
    """Acquire by a function."""
    acquire_lock("1234collectPayment", backend=ALIAS)


# Here the package can't catch the exception, but a living object refers to the lease.
UNPROTECTED = {
    shared_block: {
        "LockBlock.__enter__ return",
        "LockBlock.__exit__ call",
        "LockBlock.__exit__ line",
    },
    acquisition: {"acquire_lock return"},
}


@committed
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "scenario",
    [block, shared_block, decorated, reentered, block_in_transaction, block_in_task, acquisition],
)
def test_interruption_at_any_step_leaves_nothing_that_is_renewed(
    scenario: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The lock is released, or ends with its ttl; the thread can acquire it again."""
    scenario()  # the first time fills caches
    forget_all()
    whole = Interruption()
    with whole.armed():
        scenario()
    forget_all()
    gc.collect()
    gc.freeze()  # so that the garbage of each step is found quickly
    wrong = []
    for at in range(whole.steps):
        interruption = Interruption(at)
        with suppress(Interrupted), interruption.armed():
            scenario()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, type(caplog.handler)):
                handler.clear()  # a logged error refers to all frames that it passed
        if interruption.where:  # there may have been fewer steps this time
            wrong += [f"{interruption.where}: {what}" for what in left_over()]
        forget_all()
    gc.unfreeze()
    forget_all()
    gc.collect()  # while the warnings of what was interrupted are ignored
    allowed = UNPROTECTED.get(scenario, set())
    assert [each for each in wrong if each.partition(":")[0] not in allowed] == []
    assert whole.steps > 100


def left_over() -> Iterator[str]:
    """Return the leases and entries that must not be left."""
    if connection.in_atomic_block or connection.run_on_commit or connection.needs_rollback:
        connection.close()
    gc.collect()
    if background(ALIAS).renewals.next_due() < math.inf:
        finish_background_work()  # releases that a rollback left to the background
    if background(ALIAS).renewals.next_due() < math.inf:
        yield "a lease is renewed"
    if current_registry().guarding_leases():
        yield "a commit depends on a lease"
    try:
        acquire_lock("1234collectPayment", backend=ALIAS, timeout=0.0001)
    except Exception as error:  # noqa: BLE001 - whatever it is
        yield f"another acquisition raises {error!r}"


def forget_all() -> None:
    """Forget all leases and locks."""
    registry = current_registry()
    for lease in registry.leases():
        lease.claim_end()
        stop_renewal(lease)
        registry.remove(lease)
    registry.block_entries.clear()
    registry.deferred_releases.clear()
    current_caller().registry = None
    lock_backends[ALIAS].clear()  # type: ignore[attr-defined]


@committed
@pytest.mark.once
@pytest.mark.parametrize("alias", EVERY_STORE)
def test_random_signals_leave_no_lock_that_is_renewed(alias: str) -> None:
    """200 blocks, interrupted at random moments while another lease is renewed."""
    ttl = "1" if alias == "memcached" else "0.2"  # it has no shorter ttl
    with Workers(1, "interrupt_blocks", alias, "200", ttl) as workers:
        assert workers.results() == [[]]


@committed
def test_block_of_a_generator_that_is_garbage_in_a_cycle_is_left() -> None:
    """The block doesn't need the objects that the garbage collector clears first."""

    def hold(own: list[Any]) -> Iterator[None]:
        with distributed_lock("1234collectPayment", backend=ALIAS):
            yield

    own: list[Any] = []
    own.append(hold(own))
    next(own[0])
    del own
    gc.collect()
    assert acquire(ALIAS, "1234collectPayment").release()


@committed
def test_interrupted_commit_without_a_lock_is_left_to_django() -> None:
    """No lease depends on it."""
    connection.ensure_connection()
    driver = mock.Mock(wraps=connection.connection)
    driver.commit.side_effect = Interrupted
    with mock.patch.object(connection, "connection", driver):
        with pytest.raises(Interrupted), transaction.atomic():
            pass
    connection.close()
