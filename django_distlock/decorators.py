"""`distributed_lock`: a lock around a block, a function or a view."""

import functools
import inspect
import logging
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import BadRequest
from django.http import HttpRequest

from .atomic_requests import request_transactions, rolled_back, take_over_transactions
from .exceptions import LockBackendUnavailable, LockLost, LockNotAcquired
from .flows import current_flow
from .http import contended, find_request, is_resolved, unavailable
from .leases import Lease
from .locks import BackendTtl, acquire_lock, leave
from .semaphores import PLACEHOLDER, InvalidSemaphore, SemaphoreTemplate

P = ParamSpec("P")
R = TypeVar("R")
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

logger = logging.getLogger("django_distlock")


def skip(*args: object, **kwargs: object) -> None:
    """Do nothing: `on_conflict=skip` lets a contended call return None."""


class distributed_lock:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Hold a semaphore for a `with` block, or for each call of what is decorated.

    As a context manager it yields the lease, and raises LockNotAcquired when contended.

    As a decorator it takes a template that is filled with the call's own arguments, such as
    `"<customer_id>collectPayment"` or `"<request.user.pk>:export"`, or a callable that makes the
    semaphore of them. A contended call raises LockNotAcquired, or returns what
    `on_conflict(*args, **kwargs)` does. A view that Django resolved for the request answers 409
    when contended (or what `on_conflict(request, …)` does), 503 when the store is down or the lease
    was lost, 400 when the semaphore is not valid; `http=True` or `False` says so whoever calls it.

    Leaving a block whose lease was lost raises LockLost, unless the block raises already. For the
    other arguments, see acquire_lock(). One object may serve many threads at once.
    """

    def __init__(
        self,
        semaphore: str | Callable[..., str],
        *,
        timeout: float | None = 0,
        ttl: float | BackendTtl | None = BackendTtl.DEFAULT,
        renew: bool = True,
        label: str = "",
        on_conflict: Callable[..., Any] | None = None,
        backend: str = "default",
        http: bool | None = None,
        reentrant: bool = False,
        min_hold: float | None = None,
        max_hold: float | None = None,
    ) -> None:
        self.semaphore = semaphore
        self.on_conflict = on_conflict
        self.http = http
        self._acquire = functools.partial(
            acquire_lock,
            timeout=timeout,
            ttl=ttl,
            renew=renew,
            label=label,
            backend=backend,
            reentrant=reentrant,
            min_hold=min_hold,
            max_hold=max_hold,
        )

    def __enter__(self) -> Lease:
        if not isinstance(self.semaphore, str) or PLACEHOLDER.search(self.semaphore):
            raise TypeError(
                f"{self.semaphore!r} is filled with a decorated call's arguments; a `with` block "
                "has none. Give the semaphore itself."
            )
        if self.on_conflict is not None:
            raise TypeError("on_conflict is for decorated calls; a `with` block raises.")
        lease = self._acquire(self.semaphore)
        if lease is None:
            raise LockNotAcquired(f"Somebody else holds {self.semaphore!r}.")
        current_flow().entered.append((self, lease))
        return lease

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        leave(current_flow().leave(self), failed=error is not None)
        return False

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        _refuse(function)
        if isinstance(self.semaphore, str):
            name = SemaphoreTemplate(self.semaphore).for_calls_of(function)
        else:
            name = self.semaphore

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> Any:
            request = self._served_request(function, locked, (args, kwargs))
            if request is None or self.http is False:
                return self._call(request, function, name, (args, kwargs))
            return self._answer(request, function, name, (args, kwargs))

        take_over_transactions(locked, function)
        return locked

    def _served_request(
        self, function: Callable[..., Any], locked: Callable[..., Any], arguments: Arguments
    ) -> HttpRequest | None:
        """Return the request if this is the call of a view by Django, None for any other call."""
        args, kwargs = arguments
        request = find_request(args, kwargs)
        if self.http:
            if request is None:
                raise TypeError("http=True is for views, but this call has no HttpRequest.")
            return request
        if request is None or not is_resolved(request, locked, _instance(function, args)):
            return None
        return request

    def _call(
        self,
        request: HttpRequest | None,
        function: Callable[..., Any],
        name: Callable[..., str],
        arguments: Arguments,
    ) -> Any:
        """Call the function while holding its semaphore."""
        args, kwargs = arguments
        semaphore = name(*args, **kwargs)
        lease = self._acquire(semaphore)
        if lease is None:
            if self.on_conflict is None:
                raise LockNotAcquired(f"Somebody else holds {semaphore!r}.")
            return self.on_conflict(*args, **kwargs)
        return _call_holding(lease, request, function, arguments)

    def _answer(
        self,
        request: HttpRequest,
        view: Callable[..., Any],
        name: Callable[..., str],
        arguments: Arguments,
    ) -> Any:
        """Answer the request while holding the view's semaphore, or say why that can't be."""
        args, kwargs = arguments
        try:
            lease = self._acquire(name(*args, **kwargs))
        except InvalidSemaphore as error:
            raise BadRequest(str(error)) from error
        except LockBackendUnavailable:
            logger.exception("A locked view was not called: its lock's store is unavailable.")
            return rolled_back(unavailable(request))
        if lease is None:
            if self.on_conflict is None:
                return rolled_back(contended(request))
            without_self = args[args.index(request) :] if request in args else args
            return self.on_conflict(*without_self, **kwargs)
        try:
            return _call_holding(lease, request, view, arguments)
        except LockLost as error:
            if error.lease is not lease:
                raise
            logger.exception("A locked view's work may have been done twice, or not at all.")
            return rolled_back(unavailable(request))


def _call_holding(
    lease: Lease,
    request: HttpRequest | None,
    function: Callable[..., Any],
    arguments: Arguments,
) -> Any:
    """Call the function inside the lock, and a request's transaction between the two."""
    args, kwargs = arguments
    flow = current_flow()
    flow.entered.append((lease, lease))
    try:
        with request_transactions(request, function) if request else nullcontext():
            result = function(*args, **kwargs)
            if request and not lease.released:
                lease.check()  # while there still is a transaction to roll back
    except BaseException:
        leave(flow.leave(lease), failed=True)
        raise
    leave(flow.leave(lease), failed=False)
    return result


def _instance(function: Callable[..., Any], args: tuple[Any, ...]) -> object:
    """Return whose method this may be; what method_decorator gives is bound already."""
    bound = function.func if isinstance(function, functools.partial) else function
    return getattr(bound, "__self__", args[0] if args else None)


def _refuse(function: object) -> None:
    """Raise TypeError for what can't be held under a lock by calling it."""
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
    if iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is async, which distributed_lock does not support yet.")
    if inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{function!r} is a generator: its body runs after the call, when the lock would be "
            "released. Use `with distributed_lock(…)` inside it."
        )
