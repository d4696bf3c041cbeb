"""What a request or a task leaves behind when it ends is released then."""

import logging
import warnings
from typing import Any

from django.core.signals import request_finished, request_started

from .flows import current_flow

logger = logging.getLogger("django_distlock")


def begin(**kwargs: Any) -> None:
    """Take note of what this thread holds already: that isn't this request's or task's."""
    flow = current_flow()
    flow.begun.append(set(flow.leases.values()))


def end(**kwargs: Any) -> None:
    """Release what was acquired since it began, and warn of each."""
    flow = current_flow()
    earlier = flow.begun.pop() if flow.begun else set(flow.leases.values())
    left = [lease for lease in flow.leases.values() if lease not in earlier]
    for lease in left:
        lease.leave_behind()
        try:
            lease.release()
        except Exception:
            lease.let_end()  # or else it would be renewed for ever
            logger.exception("%s, which was left behind, could not be released.", lease)
    for lease in left:
        warnings.warn(
            f"{lease} was left behind by a request or task, and released at its end.",
            ResourceWarning,
            source=lease,
            stacklevel=2,
        )


request_started.connect(begin, dispatch_uid="django_distlock.leftovers")
request_finished.connect(end, dispatch_uid="django_distlock.leftovers")
try:
    from django.tasks.signals import task_finished, task_started
except ImportError:  # Django 5.2
    pass
else:
    task_started.connect(begin, dispatch_uid="django_distlock.leftovers")
    task_finished.connect(end, dispatch_uid="django_distlock.leftovers")
