"""Huey's tasks under locks, in a queue in memory."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockNotAcquired, distributed_lock, skip
from django_distlock.integrations.huey import add_hooks
from django_distlock.leases.registry import current_registry
from tests.support.concurrency import elsewhere
from tests.support.documentation import example
from tests.support.holders import holding
from tests.support.task_queues import Charges, label_of, leave, leaving_behind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import huey
    from huey import exceptions
else:
    huey = pytest.importorskip("huey")
    exceptions = pytest.importorskip("huey.exceptions")

pytestmark = pytest.mark.once

PAGE = "integrations/huey.md"


@pytest.fixture
def queue(settings: Any) -> Iterator[Any]:
    """Return the site's Huey, with the hooks that the how-to adds."""
    settings.HUEY = huey.MemoryHuey(utc=True)
    example(PAGE, "Release locks that are left behind")
    yield settings.HUEY
    for module in [name for name in sys.modules if name.startswith("huey.contrib.djhuey")]:
        del sys.modules[module]


def work(queue: Any, timestamp: Any = None) -> Any:
    """Do what a worker does with the next message."""
    return execute(queue, queue.dequeue(), timestamp)


def execute(queue: Any, task: Any, timestamp: Any = None) -> Any:
    """Run the task in a thread of its own: Huey closes the connections of the one that it is in."""
    return elsewhere(lambda: queue.execute(task, timestamp))


def test_contended_task_is_retried(queue: Any, charges: Charges) -> None:
    """Of two tasks for one customer at once, one waits for its retry. So the how-to says."""
    documented = example(PAGE, "Huey")
    documented.payments = charges
    documented.collect_payment(1234)
    documented.collect_payment(customer_id=1234)
    with ThreadPoolExecutor(2) as workers:
        list(workers.map(work, [queue] * 2))
    [retried] = queue.scheduled()
    assert retried.retries == 19
    execute(queue, retried, retried.eta + timedelta(seconds=1))
    assert charges.customers == [1234, 1234]
    assert charges.labels == [f"{documented.__name__}.collect_payment"] * 2


def test_lock_above_the_decorators_is_refused(queue: Any) -> None:
    """It would be acquired by the code that enqueues the task."""
    djhuey = sys.modules["huey.contrib.djhuey"]
    lock = distributed_lock("report")
    with pytest.raises(TypeError, match=r"below @huey\.task"):
        lock(djhuey.db_task()(interrupt))
    with pytest.raises(TypeError, match="below @on_commit_task"):
        lock(djhuey.on_commit_task(name="on commit")(interrupt))


def later(customer_id: int) -> None:
    """Retry without an error in the log."""
    raise exceptions.RetryTask(delay=10)


@pytest.mark.parametrize(
    ("task", "lock", "retried", "logged"),
    [
        ({}, {}, False, True),
        ({"retries": 1, "retry_delay": 1}, {}, True, True),
        ({}, {"on_conflict": later}, True, False),
        ({"retries": 1}, {"on_conflict": skip}, False, False),
    ],
)
def test_refusal_is_what_the_table_says(
    queue: Any,
    caplog: pytest.LogCaptureFixture,
    task: dict[str, Any],
    lock: dict[str, Any],
    retried: bool,
    logged: bool,
) -> None:
    """Retried, done, or failed; with an error in the log or without one."""

    @queue.task(**task)  # type: ignore[untyped-decorator]
    @distributed_lock("<int:customer_id>collectPayment", **lock)
    def collect_payment(customer_id: int) -> None:
        raise NotImplementedError

    collect_payment(1234)
    with holding("default"):
        work(queue)
    assert len(queue.scheduled()) == retried
    assert ("LockNotAcquired" in caplog.text) == logged


def test_refusal_reaches_the_result_and_the_handler(queue: Any) -> None:
    """The one as a text, the other as the error itself, through a pickle."""
    handled: list[LockNotAcquired] = []

    @queue.task()  # type: ignore[untyped-decorator]
    @distributed_lock("<int:customer_id>collectPayment")
    def collect_payment(customer_id: int) -> None:
        raise NotImplementedError

    @queue.task()  # type: ignore[untyped-decorator]
    def handle(error: LockNotAcquired) -> None:
        handled.append(error)

    result = queue.enqueue(collect_payment.s(1234).error(handle))
    with holding("default") as lease:
        work(queue)
        work(queue)
    with pytest.raises(exceptions.TaskException, match="LockNotAcquired"):
        result.get()
    [error] = handled
    assert (error.semaphore, error.held_since) == ("1234collectPayment", lease.acquired_at)


def interrupt() -> None:
    """Do what the signal handler of a worker process does."""
    raise KeyboardInterrupt


def cancel() -> None:
    """Cancel the task."""
    raise exceptions.CancelExecution


def retry() -> None:
    """Run the task again."""
    raise exceptions.RetryTask(delay=10)


def time_out() -> None:
    """Do what Huey's time limit does."""
    raise exceptions.TaskTimeout


def fail() -> None:
    """Fail."""
    raise ZeroDivisionError


@pytest.mark.parametrize("end", [int, fail, retry, cancel, interrupt, time_out])
def test_task_leaves_no_lock_behind(queue: Any, end: Callable[[], object]) -> None:
    """However it ends. The task's name is the label."""
    labels = []

    @queue.task(name="leave")  # type: ignore[untyped-decorator]
    def leaving() -> None:
        labels.append(leave("report"))
        end()

    leaving()
    with leaving_behind():
        work(queue)
    assert labels == [f"{__name__}.leave"]
    assert current_registry().scopes == []


def test_task_that_another_hook_cancels_has_ended(queue: Any) -> None:
    """Huey calls no post-execute hook then."""

    @queue.task()  # type: ignore[untyped-decorator]
    def never() -> None:
        raise NotImplementedError

    @queue.pre_execute()  # type: ignore[untyped-decorator]
    def refuse(task: Any) -> None:
        raise exceptions.CancelExecution

    never()
    work(queue)
    assert current_registry().scopes == []


def test_immediate_task_inside_another_ends_for_itself(queue: Any) -> None:
    """The outer one keeps its lock. Adding the hooks twice makes no difference."""
    add_hooks(queue)
    queue.immediate = True
    labels = []

    @queue.task(name="inner")  # type: ignore[untyped-decorator]
    def inner() -> None:
        leave("report")

    @queue.task(name="outer")  # type: ignore[untyped-decorator]
    @distributed_lock("outer")
    def outer() -> None:
        with leaving_behind(held=["outer"]):
            inner()
        labels.append(label_of("outer"))

    outer()
    assert labels == [f"{__name__}.outer"]
