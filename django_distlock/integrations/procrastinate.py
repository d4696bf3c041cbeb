"""Procrastinate: middleware that releases the locks that tasks left behind."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from .tasks import task_scope

if TYPE_CHECKING:
    from procrastinate import JobContext
    from procrastinate.worker import Worker

__all__ = ["TASK_MIDDLEWARE"]


def of_sync_tasks(call_next: Callable[[], Any], context: "JobContext", worker: "Worker") -> Any:
    """Run a task in its scope."""
    with task_scope(context.job.task_name):
        return call_next()


async def of_async_tasks(
    call_next: Callable[[], Awaitable[Any]], context: "JobContext", worker: "Worker"
) -> Any:
    """See of_sync_tasks(). An aborted job ends when its locks are released."""
    async with task_scope(context.job.task_name):
        return await call_next()


TASK_MIDDLEWARE: Final = [of_sync_tasks, of_async_tasks]
"""Middleware for tasks: release the locks that a task still holds at its end.

In a task, its name is the default label of locks. Switch it on with
`PROCRASTINATE_WORKER_DEFAULTS = {"task_middleware": TASK_MIDDLEWARE}`.
"""
