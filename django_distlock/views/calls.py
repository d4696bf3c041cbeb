"""One call of a decorated function or view: its semaphore, its request, and its answers."""

import functools
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest, HttpResponse

from django_distlock.exceptions import LockBackendUnavailable, LockLost
from django_distlock.lease import Lease
from django_distlock.locks.acquisition import Acquisition
from django_distlock.locks.labels import label_of
from django_distlock.logs import room_logger
from django_distlock.semaphores.validation import InvalidSemaphore

from .answers import AnsweredError, answer_to, contended
from .api_errors import is_answered_by_api
from .atomic_requests import rolled_back
from .request_bodies import is_arriving, read_body
from .resolution import find_request, is_resolved, without_self
from .responses import respond, respond_invalid

REFUSALS: Final = (InvalidSemaphore, LockBackendUnavailable)
"""Why a view is not called, other than contention."""


logger = room_logger("views")


class LockedFunction(NamedTuple):
    """A decorated function and the settings of its lock."""

    function: Callable[..., Any]
    make_semaphore: Callable[..., str]
    new_acquisition: Callable[[str], Acquisition]
    on_conflict: Callable[..., Any] | None
    http: bool | None


class Call(NamedTuple):
    """A call of a decorated function. It has a request if it is the call of a view by Django."""

    locked: LockedFunction
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    passed: HttpRequest | None
    """The request among its arguments, be this a view or a helper."""
    request: HttpRequest | None
    answers: bool
    """Whether contention and failures are answered by a response, and not raised."""

    @staticmethod
    def of(
        locked: LockedFunction,
        decorated: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> "Call":
        """Return the call of the decorated function with these arguments."""
        request = passed = find_request(args, kwargs)
        if locked.http:
            if request is None:
                raise TypeError(
                    "http=True is for views, but this call has no HttpRequest: leave it out, or "
                    "pass the request."
                )
        elif request is not None and not is_resolved(
            request, decorated, _instance(locked.function, args)
        ):
            request = None
        answers = request is not None and locked.http is not False
        return Call(locked, args, kwargs, passed, request, answers)

    def __call__(self) -> Any:
        return self.locked.function(*self.args, **self.kwargs)

    def semaphore(self) -> str:
        """Return the semaphore for its arguments."""
        return self.locked.make_semaphore(*self.args, **self.kwargs)

    async def asemaphore(self) -> str:
        """See semaphore(). An attribute of an argument may need a query, and so a thread."""
        try:
            return self.semaphore()
        except SynchronousOnlyOperation:
            return await sync_to_async(self.semaphore)()

    def read_body(self) -> None:
        """Read the body of the request that is passed."""
        read_body(self.passed)

    async def aread_body(self) -> None:
        """See read_body(). A WSGI server calls async views, too."""
        if is_arriving(self.passed):
            await sync_to_async(self.read_body)()

    def returns_coroutine(self) -> bool:
        """Tell whether it is the `dispatch` of a class of async views, which isn't async itself."""
        function = self.locked.function
        if getattr(function, "__name__", "") != "dispatch":
            return False
        return getattr(_instance(function, self.args), "view_is_async", False)

    def conflict(self, on_conflict: Callable[..., Any]) -> Any:
        """Return what the function does instead, when the lock is contended."""
        args = without_self(self.args) if self.answers else self.args
        return on_conflict(*args, **self.kwargs)

    def log_skipped(self, acquisition: Acquisition) -> None:
        """Log that the function is not called, unless an error will say so."""
        if (self.answers or self.locked.on_conflict) and logger.isEnabledFor(logging.INFO):
            logger.info(
                "%s was not called. %s",
                label_of(self.locked.function),
                acquisition.explain_refusal(),
                extra=acquisition.refusal_fields(),
            )

    def contended(self, acquisition: Acquisition) -> HttpResponse:
        """Answer that the lock was refused."""
        answer = contended(acquisition.refusal, acquisition.ttl)
        return rolled_back(respond(self._served, answer))

    def responds(self) -> bool:
        """Tell whether to respond with a refusal, rather than to let an error say it.

        An API's exception handler that answers lock errors gets the error.
        """
        if not self.answers:
            return False
        function = self.locked.function
        return not is_answered_by_api(self._served, function, self.args, self.kwargs)

    def answers_refusal(self, error: BaseException) -> bool:
        """Tell whether to answer with refusal() after the acquisition raised this."""
        return isinstance(error, REFUSALS) and self.responds()

    def answers_loss(self, error: LockLost, lease: Lease) -> bool:
        """Tell whether to answer with refusal() after the call raised this."""
        return error.lease is lease and self.responds()

    def refusal(self, error: BaseException) -> HttpResponse:
        """Answer why the view was not called, or why its work was undone."""
        request = self._served
        if isinstance(error, InvalidSemaphore):
            return rolled_back(respond_invalid(request, error))
        return rolled_back(respond(request, answer_to(request, cast("AnsweredError", error))))

    @property
    def _served(self) -> HttpRequest:
        return cast("HttpRequest", self.request)


def _instance(function: Callable[..., Any], args: tuple[Any, ...]) -> object:
    """Return the `self` of a method; what method_decorator passes is bound already."""
    bound = function.func if isinstance(function, functools.partial) else function
    return getattr(bound, "__self__", args[0] if args else None)
