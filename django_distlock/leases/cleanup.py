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
from .registry import (
    LeaseRegistry,
    UnderWay,
    current_registry,
    registries_of_ended_request,
)
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


def start_task(**kwargs: Any) -> None:
    """Record a task, which `task` or `task_result` is, and the leases that are not its own."""
    result = kwargs.get("task_result")
    if result is None:
        _start(getattr(kwargs.get("task"), "name", None) or "")
    else:
        _start(result.task.module_path)


def _start(name: str = "") -> None:
    registry = current_registry()
    earlier: dict[str, int] = {lease.owner: lease.reentries for lease in registry.leases()}
    registry.under_way.append(UnderWay(name, earlier))


def finish_task(**kwargs: Any) -> None:
    """Release what was acquired since the start, and warn of each lease."""
    registry = current_registry()
    if registry.under_way:
        _release(registry, registry.under_way.pop().earlier)


def start_request(**kwargs: Any) -> None:
    """See start_task(). Under ASGI a request has a task of its own, which holds nothing yet."""
    if current_asgi_request() is None:
        _start()


def finish_request(**kwargs: Any) -> None:
    """See finish_task()."""
    request = current_asgi_request()
    if request is None:
        finish_task()
    else:
        for registry in registries_of_ended_request(request):
            _release(registry, {})


def _release(registry: LeaseRegistry, earlier: Mapping[str, int]) -> None:
    """Release the registry's leases, except those held earlier, with as many reentries as then."""
    leases = []
    for lease in registry.leases():
        lease.limit_reentries(earlier.get(lease.owner, 0))
        if lease.owner not in earlier:
            leases.append(lease)
    if leases:
        with closing_new_connections():  # Django has closed those of the request by now
            for lease in leases:
                cleanup_release(lease)
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
    _connect("celery.signals", "task_prerun", start_task, "task_postrun", finish_task)


def connect_signals() -> None:
    """Clean up after requests, and after Django's own tasks."""
    _connect(
        "django.core.signals", "request_started", start_request, "request_finished", finish_request
    )
    with suppress(ModuleNotFoundError):  # before Django 6.0
        _connect("django.tasks.signals", "task_started", start_task, "task_finished", finish_task)
