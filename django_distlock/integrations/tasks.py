"""The scope of a task, for task queues that have no integration of their own."""

from types import TracebackType
from typing import Literal, Self

from django_distlock.leases.cleanup import afinish, finish, start

__all__ = ["task_scope"]


class task_scope:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Run a task of any task queue in this block: `with`, or in async code `async with`.

    `name` is the default label of the locks that the code acquires. Locks that the code still holds
    at the end of the block are released then, with a `ResourceWarning`. If the block ran an event
    loop, that includes the locks of its tasks that have ended.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        start(self.name, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        finish(self)
        return False

    async def __aenter__(self) -> Self:
        start(self.name, self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        await afinish(self)
        return False
