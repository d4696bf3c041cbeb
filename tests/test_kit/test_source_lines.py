"""Where a lock is acquired, if no code of the site calls acquire_lock() itself."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from django_distlock import aacquire_lock, acquire_lock
from django_distlock.test import no_lock_held_after_test

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = "tests/test_kit/test_source_lines.py"
pytestmark = [pytest.mark.once, pytest.mark.usefixtures("in_memory")]


async def in_thread() -> object:
    """Acquire a lock in the thread of sync code."""
    return await sync_to_async(acquire_lock)("1234collectPayment")


def in_loop() -> object:
    """Acquire a lock in an event loop, which this thread waits for."""
    return async_to_sync(aacquire_lock)("1234collectPayment")


async def nested() -> object:
    """Do both."""
    return await sync_to_async(in_loop)()


def line_of(function: Callable[..., Any]) -> str:
    """Return the place of the function's only statement."""
    return f"{FILE}:{function.__code__.co_firstlineno + 2}, in {function.__name__}"


@pytest.mark.parametrize(
    ("test", "found"),
    [
        pytest.param(partial(async_to_sync(in_thread)), in_thread, id="async_to_sync"),
        pytest.param(lambda: asyncio.run(in_thread()), in_thread, id="asyncio.run"),
        pytest.param(in_loop, in_loop, id="sync"),
        pytest.param(lambda: asyncio.run(nested()), in_loop, id="nested"),
    ],
)
def test_code_that_waits_for_the_acquisition_is_found(
    test: Callable[[], object], found: Callable[[], object]
) -> None:
    """Not the code that runs the event loop, nor asgiref's."""
    kept = []
    with pytest.raises(AssertionError) as raised, no_lock_held_after_test():
        kept.append(test())
    assert str(raised.value).endswith(f": acquired at {line_of(found)}")
