"""`distributed_lock`: a lock around a block, a function or a view."""

import functools
import inspect
import logging
from collections.abc import Callable
from contextlib import (
    _AsyncGeneratorContextManager,
    _GeneratorContextManager,
    nullcontext,
    suppress,
)
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any, Final, Literal, NamedTuple, Never, ParamSpec, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest, HttpResponse

from django_distlock.arguments import show
from django_distlock.exceptions import LockBackendUnavailable, LockLost
from django_distlock.leases.block_release import (
    arelease_block,
    end_interrupted_block,
    release_block,
)
from django_distlock.leases.commit_guard import guard, may_have_committed
from django_distlock.leases.lease import Lease
from django_distlock.leases.registry import BlockEntry, current_registry
from django_distlock.locks.acquisition import Acquisition, aundo, undo
from django_distlock.locks.api import aacquire, acquire
from django_distlock.locks.arguments import (
    EXAMPLE,
    BackendTtl,
    check_arguments,
    refuse_template,
    refuse_unknown,
    validate_source,
)
from django_distlock.semaphores.signatures import copy_signature
from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import InvalidSemaphore
from django_distlock.transactions import open_transactions

from .atomic_requests import is_atomic, request_transactions, rolled_back, take_over_transactions
from .request_bodies import is_arriving, read_body
from .resolution import find_request, is_resolved, task_decorator, without_self
from .responses import contended, invalid, unavailable, unfinished
from .streaming import keep_until_closed

P = ParamSpec("P")
R = TypeVar("R")

RUN_LATER = (
    CoroutineType,
    GeneratorType,
    AsyncGeneratorType,
    _GeneratorContextManager,
    _AsyncGeneratorContextManager,
)

NOTHING: Any = None
"""What is decorated by a call without arguments."""

REFUSALS: Final = (InvalidSemaphore, LockBackendUnavailable)
"""Why a locked view is not called, other than that somebody else has the lock."""

logger = logging.getLogger("django_distlock")


def skip(*args: object, **kwargs: object) -> None:
    """Do nothing: `on_conflict=skip` lets a contended call return None."""


def _with_semaphore(init: Callable[P, None]) -> Callable[P, None]:
    """Say what to write where nothing is given; type checkers know that already."""

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        if len(args) == 1 and "semaphore" not in kwargs:
            raise TypeError(f"distributed_lock() needs a semaphore. Write {EXAMPLE}.")
        init(*args, **kwargs)

    return checked


class distributed_lock:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Hold a semaphore for a `with` block, or for each call of what is decorated.

    As a context manager it yields the lease, and raises LockNotAcquired when contended. Async code
    has `async with`, and what is decorated may be `async def`.

    As a decorator it takes a template that is filled with the call's own arguments, such as
    `"<int:customer_id>collectPayment"` or `"<request.user.pk>:export"`, or a callable that makes
    the semaphore of them. A contended call raises LockNotAcquired, or returns what
    `on_conflict(*args, **kwargs)` does. A view that Django resolved for the request answers 409
    when contended (or what `on_conflict(request, …)` does), 503 when the store is down, or when the
    lease was lost and the view's work undone, 400 when the semaphore is not valid; `http=True` or
    `False` says so whoever calls it. If work was kept, the loss is only logged and signalled.
    `<int:customer_id>`, `<uuid:…>` and `<slug:…>` in a template let all spellings of one thing have
    one lock, or refuse them. Under a StreamingHttpResponse, but no FileResponse, the lock is held
    until that is closed.

    A decorated callable has its locks in `distributed_locks`, a tuple with the outermost first;
    decorators above that use `functools.wraps` copy it.

    Leaving a block whose lease was lost raises LockLost, unless the block raises already. For the
    other arguments, see acquire_lock(); a wrong one is told at once, not at the first call. One
    object may serve many threads at once.
    """

    @_with_semaphore
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
        self._entries: list[BlockEntry] = []
        """Of the blocks that are under way with this object, in whatever threads and tasks."""
        self._terms: dict[str, Any] = {
            "timeout": timeout,
            "ttl": ttl,
            "renew": renew,
            "label": label,
            "backend": backend,
            "reentrant": reentrant,
            "min_hold": min_hold,
            "max_hold": max_hold,
        }

    def __enter__(self) -> Lease:
        acquisition = Acquisition(self._of_block(), **self._terms)
        entry = None
        try:
            lease = acquire(acquisition)
            if lease is None:
                raise acquisition.contention()
            entry = current_registry().enter_block(lease)
            self._entries.append(entry)
            return lease
        except BaseException:
            self._exit(entry)
            undo(acquisition)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        entry = None
        try:
            entry = current_registry().entry_to_exit(self._entries)
            self._exit(entry)
            release_block(entry.lease, failed=error is not None)
        except BaseException:
            self._end_interrupted_block(entry)
            raise
        return False

    async def __aenter__(self) -> Lease:
        acquisition = Acquisition(self._of_block(), **self._terms)
        entry = None
        try:
            lease = await aacquire(acquisition)
            if lease is None:
                raise acquisition.contention()
            entry = current_registry().enter_block(lease)
            self._entries.append(entry)
            return lease
        except BaseException as failure:
            self._exit(entry)
            await aundo(acquisition, failure)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        entry = None
        try:
            entry = current_registry().entry_to_exit(self._entries)
            self._exit(entry)
            await arelease_block(entry.lease, failed=error is not None)
        except BaseException:
            self._end_interrupted_block(entry)
            raise
        return False

    def _end_interrupted_block(self, entry: BlockEntry | None) -> None:
        """See end_interrupted_block(), even if the entry is not known yet."""
        entry = entry or current_registry().entry_to_exit(self._entries)
        self._exit(entry)
        end_interrupted_block(entry)

    def _exit(self, entry: BlockEntry | None) -> None:
        """Take the block for left, if it isn't yet."""
        if entry is not None:
            with suppress(ValueError):
                self._entries.remove(entry)
            entry.exit()

    def _of_block(self) -> str:
        """Return the semaphore of a `with` block, which has no arguments to make one of."""
        if not isinstance(self.semaphore, str):
            raise TypeError(
                f"{self.semaphore!r} is called with a decorated call's arguments; a `with` block "
                "has none. Give the semaphore itself."
            )
        refuse_template(self.semaphore)
        if self.on_conflict is not None:
            raise TypeError("on_conflict is for decorated calls; a `with` block raises.")
        return self.semaphore

    def __call__(
        self, function: Callable[P, R] = NOTHING, /, *args: Never, **kwargs: Never
    ) -> Callable[P, R]:
        if args or kwargs or not (isinstance(self.semaphore, str) or _is_decorable(function)):
            raise TypeError(
                f"distributed_lock({self.semaphore!r}) decorates a function, but was called with "
                f"something else. If parentheses are missing, write {EXAMPLE}."
            )
        _refuse(function)
        if isinstance(self.semaphore, str):
            name = SemaphoreTemplate(self.semaphore).for_calls_of(function)
        else:
            name = self.semaphore

        def call(*args: Any, **kwargs: Any) -> Call:
            request = self._served_request(function, decorated, args, kwargs)
            return Call(function, name, args, kwargs, request)

        def locked(*args: Any, **kwargs: Any) -> Any:
            this = call(*args, **kwargs)
            return self._arun(this) if this.returns_coroutine() else self._run(this)

        async def alocked(*args: Any, **kwargs: Any) -> Any:
            return await self._arun(call(*args, **kwargs))

        decorated: Callable[..., Any]
        if iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
            # Its _non_atomic_requests stay as they are: Django refuses to open transactions for it.
            decorated = functools.wraps(function)(alocked)
        else:
            decorated = functools.wraps(function)(locked)
            take_over_transactions(decorated, function)
        copy_signature(decorated, function)
        earlier = getattr(function, "distributed_locks", ())
        vars(decorated)["distributed_locks"] = (self, *earlier)
        return cast("Callable[P, R]", decorated)

    def _served_request(
        self,
        function: Callable[..., Any],
        decorated: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HttpRequest | None:
        """Return the request if this is the call of a view by Django, None for any other call."""
        request = find_request(args, kwargs)
        if self.http:
            if request is None:
                raise TypeError("http=True is for views, but this call has no HttpRequest.")
            return request
        if request is None or not is_resolved(request, decorated, _instance(function, args)):
            return None
        return request

    def _answers(self, call: "Call") -> bool:
        return call.request is not None and self.http is not False

    def _conflict(self, on_conflict: Callable[..., Any], call: "Call") -> Any:
        args = without_self(call.args) if self._answers(call) else call.args
        return on_conflict(*args, **call.kwargs)

    def _run(self, call: "Call") -> Any:
        """Call the function while holding its semaphore, or answer why not."""
        acquisition = None
        try:
            semaphore = call.semaphore()
            call.read_body()
            acquisition = Acquisition(semaphore, **self._terms)
            lease = acquire(acquisition)
        except BaseException as error:
            if acquisition is not None:
                undo(acquisition)
            if not (isinstance(error, REFUSALS) and self._answers(call)):
                raise
            return call.refusal(error)
        if lease is None:
            if self.on_conflict is not None:
                return self._conflict(self.on_conflict, call)
            if not self._answers(call):
                raise acquisition.contention()
            return call.contended(acquisition.ttl)
        try:
            return _hold(call, lease, answers=self._answers(call))
        except LockLost as error:
            if not self._answers(call) or error.lease is not lease:
                raise
            return call.refusal(error)

    async def _arun(self, call: "Call") -> Any:
        """See _run(). What answers may need the database, so it is asked in a thread."""
        acquisition = None
        try:
            semaphore = await call.asemaphore()
            await call.aread_body()
            acquisition = Acquisition(semaphore, **self._terms)
            lease = await aacquire(acquisition)
        except BaseException as error:
            if acquisition is not None:
                await aundo(acquisition, error)
            if not (isinstance(error, REFUSALS) and self._answers(call)):
                raise
            return await sync_to_async(call.refusal)(error)
        if lease is None:
            if self.on_conflict is not None:
                answer = self._conflict(self.on_conflict, call)
                return await answer if inspect.isawaitable(answer) else answer
            if not self._answers(call):
                raise acquisition.contention()
            return await sync_to_async(call.contended)(acquisition.ttl)
        try:
            return await _ahold(call, lease, answers=self._answers(call))
        except LockLost as error:
            if not self._answers(call) or error.lease is not lease:
                raise
            return await sync_to_async(call.refusal)(error)


class Call(NamedTuple):
    """A call of something decorated; of a view by Django, if it has a request."""

    function: Callable[..., Any]
    name: Callable[..., str]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    request: HttpRequest | None

    def __call__(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def semaphore(self) -> str:
        """Return the semaphore that its arguments make."""
        return self.name(*self.args, **self.kwargs)

    async def asemaphore(self) -> str:
        """See semaphore(). An attribute of an argument may need a query, and so a thread."""
        try:
            return self.semaphore()
        except SynchronousOnlyOperation:
            return await sync_to_async(self.semaphore)()

    def read_body(self) -> None:
        """Read the body of a request among the arguments, be this a view or a helper."""
        read_body(find_request(self.args, self.kwargs))

    async def aread_body(self) -> None:
        """See read_body(). A WSGI server calls async views, too."""
        if is_arriving(find_request(self.args, self.kwargs)):
            await sync_to_async(self.read_body)()

    def returns_coroutine(self) -> bool:
        """Tell whether it is the `dispatch` of a class of async views, which isn't async itself."""
        name = getattr(self.function, "__name__", "")
        instance = _instance(self.function, self.args)
        return name == "dispatch" and getattr(instance, "view_is_async", False)

    def contended(self, ttl: float | None) -> HttpResponse:
        """Answer that somebody else is working on this."""
        return rolled_back(contended(cast("HttpRequest", self.request), ttl))

    def refusal(self, error: Exception) -> HttpResponse:
        """Answer why the view was not called, or why what it did was undone."""
        request = cast("HttpRequest", self.request)
        if isinstance(error, InvalidSemaphore):
            return rolled_back(invalid(request, error))
        answer = unavailable
        if not isinstance(error, LockLost):
            what = "A locked view was not called: its lock's store is unavailable."
        elif is_atomic(request) and not (error.lease and may_have_committed(error.lease)):
            what = "A locked view lost its lock: what it did is rolled back."
        else:
            what = "A locked view lost its lock and failed: its work may have been done in part."
            answer = unfinished
        logger.error(what, exc_info=error)
        return rolled_back(answer(request))


def _hold(call: Call, lease: Lease, *, answers: bool) -> Any:
    """Call the function inside the lock, and a request's transaction between the two.

    If it `answers` the request, a loss of the lock that comes too late to undo anything is no
    reason to answer something else.
    """
    request = call.request
    entry = current_registry().enter_block(lease)
    try:
        try:
            transactions = request_transactions(request, call.function) if request else None
            with transactions or nullcontext() as opened:
                result = call()
                _refuse_what_runs_later(result, call.function)
                if request and not lease.released:
                    _check(lease, opened=bool(opened))
        except BaseException:
            entry.exit()
            release_block(lease, failed=True)
            raise
        entry.exit()
        if not keep_until_closed(result, lease):
            release_block(lease, failed=False, answered=answers and not open_transactions())
        return result
    except BaseException:
        entry.exit()
        end_interrupted_block(entry)
        raise


def _check(lease: Lease, *, opened: bool) -> None:
    """Tell of a loss, by LockLost if there still are transactions to roll back, ours or Django's.

    Django commits its own when nobody can answer 503 any more: what is asked before a commit is
    asked here, too, unless that was a moment ago.
    """
    transactions = open_transactions()
    with nullcontext() if opened or transactions else suppress(LockLost):
        lease.check()
    if not opened and not lease.is_confirmed():
        for connection in transactions:
            if not connection.needs_rollback:
                guard(lease, connection)


async def _ahold(call: Call, lease: Lease, *, answers: bool) -> Any:
    """See _hold(). Django opens no transaction around what is async: what it did is kept."""
    entry = current_registry().enter_block(lease)
    try:
        try:
            result = await call()
            _refuse_what_runs_later(result, call.function)
            if call.request and not lease.released:
                with suppress(LockLost):
                    await lease.acheck()  # which tells of a loss
        except BaseException:
            entry.exit()
            await arelease_block(lease, failed=True)
            raise
        entry.exit()
        if not keep_until_closed(result, lease):
            await arelease_block(lease, failed=False, answered=answers)
        return result
    except BaseException:
        entry.exit()
        end_interrupted_block(entry)
        raise


def _instance(function: Callable[..., Any], args: tuple[Any, ...]) -> object:
    """Return whose method this may be; what method_decorator gives is bound already."""
    bound = function.func if isinstance(function, functools.partial) else function
    return getattr(bound, "__self__", args[0] if args else None)


def _is_decorable(function: object) -> bool:
    """Tell whether a decorator may stand above it, be it right or not."""
    return callable(function) or isinstance(function, classmethod)


def _refuse(function: object) -> None:
    """Raise TypeError for what can't be held under a lock by calling it."""
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
    # Of an object, it is __call__ that tells.
    for called in (function, type(function).__call__):
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            is_async = inspect.isasyncgenfunction(called)
            what, block = (
                ("an async generator", "async with") if is_async else ("a generator", "with")
            )
            raise TypeError(
                f"{function!r} is {what}: its body runs after the call, when the lock would be "
                f"released. Use `{block} distributed_lock(…)` inside it."
            )


def _refuse_what_runs_later(result: object, function: object) -> None:
    """Raise TypeError for a result whose body would run after the release."""
    if isinstance(result, RUN_LATER):
        if isinstance(result, CoroutineType):
            result.close()  # or else it would be warned of, too
        name = getattr(function, "__qualname__", type(function).__name__)
        raise TypeError(
            f"{name} returned a {type(result).__name__}, whose body would run without the "
            "lock. Decorate what is `async def`; inside a generator, use a `with` block."
        )
