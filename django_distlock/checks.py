"""System checks: the DISTLOCK setting, and what each store has to say of its own part of it."""

from collections.abc import Iterator
from typing import Any

from django.core import checks

from .exceptions import InvalidLockBackend
from .handler import lock_backends


@checks.register
def check_lock_backends(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Yield an error for each alias that can't be made, and the messages of those that can."""
    try:
        aliases = list(lock_backends)
    except InvalidLockBackend as error:
        yield checks.Error(str(error), id="distlock.E001")
        return
    for alias in aliases:
        try:
            backend = lock_backends[alias]
        except InvalidLockBackend as error:
            yield checks.Error(str(error), id="distlock.E001")
        else:
            yield from backend.check(**kwargs)
