"""Make a store unavailable during a test."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, NoReturn

from asgiref.sync import iscoroutinefunction

from django_distlock.backends.base import BaseLockBackend
from django_distlock.conf import lock_backends, on_created
from django_distlock.exceptions import LockBackendUnavailable

from .contexts import AsyncTestContextDecorator

CALLS: Final = (
    *("acquire", "renew", "release", "join", "leave", "guard"),
    *("aacquire", "arenew", "arelease", "ajoin", "aleave"),
    *("held", "find", "page", "waiters", "force_release", "clear_stale", "purge_released"),
    *("pause", "resume", "pauses", "status"),
)
"""The methods that call a store. Not every store has all of them."""


class store_down(AsyncTestContextDecorator):  # noqa: N801 - used like a function
    """Make the store of this alias unavailable: each call raises `LockBackendUnavailable`.

    Use it as `with`, as `async with`, or as a decorator of a function, sync or async, or of a
    `TestCase`, for each of its tests. The store is down for every thread and task of this process,
    also for renewals, lists, the admin and health checks. Other stores stay up. Afterwards it is up
    again, with all its locks. Leases go on unless their ttl has passed.

    With `reply_lost`, the store carries out each call, and only its answer is lost.
    """

    def __init__(self, alias: str = "default", *, reply_lost: bool = False) -> None:
        super().__init__()
        self._alias = alias
        self._reply_lost = reply_lost

    def enable(self) -> None:
        self._alias = lock_backends[self._alias].alias  # InvalidLockBackend if there is none
        on_created.append(self._take_down)
        lock_backends.reset()  # each thread makes its store anew

    def disable(self) -> None:
        on_created.remove(self._take_down)
        lock_backends.reset()

    def _take_down(self, store: BaseLockBackend) -> None:
        if store.alias == self._alias:
            for name in CALLS:
                if (call := getattr(store, name, None)) is not None:
                    vars(store)[name] = self._failing(call)

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def fail(*args: Any, **kwargs: Any) -> NoReturn:
            if self._reply_lost:
                call(*args, **kwargs)
            self._raise()

        @wraps(call)
        async def afail(*args: Any, **kwargs: Any) -> NoReturn:
            if self._reply_lost:
                await call(*args, **kwargs)
            self._raise()

        return afail if iscoroutinefunction(call) else fail

    def _raise(self) -> NoReturn:
        raise LockBackendUnavailable(
            f"DISTLOCK[{self._alias!r}]: down, by store_down() of a test",
            reply_lost=self._reply_lost,
        )
