"""`distributed_lock`: a lock around a block, a function or a view."""

import functools
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Never, ParamSpec, TypeVar, overload

from asgiref.sync import iscoroutinefunction

from django_distlock.arguments import show
from django_distlock.locks.acquisition import Acquisition
from django_distlock.locks.arguments import (
    EXAMPLE,
    BackendTtl,
    check_arguments,
    refuse_unknown,
    requires_semaphore,
    validate_source,
)
from django_distlock.locks.labels import label_of
from django_distlock.semaphores.signatures import copy_signature
from django_distlock.semaphores.templates import SemaphoreTemplate

from .atomic_requests import take_over_transactions
from .block import CallableOrNone_co, LockBlock
from .calls import Call, LockedFunction
from .decorable import may_be_decorated, refuse_undecorable
from .held_calls import arun, run

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

NOTHING: Final[Any] = None
"""Stands for the function, in a call without arguments."""


def skip(*args: object, **kwargs: object) -> None:
    """Do nothing. With `on_conflict=skip`, a contended call returns None."""


class distributed_lock(LockBlock[CallableOrNone_co]):  # noqa: N801 - used like a function, as contextlib.suppress is
    """Hold a lock during a `with` block, or during each call of a decorated function.

    **As a context manager** it yields the lease. It raises `LockNotAcquired` if another holder has
    the lock. Leaving a block whose lease was lost raises `LockLost`, unless the block itself
    raises. Async code writes `async with`.

    **As a decorator** it takes a template, which each call fills with its own arguments, such as
    `"<int:customer_id>collectPayment"` or `"<request.user.pk>:export"`. Instead of a template, give
    a callable that returns the semaphore for the call's arguments. The function may be `async def`.
    A refused call raises `LockNotAcquired`, or returns `on_conflict(*args, **kwargs)`.

    **A view** that Django resolved for the request answers instead of raising:

    - 409 if another holder has the lock, or what `on_conflict(request, …)` returns;
    - 503 if the store is down, or if the lease was lost and the view's work is undone;
    - 400 if the request's values make no valid semaphore.

    `http=True` or `http=False` decides whether to answer, whatever Django resolved. Until a
    `StreamingHttpResponse` is closed, the lock is held; a `FileResponse` doesn't count.

    The other arguments are those of `acquire_lock()`. A wrong one raises at once, not at the first
    call. The default `label` is the name of the running task of a task queue, or else of the
    decorated function.

    Many threads may use one object at the same time. A decorated function has its locks in
    `distributed_locks`, a tuple with the outermost first. Decorators above that use
    `functools.wraps()` copy it.
    """

    @requires_semaphore
    def __init__(
        self,
        semaphore: str | Callable[..., str],
        *,
        timeout: float | None = 0,
        ttl: float | BackendTtl | None = BackendTtl.DEFAULT,
        renew: bool = True,
        label: str = "",
        on_conflict: CallableOrNone_co = None,  # type: ignore[assignment] # the default type, too
        backend: str = "default",
        http: bool | None = None,
        reentrant: bool = False,
        min_hold: float | None = None,
        max_hold: float | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            refuse_unknown(distributed_lock, unknown)
        validate_source(semaphore)
        check_arguments(timeout, ttl, renew, label, backend, reentrant, min_hold, max_hold)
        if on_conflict is not None and not callable(on_conflict):
            raise TypeError(
                f"on_conflict is a callable, not {show(on_conflict)}: write on_conflict=skip, with "
                "django_distlock's skip, to return None; or give a function of the arguments."
            )
        if not (http is None or isinstance(http, bool)):
            raise TypeError(f"http is True, False or None, not {show(http)}.")
        self.semaphore = semaphore
        self.on_conflict = on_conflict
        self.http = http
        self._entries = []
        self._new_acquisition = partial(
            Acquisition,
            timeout=timeout,
            ttl=ttl,
            renew=renew,
            label=label,
            backend=backend,
            reentrant=reentrant,
            min_hold=min_hold,
            max_hold=max_hold,
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of its acquisitions, by their names in acquire_lock()."""
        return self._new_acquisition.keywords

    # The first is for a lock without `on_conflict`, the next two are for async functions.
    @overload
    def __call__(self: "distributed_lock[None]", function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def __call__(
        self: "distributed_lock[Callable[..., Coroutine[Any, Any, C]]]",
        function: Callable[P, Coroutine[Any, Any, R]],
        /,
    ) -> Callable[P, Coroutine[Any, Any, R | C]]: ...
    @overload
    def __call__(
        self: "distributed_lock[Callable[..., C]]",
        function: Callable[P, Coroutine[Any, Any, R]],
        /,
    ) -> Callable[P, Coroutine[Any, Any, R | C]]: ...
    @overload
    def __call__(
        self: "distributed_lock[Callable[..., C]]", function: Callable[P, R], /
    ) -> Callable[P, R | C]: ...
    def __call__(
        self, function: Callable[..., Any] = NOTHING, /, *args: Any, **kwargs: Any
    ) -> Callable[..., Any]:
        is_template = isinstance(self.semaphore, str)
        if args or kwargs or not (is_template or may_be_decorated(function)):
            raise TypeError(
                f"distributed_lock({self.semaphore!r}) decorates a function, but was called with "
                f"something else. If parentheses are missing, write {EXAMPLE}."
            )
        refuse_undecorable(function)
        if isinstance(self.semaphore, str):
            template = self.semaphore
            make_semaphore = SemaphoreTemplate(template).for_calls_of(function)
        else:
            template = f"{label_of(self.semaphore)}()"
            make_semaphore = self.semaphore
        new_acquisition = partial(
            self._new_acquisition,
            template=template,
            function=label_of(function),
        )
        locked_function = LockedFunction(
            function, make_semaphore, new_acquisition, self.on_conflict, self.http
        )

        def locked(*args: Any, **kwargs: Any) -> Any:
            call = Call.of(locked_function, decorated, args, kwargs)
            return arun(call) if call.returns_coroutine() else run(call)

        async def alocked(*args: Any, **kwargs: Any) -> Any:
            return await arun(Call.of(locked_function, decorated, args, kwargs))

        decorated: Callable[..., Any]
        if iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
            # Django refuses ATOMIC_REQUESTS for an async view, and is left to do so.
            decorated = functools.wraps(function)(alocked)
        else:
            decorated = functools.wraps(function)(locked)
            take_over_transactions(decorated, function)
        copy_signature(decorated, function)
        earlier = getattr(function, "distributed_locks", ())
        vars(decorated)["distributed_locks"] = (self, *earlier)
        return decorated
