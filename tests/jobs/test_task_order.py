"""A lock above the decorator that makes a task is refused: it would hide the task's methods."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.local import Proxy

from django_distlock import distributed_lock

if TYPE_CHECKING:
    from collections.abc import Callable

lock = distributed_lock("<customer_id>collectPayment")


def collect(customer_id: int) -> None:
    """Collect a payment."""


def refusal_of(task: Any) -> str:
    """Return the error of a lock above this."""
    with pytest.raises(TypeError) as caught:
        lock(task)
    return str(caught.value)


@pytest.fixture
def app() -> Celery:
    """Return an application of the test's own."""
    return Celery("order", set_as_current=False)


def test_lock_above_a_celery_task_is_refused(app: Celery) -> None:
    """Otherwise `.delay` would be missing."""
    task = app.task(collect)
    message = refusal_of(task)
    assert "below @shared_task or @app.task" in message
    assert "directly above the function" in message
    # The task isn't made yet: an application may not be ready for that at import.
    assert not task.__evaluated__()
    assert not app.finalized


def test_lock_above_a_celery_task_that_is_made_is_refused(app: Celery) -> None:
    """By its proxy, and by itself."""
    task = app.task(collect)
    assert task.name.endswith("collect")
    assert "below @shared_task" in refusal_of(task)
    assert "below @shared_task" in refusal_of(app.tasks[task.name])


def test_lock_above_a_shared_task_is_refused() -> None:
    """Its proxy isn't evaluated: shared_task's proxy asks each application."""
    assert "below @shared_task" in refusal_of(Proxy(pytest.fail))


def test_lock_below_the_decorator_of_a_celery_task_is_accepted(app: Celery) -> None:
    """That is the right order."""
    assert callable(app.task(lock(collect)).delay)


def test_lock_above_a_task_of_django_is_refused() -> None:
    """Such a task can't be called, so the error is not the one for uncallable objects."""
    tasks = pytest.importorskip("django.tasks")
    assert "below @task, directly above the function" in refusal_of(tasks.task(collect))


@pytest.mark.parametrize(
    ("module", "name", "decorator"),
    [
        ("huey.api", "TaskWrapper", "@huey.task()"),
        ("huey", "TaskWrapper", "@huey.task()"),
        ("dramatiq.actor", "Actor", "@dramatiq.actor"),
        ("procrastinate.tasks", "Task", "@app.task"),
        ("django_tasks.base", "Task", "@task"),
    ],
)
def test_lock_above_a_task_of_another_queue_is_refused(
    module: str, name: str, decorator: str
) -> None:
    """By the type that its decorator returns, including a site's own class."""
    kind = type(name, (), {"__module__": module, "__call__": collect})
    own = type("Own", (kind,), {})
    assert f"below {decorator}, directly" in refusal_of(kind())
    assert f"below {decorator}, directly" in refusal_of(own())


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate in the usual way."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        raise NotImplementedError

    return wrapper


@pytest.mark.parametrize(
    ("method", "decorator"),
    [("delay", "@job"), ("enqueue", "@job"), ("call_local", "@on_commit_task()")],
)
def test_lock_above_a_function_that_can_be_enqueued_is_refused(method: str, decorator: str) -> None:
    """RQ and Huey give the function a method; a decorator in between passes that on."""

    @passed_on
    def job(customer_id: int) -> None:
        raise NotImplementedError

    vars(job)[method] = collect
    assert f"below {decorator}, directly above the function" in refusal_of(job)
    assert f"below {decorator}, directly above the function" in refusal_of(passed_on(job))


@pytest.mark.usefixtures("scripted")
def test_callables_other_than_tasks_are_accepted() -> None:
    """Even if an attribute is named like a task's method, or the module like a queue's."""

    class Collector:
        __module__ = "huey_like"

        def __call__(self, customer_id: int) -> str:
            return f"from {customer_id}"

    def work(customer_id: int) -> None:
        raise NotImplementedError

    vars(work)["delay"] = 5
    assert lock(work).__name__ == "work"
    assert lock(Collector())(7) == "from 7"
