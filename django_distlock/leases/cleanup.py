"""What a request or a task leaves behind when it ends is released then."""

import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any

from django_distlock.runtime import current_asgi_request
from django_distlock.transactions import closing_new_connections

from .registry import (
    LeaseRegistry,
    current_registry,
    registries_of_ended_request,
)


def start_task(**kwargs: Any) -> None:
    """Take note of what is held already: that isn't this request's or task's."""
    registry = current_registry()
    registry.held_at_start.append({lease.owner: lease.reentries for lease in registry.leases()})


def finish_task(**kwargs: Any) -> None:
    """Release what was acquired since it began, and warn of each."""
    registry = current_registry()
    if registry.held_at_start:
        _release(registry, registry.held_at_start.pop())


def start_request(**kwargs: Any) -> None:
    """See start_task(). Under ASGI it has a task of its own, which holds nothing yet."""
    if current_asgi_request() is None:
        start_task()


def finish_request(**kwargs: Any) -> None:
    """See finish_task()."""
    request = current_asgi_request()
    if request is None:
        finish_task()
    else:
        for registry in registries_of_ended_request(request):
            _release(registry, {})


def _release(registry: LeaseRegistry, earlier: dict[str, int]) -> None:
    """Release what the registry has but these owners, with their reentries, had not."""
    left = []
    for lease in registry.leases():
        lease.limit_reentries(earlier.get(lease.owner, 0))
        if lease.owner not in earlier:
            left.append(lease)
    if left:
        with closing_new_connections():  # Django has closed the request's by now
            for lease in left:
                lease.cleanup_release()
    for lease in left:
        warnings.warn(
            f"{lease} was left behind by a request or task, and ended with it: release it there.",
            ResourceWarning,
            source=lease,
            stacklevel=2,
        )


def _connect(module: str, started: str, begin: Any, finished: str, end: Any) -> None:
    for name, receiver in ((started, begin), (finished, end)):
        signal = getattr(import_module(module), name)
        signal.connect(receiver, dispatch_uid="django_distlock.leases.cleanup")


def connect_celery() -> None:
    """Do the same for the tasks of Celery, which is imported for that."""
    _connect("celery.signals", "task_prerun", start_task, "task_postrun", finish_task)


def connect_signals() -> None:
    """Do it for requests, and for Django's own tasks."""
    _connect(
        "django.core.signals", "request_started", start_request, "request_finished", finish_request
    )
    with suppress(ModuleNotFoundError):  # before Django 6.0
        _connect("django.tasks.signals", "task_started", start_task, "task_finished", finish_task)
