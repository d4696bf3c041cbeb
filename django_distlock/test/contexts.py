"""The base of the tools around a test: a context manager and a decorator, sync and async."""

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.test.utils import TestContextDecorator

C = TypeVar("C", bound=Callable[..., Any])
D = TypeVar("D")


class AsyncTestContextDecorator(TestContextDecorator):
    """A TestContextDecorator that also works with `async with` and around coroutine functions.

    A subclass overrides leave() to know the block's error, and __aenter__() and aleave() if it has
    to wait.
    """

    def __call__(self, decorated: D) -> D:
        """Decorate a function or a TestCase. Type checkers see its own type."""
        decorate: Any = super().__call__
        return cast("D", decorate(decorated))

    def leave(self, error: BaseException | None) -> None:
        """Leave the block, which may have raised this error."""
        self.disable()

    async def aleave(self, error: BaseException | None) -> None:
        """See leave()."""
        self.leave(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave(error)

    async def __aenter__(self) -> Any:
        return self.enable()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aleave(error)

    def decorate_callable(self, func: C) -> C:
        if not iscoroutinefunction(func):
            return super().decorate_callable(func)

        @wraps(func)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            async with self as context:
                if self.kwarg_name:
                    kwargs[self.kwarg_name] = context
                return await func(*args, **kwargs)

        return cast("C", inner)
