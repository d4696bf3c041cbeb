"""What a request or a task leaves behind when it ends is released then."""

import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any

from .registry import Flow, asgi_request, current_flow, end_asgi_request


def begin(**kwargs: Any) -> None:
    """Take note of what is held already: that isn't this request's or task's."""
    flow = current_flow()
    flow.begun.append({lease.owner: lease.reentries for lease in flow.all()})


def end(**kwargs: Any) -> None:
    """Release what was acquired since it began, and warn of each."""
    flow = current_flow()
    if flow.begun:
        _release(flow, flow.begun.pop())


def begin_request(**kwargs: Any) -> None:
    """See begin(). Under ASGI it has a task of its own, which holds nothing yet."""
    if asgi_request() is None:
        begin()


def end_request(**kwargs: Any) -> None:
    """See end()."""
    request = asgi_request()
    if request is None:
        end()
    else:
        for flow in end_asgi_request(request):
            _release(flow, {})


def _release(flow: Flow, earlier: dict[str, int]) -> None:
    """Release what the flow has but these owners, with their reentries, had not."""
    left = []
    for lease in flow.all():
        lease.drop_reentries(earlier.get(lease.owner, 0))
        if lease.owner not in earlier:
            left.append(lease)
    for lease in left:
        lease.release_for_nobody()
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
    _connect("celery.signals", "task_prerun", begin, "task_postrun", end)


_connect("django.core.signals", "request_started", begin_request, "request_finished", end_request)
with suppress(ModuleNotFoundError):  # before Django 6.0
    _connect("django.tasks.signals", "task_started", begin, "task_finished", end)
