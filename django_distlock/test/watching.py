"""The base of what watches locks during a test: a context manager, and a decorator."""

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast
from unittest import TestCase

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.test.utils import TestContextDecorator

C = TypeVar("C", bound=Callable[..., Any])


class Watching(TestContextDecorator):
    """Watches locks in a block, a function or each test of a TestCase; each may be async.

    A subclass may find a problem, which is raised as an AssertionError at the end. If the block
    raises itself, the problem is a note to its exception instead.
    """

    test: str = ""
    """The name of a decorated test."""

    def enable(self) -> Any:
        """Start to watch, and return what `with … as` gives."""
        raise NotImplementedError

    def finish(self) -> str:
        """Watch no more; return the problem, or an empty text."""
        raise NotImplementedError

    def disable(self) -> None:
        """Watch no more, and raise AssertionError if there is a problem."""
        if problem := self.finish():
            raise AssertionError(problem)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _report(self.finish(), error)

    async def __aenter__(self) -> Any:
        return self.enable()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In a thread, since it may call a store.
        _report(await sync_to_async(self.finish)(), error)

    def decorate_class(self, cls: Any) -> Any:
        super().decorate_class(cls)
        set_up = cls.setUp

        @wraps(set_up)
        def set_up_watching(case: TestCase) -> None:
            self.test = case.id()
            set_up(case)

        cls.setUp = set_up_watching
        return cls

    def decorate_callable(self, func: C) -> C:
        self.test = f"{func.__module__}.{func.__qualname__}"
        if not iscoroutinefunction(func):
            return super().decorate_callable(func)

        @wraps(func)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            async with self as context:
                if self.kwarg_name:
                    kwargs[self.kwarg_name] = context
                return await func(*args, **kwargs)

        return cast("C", inner)


def _report(problem: str, error: BaseException | None) -> None:
    if problem and error is None:
        raise AssertionError(problem)
    if problem and error is not None:
        error.add_note(problem)
