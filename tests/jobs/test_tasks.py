"""Locks in Django's tasks, new in Django 6.0."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
    skip,
)
from tests.support.documentation import example

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django import tasks

    from tests.support.scripted_store import ScriptedBackend
else:
    tasks = pytest.importorskip("django.tasks")

InvalidTask = pytest.importorskip("django.tasks.exceptions").InvalidTask
BACKEND = "django.tasks.backends.immediate.ImmediateBackend"


@tasks.task
@distributed_lock("<customer_id>collectPayment", on_conflict=skip)
def collect(customer_id: int, amount: int = 0) -> str:
    """Collect, or skip when contended."""
    return f"{amount} from {customer_id}"


@tasks.task
@distributed_lock("<customer_id>collectPayment")
def collect_or_fail(customer_id: int) -> str:
    """Collect, or fail."""
    return f"from {customer_id}"


@tasks.task(takes_context=True)
@distributed_lock("<customer_id>collectPayment", on_conflict=lambda context, customer_id: "busy")
def collect_in_context(context: tasks.TaskContext[Any, Any], customer_id: int) -> int:
    """Return the number of the attempt."""
    return context.attempt


@tasks.task(takes_context=True)
@distributed_lock("attempt:<context.attempt>:<customer_id>")
def collect_by_attempt(context: tasks.TaskContext[Any, Any], customer_id: int) -> None:
    """Take the semaphore from the context, too."""
    assert acquire_lock(f"attempt:1:{customer_id}") is None


@tasks.task
@distributed_lock("<customer_id>collectPayment")
async def acollect(customer_id: int) -> str:
    """Collect, and leave another lock behind."""
    assert await aacquire_lock("left", backend="memory")
    [left] = lock_backends["memory"].held("left")
    return f"from {customer_id} by {left.label}"


@pytest.fixture(autouse=True)
def immediately(scripted: ScriptedBackend) -> Iterator[None]:
    """Run a task when it is enqueued; keep the locks in a scripted store."""
    with override_settings(TASKS={"default": {"BACKEND": BACKEND}}):
        yield


def outcome(result: tasks.TaskResult[Any, Any]) -> Any:
    """Return a task's value, or the class of its error."""
    return result.errors[0].exception_class if result.errors else result.return_value


def test_locked_task_works_and_releases(scripted: ScriptedBackend) -> None:
    """However its arguments are given."""
    assert outcome(collect.enqueue(1234, 5)) == "5 from 1234"
    assert outcome(collect.enqueue(customer_id=1234, amount=6)) == "6 from 1234"
    assert scripted.calls == ["acquire", "release"] * 2


def test_async_task_works_and_releases() -> None:
    """Also what it left behind."""
    with pytest.warns(ResourceWarning, match="was not released by a request or task"):
        assert outcome(acollect.enqueue(1234)) == f"from 1234 by {__name__}.acollect"
    assert [*lock_backends["memory"].held("1234collectPayment")] == []
    acquire_lock("1234collectPayment")
    assert outcome(acollect.enqueue(customer_id=1234)) is LockNotAcquired


def test_contended_task_is_skipped() -> None:
    """That is a success: another task does the job."""
    acquire_lock("1234collectPayment")
    result = collect.enqueue(1234)
    assert result.status == tasks.TaskResultStatus.SUCCESSFUL
    assert result.return_value is None


def test_contended_task_fails_without_on_conflict() -> None:
    """With the lock's own error, after which a worker may retry."""
    lease = acquire_lock("1234collectPayment")
    assert lease is not None
    assert outcome(collect_or_fail.enqueue(1234)) is LockNotAcquired
    lease.release()
    assert collect_or_fail.call(1234) == "from 1234"


def test_store_that_is_down_is_not_a_conflict(scripted: ScriptedBackend) -> None:
    """The task fails: it is not skipped."""
    scripted.answer("acquire", LockBackendUnavailable("no route"))
    assert outcome(collect.enqueue(1234)) is LockBackendUnavailable


def test_task_whose_lease_is_lost_fails(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its return value is dropped."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    assert outcome(collect.enqueue(1234)) is LockLost


def test_context_is_an_argument_as_others() -> None:
    """Of the task, of on_conflict, and of a template."""
    assert outcome(collect_in_context.enqueue(1234)) == 1
    assert outcome(collect_by_attempt.enqueue(customer_id=1234)) is None
    acquire_lock("1234collectPayment")
    assert outcome(collect_in_context.enqueue(1234)) == "busy"


def test_documented_tasks_are_locked() -> None:
    """Those of docs/integrations/django-tasks.md: skipped, or enqueued again for later."""
    documented = example("integrations/django-tasks.md", "Django's tasks", "Retry later")
    charged: list[int] = []
    documented.payments = SimpleNamespace(collect_payment=charged.append)
    assert outcome(documented.collect_payment.enqueue(1234)) == "collected from 1234"
    acquire_lock("1234collectPayment")
    assert outcome(documented.collect_payment.enqueue(1234)) is None
    assert charged == [1234]
    release_lock("1234collectPayment")
    assert outcome(documented.refund_payment.enqueue(1234)) == "refunded 1234"
    acquire_lock("1234refundPayment")
    # This backend runs a task at once, and can't defer it.
    assert outcome(documented.refund_payment.enqueue(1234)) is InvalidTask


def test_locked_task_is_found_by_its_name() -> None:
    """As by a worker: its path is that of the function."""
    assert collect.module_path == f"{__name__}.collect"
    assert collect.name == "collect"


def test_locked_task_can_be_called() -> None:
    """Without a queue."""
    assert collect.call(1234, amount=7) == "7 from 1234"
