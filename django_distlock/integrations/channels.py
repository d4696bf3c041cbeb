"""Channels: ASGI middleware that releases the locks that a consumer left behind."""

from collections.abc import Awaitable, Callable
from typing import Any

from .tasks import task_scope

__all__ = ["ReleaseLocks"]

Application = Callable[..., Awaitable[Any]]


class ReleaseLocks:
    """ASGI middleware: at the end of a connection, release the locks that its consumer still holds.

    It doesn't matter whether the client disconnected, an error was raised, or the server cancelled
    the connection. Each such release gives a `ResourceWarning`. Without this middleware, such a
    lock ends with its ttl.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        async with task_scope(""):
            return await self.application(scope, receive, send)
