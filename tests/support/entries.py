"""The ways to acquire a lock, with one set of arguments."""

from __future__ import annotations

from typing import Any

from django_distlock import aacquire_lock
from tests.support.concurrency import run

LONG = int("9" * 4_000) ** 2
"""Of more digits than Python shows."""
NAME = "1234collectPayment"


async def aacquire(*args: Any, **kwargs: Any) -> Any:
    return await aacquire_lock(*args, **kwargs)


def aacquire_and_wait(*args: Any, **kwargs: Any) -> Any:
    return run(aacquire(*args, **kwargs))
