"""Checks of decorated objects, and of the results of decorated calls."""

import inspect
from contextlib import asynccontextmanager, contextmanager
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from .resolution import task_decorator


def _generator_function() -> Any:
    """Stand for the function that contextlib makes a context manager of."""


LAZY: Final = (
    CoroutineType,
    GeneratorType,
    AsyncGeneratorType,
    # contextlib has no public names for these two.
    type(contextmanager(_generator_function)()),
    type(asynccontextmanager(_generator_function)()),
)
"""Results whose body runs after the call."""


def may_be_decorated(function: object) -> bool:
    """Tell whether a decorator may stand above it, rightly or not."""
    return callable(function) or isinstance(function, classmethod)


def refuse_undecorable(function: object) -> None:
    """Raise TypeError for an object whose work isn't done by calling it."""
    if decorator := task_decorator(function):
        raise TypeError(
            "A lock goes around what a task does, not around the task itself. Put "
            f"@distributed_lock(…) below {decorator}, directly above the function."
        )
    if isinstance(function, type):
        raise TypeError(
            f"{function.__name__} is a class. Lock one of its methods; of a class-based view, with "
            "@method_decorator(distributed_lock(…), name='dispatch')."
        )
    if not callable(function) or isinstance(function, staticmethod):
        raise TypeError(
            f"{function!r} can't be decorated. Put distributed_lock below @classmethod and "
            "@staticmethod."
        )
    # An object with a __call__ method is a generator function if that method is one.
    for called in (function, type(function).__call__):
        if inspect.isgeneratorfunction(called):
            _refuse_generator(function, "a generator", "with")
        if inspect.isasyncgenfunction(called):
            _refuse_generator(function, "an async generator", "async with")


def _refuse_generator(function: object, kind: str, block: str) -> None:
    raise TypeError(
        f"{function!r} is {kind}: its body runs after the call, when the lock would be "
        f"released. Use `{block} distributed_lock(…)` inside it."
    )


def refuse_lazy_result(result: object, function: object) -> None:
    """Raise TypeError for a result whose body would run after the release."""
    if isinstance(result, LAZY):
        if isinstance(result, CoroutineType):
            result.close()  # else Python warns that it was never awaited
        name = getattr(function, "__qualname__", type(function).__name__)
        raise TypeError(
            f"{name} returned a {type(result).__name__}, whose body would run without the "
            "lock. Decorate what is `async def`; inside a generator, use a `with` block."
        )
