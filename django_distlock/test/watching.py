"""The base of the tools that watch locks during a test: a context manager and a decorator."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from unittest import TestCase

from asgiref.sync import sync_to_async

from .contexts import AsyncTestContextDecorator

C = TypeVar("C", bound=Callable[..., Any])


class Watcher(AsyncTestContextDecorator):
    """Watches locks in a block, a function or each test of a TestCase; each may be async.

    A subclass may find a problem, which is raised as an AssertionError at the end. If the block
    raises itself, the problem is a note to its exception instead.
    """

    test: str = ""
    """The name of a decorated test."""

    def finish(self) -> str:
        """Stop watching; return the problem, or an empty text."""
        raise NotImplementedError

    def disable(self) -> None:
        """Stop watching, and raise AssertionError if there is a problem."""
        self.leave(None)

    def leave(self, error: BaseException | None) -> None:
        _report(self.finish(), error)

    async def aleave(self, error: BaseException | None) -> None:
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
        return super().decorate_callable(func)


def _report(problem: str, error: BaseException | None) -> None:
    if problem and error is None:
        raise AssertionError(problem)
    if problem and error is not None:
        error.add_note(problem)
