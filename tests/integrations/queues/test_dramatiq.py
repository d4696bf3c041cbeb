"""Dramatiq's actors under locks, in a worker of the test's own."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockNotAcquired, aacquire_lock, distributed_lock
from django_distlock.leases.registry import current_registry
from django_distlock.runtime import stack_of
from tests.support.concurrency import until
from tests.support.documentation import example
from tests.support.holders import holding
from tests.support.leaving_views import names
from tests.support.task_queues import Charges, label_of, leave, leaving_behind

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dramatiq
    from dramatiq import middleware
    from dramatiq.brokers import stub

    raise_thread_exception: Any
    from dramatiq.results import backends as results
else:
    dramatiq = pytest.importorskip("dramatiq")
    middleware = pytest.importorskip("dramatiq.middleware")
    stub = pytest.importorskip("dramatiq.brokers.stub")
    raise_thread_exception = pytest.importorskip("dramatiq.middleware").raise_thread_exception
    results = pytest.importorskip("dramatiq.results.backends")

pytestmark = pytest.mark.once

PAGE = "integrations/dramatiq.md"


@pytest.fixture
def broker() -> Iterator[stub.StubBroker]:
    """Return a broker in memory, with the middleware that the how-to adds."""
    broker = stub.StubBroker(fail_fast_default=False)
    broker.add_middleware(middleware.AsyncIO())
    kept: Any = dramatiq.results.Results
    broker.add_middleware(kept(backend=results.StubBackend()))
    earlier = dramatiq.broker.global_broker
    dramatiq.set_broker(broker)
    example(PAGE, "Release locks that are left behind")
    yield broker
    broker.close()
    dramatiq.broker.global_broker = earlier


@contextmanager
def working(broker: stub.StubBroker, threads: int = 2) -> Iterator[dramatiq.Worker]:
    """Run worker threads; wait at the end until they have done all messages."""
    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=threads)
    worker.start()
    try:
        yield worker
        broker.join("default", timeout=20_000)
        worker.join()
    finally:
        worker.stop()


def test_contended_actor_is_retried(broker: stub.StubBroker, charges: Charges) -> None:
    """Of two messages for one customer at once, one waits for its retry. So the how-to says."""
    documented = example(PAGE, "Dramatiq")
    documented.payments = charges
    actor = documented.collect_payment
    assert actor.options.pop("min_backoff") == 1000
    with working(broker):
        actor.send_with_options(args=(1234,), min_backoff=1)
        actor.send_with_options(kwargs={"customer_id": 1234}, min_backoff=1)
    assert charges.customers == [1234, 1234]
    assert charges.labels == ["collect_payment"] * 2


def test_contended_async_actor_is_retried(broker: stub.StubBroker, charges: Charges) -> None:
    """As the other one."""

    @dramatiq.actor(max_retries=None, min_backoff=1, actor_name="shop.collect")
    @distributed_lock("<int:customer_id>collectPayment")
    async def collect_payment(customer_id: int) -> None:
        await charges.acollect_payment(customer_id)

    with working(broker):
        collect_payment.send(1234)
        collect_payment.send(1234)
    assert charges.customers == [1234, 1234]
    assert charges.labels == ["shop.collect"] * 2


def test_lock_above_the_decorator_is_refused(broker: stub.StubBroker) -> None:
    """It would be acquired by the code that sends the message."""
    with pytest.raises(TypeError, match=r"below @dramatiq\.actor"):
        distributed_lock("report")(dramatiq.actor(later))


def later(customer_id: int) -> None:
    """Retry without an error in the log."""
    raise dramatiq.Retry(delay=1)


@pytest.mark.parametrize(
    ("actor", "lock", "dead", "logged"),
    [
        ({"max_retries": 0}, {}, True, True),
        ({"throws": LockNotAcquired}, {}, True, False),
        ({"max_retries": 1}, {"on_conflict": later}, True, False),
        ({}, {"on_conflict": lambda customer_id: None}, False, False),
    ],
)
def test_refusal_is_what_the_table_says(
    broker: stub.StubBroker,
    caplog: pytest.LogCaptureFixture,
    actor: dict[str, Any],
    lock: dict[str, Any],
    dead: bool,
    logged: bool,
) -> None:
    """Retried, done, or dead; with an error in the log or without one."""

    @dramatiq.actor(**actor)  # type: ignore[untyped-decorator]
    @distributed_lock("<int:customer_id>collectPayment", **lock)
    def collect_payment(customer_id: int) -> None:
        raise NotImplementedError

    with holding("default"), working(broker):
        collect_payment.send(1234)
    assert len(broker.dead_letters) == dead
    assert ("LockNotAcquired" in caplog.text) == logged


def test_refusal_reaches_the_result(broker: stub.StubBroker) -> None:
    """As a text: that is what Dramatiq keeps of an error."""

    @dramatiq.actor(max_retries=0, store_results=True)
    @distributed_lock("<int:customer_id>collectPayment")
    def collect_payment(customer_id: int) -> None:
        raise NotImplementedError

    with holding("default"), working(broker):
        message = collect_payment.send(1234)
    with pytest.raises(dramatiq.results.ResultFailure, match="LockNotAcquired: Another thread"):
        message.get_result(block=True)


@pytest.mark.parametrize("fails", [False, True])
def test_actor_leaves_no_lock_behind(broker: stub.StubBroker, fails: bool) -> None:
    """Also if it fails. The actor's name is the label."""
    labels = []

    @dramatiq.actor(max_retries=0, actor_name="shop.leave")
    def leaving() -> None:
        labels.append(leave("report"))
        assert not fails

    with leaving_behind(), working(broker):
        leaving.send()
    assert labels == ["shop.leave"]


def test_async_actor_leaves_no_lock_behind(broker: stub.StubBroker) -> None:
    """It runs in the thread of Dramatiq's event loop."""
    labels = []

    @dramatiq.actor(max_retries=0, actor_name="shop.leave")
    async def leaving() -> None:
        assert await aacquire_lock("report")
        labels.append(label_of("report"))

    with leaving_behind(), working(broker):
        leaving.send()
    assert labels == ["shop.leave"]


def is_in(thread: threading.Thread, function: str) -> bool:
    """Return whether the thread is in a function of this name."""
    return function in [each.f_code.co_name for each, _ in traceback.walk_stack(stack_of(thread))]


class LateEvent(threading.Event):
    """Its waiters go on before the thread that sets it."""

    def set(self) -> None:
        """Set it, and dawdle."""
        super().set()
        time.sleep(0.02)


@pytest.mark.parametrize("is_async", [False, True])
def test_actor_that_exceeds_its_time_limit_leaves_no_lock_behind(
    broker: stub.StubBroker, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """Neither the decorator's nor another one: TimeLimit raises in the thread, as here.

    Dramatiq then waits for an async actor, until shortly before its end.
    """
    monkeypatch.setattr("dramatiq.asyncio.threading", SimpleNamespace(Event=LateEvent))
    at_work = threading.Event()

    @dramatiq.actor(max_retries=0)
    @distributed_lock("decorated")
    def hanging() -> None:
        leave("report")
        at_work.set()
        while True:
            time.sleep(0.001)

    @dramatiq.actor(max_retries=0)
    @distributed_lock("decorated")
    async def ahanging() -> None:
        assert await aacquire_lock("report")
        at_work.set()
        await asyncio.Event().wait()

    with leaving_behind(), working(broker, threads=1) as worker:
        (ahanging if is_async else hanging).send()
        assert at_work.wait(30)
        assert names("default") == ["decorated", "report"]
        [thread] = worker.workers
        until(lambda: not is_async or is_in(thread, "result"))  # waits for the event loop
        raise_thread_exception(thread.ident, dramatiq.middleware.TimeLimitExceeded)
    assert len(broker.dead_letters) == 1


def test_skipped_message_is_no_task_any_more(broker: stub.StubBroker) -> None:
    """Another middleware skips it after it has begun."""
    labels = []

    class Skip(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            if message.actor_name == "shop.skipped":
                raise middleware.SkipMessage

    @dramatiq.actor(actor_name="shop.skipped")
    def skipped() -> None:
        raise NotImplementedError

    @dramatiq.actor(actor_name="shop.other")
    def other() -> None:
        labels.append(len(current_registry().scopes))

    broker.add_middleware(Skip())
    with working(broker, threads=1):
        skipped.send()
        other.send()
    assert labels == [1]
