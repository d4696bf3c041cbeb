"""Cleanup release: of what a request or a task has not released when it ends."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from django_distlock.concurrency.executors import detach
from django_distlock.concurrency.store_calls import aask, ask
from django_distlock.conf import lock_backends
from django_distlock.runtime import current_asgi_request, running_task
from django_distlock.transactions import closing_new_connections

from .outcomes import unregister
from .registry import LeaseRegistry, current_registry, end_scope
from .release import release_quietly
from .state import LeaseState


def cleanup_release(lease: LeaseState) -> None:
    """Release the lease for code that has ended. Errors are logged.

    In a running event loop another task does it, which is not awaited.
    """
    unregister(lease)
    policy = partial(release_quietly, lease=lease)
    if running_task():
        detach(aask(lease.backend, policy))
    else:
        ask(lock_backends[lease.backend], policy)


def start(name: str = "", key: object = None) -> None:
    """Record the start of a task or request, and which leases are not its own.

    The name of a task is the default label of its locks. The key identifies it at its end.
    """
    current_registry().start(name, key)


def finish(key: object = None) -> None:
    """Release what was acquired since the start, and warn of each lease."""
    _release_all(_end(key))


async def afinish(key: object = None) -> None:
    """See finish(). Return when the leases are released."""
    leases = _end(key)
    for lease in leases:
        await aask(lease.backend, partial(release_quietly, lease=lease))
    _warn(leases)


def start_request(**kwargs: Any) -> None:
    """Under ASGI a request has a task of its own, which holds nothing yet."""
    if current_asgi_request() is None:
        start()


def finish_request(**kwargs: Any) -> None:
    """See finish()."""
    request = current_asgi_request()
    if request is None:
        finish()
    else:
        for registry in end_scope(request):
            _release_all(_leftovers(registry, {}))


def start_celery_task(*, task_id: str, task: Any, **kwargs: Any) -> None:
    start(task.name, task_id)


def finish_celery_task(*, task_id: str, **kwargs: Any) -> None:
    finish(task_id)


def start_django_task(*, task_result: Any, **kwargs: Any) -> None:
    start(task_result.task.module_path, task_result.id)


def finish_django_task(*, task_result: Any, **kwargs: Any) -> None:
    finish(task_result.id)


def _end(key: object) -> list[LeaseState]:
    """End the task or request, and return the leases that it did not release."""
    registry = current_registry()
    scope = registry.end(key)
    if scope is None:
        return []
    leases = _leftovers(registry, scope.earlier)
    for inner in end_scope(scope):
        leases += _leftovers(inner, {})
    return leases


def _leftovers(registry: LeaseRegistry, earlier: Mapping[str, int]) -> list[LeaseState]:
    """Remove and return the registry's leases, except those held earlier.

    Those keep as many reentries as they had then. If the release of the others is interrupted, as
    by a time limit, nothing refers to them any more: they end with their ttl.
    """
    leases = []
    for lease in registry.leases():
        lease.limit_reentries(earlier.get(lease.owner, 0))
        if lease.owner not in earlier:
            unregister(lease)
            leases.append(lease)
    return leases


def _release_all(leases: list[LeaseState]) -> None:
    if leases:
        with closing_new_connections():  # Django has closed those of the request by now
            for lease in leases:
                cleanup_release(lease)
        _warn(leases)


def _warn(leases: list[LeaseState]) -> None:
    for lease in leases:
        warnings.warn(
            f"{lease} was not released by a request or task, and ended with it: release it there.",
            ResourceWarning,
            source=lease,
            stacklevel=2,
        )


def _connect(module: str, started: str, start: Any, finished: str, finish: Any) -> None:
    for name, receiver in ((started, start), (finished, finish)):
        signal = getattr(import_module(module), name)
        signal.connect(receiver, dispatch_uid="django_distlock.leases.cleanup")


def connect_celery() -> None:
    """Clean up after the tasks of Celery, too, which this imports."""
    _connect("celery.signals", "task_prerun", start_celery_task, "task_postrun", finish_celery_task)


def connect_signals() -> None:
    """Clean up after requests, and after Django's own tasks."""
    _connect(
        "django.core.signals", "request_started", start_request, "request_finished", finish_request
    )
    with suppress(ModuleNotFoundError):  # before Django 6.0
        _connect(
            "django.tasks.signals",
            "task_started",
            start_django_task,
            "task_finished",
            finish_django_task,
        )
