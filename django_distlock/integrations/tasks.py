"""The scope of a task, for task queues that have no integration of their own."""

from types import TracebackType
from typing import Literal, Self

from django_distlock.leases.cleanup import afinish, finish, start


class task_scope:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Run a task's code in this block: `with`, or in async code `async with`.

    Its name is the default label of the locks that the code acquires. What the code has not
    released at the end of the block is released then, with a ResourceWarning. That includes what
    was acquired in an event loop that the block ran, by asyncio's tasks that have ended.
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
