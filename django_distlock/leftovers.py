"""What a request or a task leaves behind when it ends is released then."""

import logging
import warnings
from importlib import import_module
from typing import Any, Final

import django

from .flows import current_flow

logger = logging.getLogger("django_distlock")

BEGINNINGS_AND_ENDS: Final = [
    ("django.core.signals", "request_started", "request_finished"),
    *[("django.tasks.signals", "task_started", "task_finished")] * (django.VERSION >= (6,)),
]


def begin(**kwargs: Any) -> None:
    """Take note of what this thread holds already: that isn't this request's or task's."""
    flow = current_flow()
    flow.begun.append({lease.owner: lease.reentries for lease in flow.leases.values()})


def end(**kwargs: Any) -> None:
    """Release what was acquired since it began, and warn of each."""
    flow = current_flow()
    if not flow.begun:
        return
    earlier = flow.begun.pop()
    left = []
    for lease in flow.leases.values():
        lease.drop_reentries(earlier.get(lease.owner, 0))
        if lease.owner not in earlier:
            left.append(lease)
    for lease in left:
        try:
            lease.release()
        except Exception:
            lease.let_end()  # or else it would be renewed for ever
            logger.exception("%s, which was left behind, could not be released.", lease)
    for lease in left:
        warnings.warn(
            f"{lease} was left behind by a request or task, and ended with it: release it there.",
            ResourceWarning,
            source=lease,
            stacklevel=2,
        )


for module, started, finished in BEGINNINGS_AND_ENDS:
    for name, receiver in ((started, begin), (finished, end)):
        signal = getattr(import_module(module), name)
        signal.connect(receiver, dispatch_uid="django_distlock.leftovers")
