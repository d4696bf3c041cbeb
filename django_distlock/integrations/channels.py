"""Channels: ASGI middleware that releases the locks that a consumer left behind."""

from collections.abc import Awaitable, Callable
from typing import Any

from .tasks import task_scope

Application = Callable[..., Awaitable[Any]]


class ReleaseLocks:
    """Release what a consumer has not released when its connection ends, with a ResourceWarning.

    However it ends: by a disconnection, by an error, or by the server, which cancels it. Without
    this, a lock that was left behind ends with its ttl.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        async with task_scope(""):
            return await self.application(scope, receive, send)
