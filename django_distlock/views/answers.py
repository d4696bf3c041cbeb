"""What the answers to lock errors say, in whichever format they are given."""

import math
import random
from typing import Final, NamedTuple, TypeGuard

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext as _

from django_distlock.exceptions import LockBackendUnavailable, LockLost, LockNotAcquired
from django_distlock.leases.commit_guard import may_have_committed
from django_distlock.logs import room_logger
from django_distlock.records import Refusal
from django_distlock.semaphores.validation import InvalidSemaphore

from .atomic_requests import is_atomic

SOON: Final = 3
"""Upper limit of Retry-After in seconds, where nothing suggests a longer wait."""
LONGEST: Final = 60
"""Upper limit of Retry-After in seconds, whatever is known."""

AnsweredError = LockNotAcquired | LockBackendUnavailable | LockLost | InvalidSemaphore
"""The errors that have an answer; others are mistakes in the code."""

logger = room_logger("views")


class Answer(NamedTuple):
    """The answer to a request whose work was not done, or was undone.

    The client is told nothing of the lock's holder but when to try again.
    """

    status: int
    code: str
    detail: str
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that it has in every format."""
        headers = {"Cache-Control": "no-store"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return headers


def is_answered(error: BaseException) -> TypeGuard[AnsweredError]:
    """Tell whether the error has an answer."""
    return isinstance(error, AnsweredError)


def answer_to(request: HttpRequest, error: AnsweredError) -> Answer:
    """Return the answer to the error, and log a store that is down or a lease that was lost.

    Call this before the transactions around the view are marked for rollback.
    """
    if isinstance(error, InvalidSemaphore):
        return invalid(error)
    if isinstance(error, LockNotAcquired):
        holder, reason = error.holder or "", error.reason
        times = error.held_since, error.expires_at, error.seen_at
        return contended(Refusal(holder, *times, reason=reason), None)
    answer = _unavailable
    if isinstance(error, LockBackendUnavailable) and error.lease is None:
        message = "A request was not carried out: its lock's store is unavailable."
    elif is_atomic(request) and not may_have_committed(error.lease):
        message = "A request failed under its lock: its work is rolled back."
    else:
        message = "A request failed under its lock: its work may have been done in part."
        answer = _unfinished
    logger.error(message, exc_info=error, extra={"reason": str(error)})
    return answer()


def contended(refusal: Refusal, ttl: float | None) -> Answer:
    """Return a 409: another request holds the lock, or it is paused. `ttl` is this one's."""
    if refusal.reason:
        detail = _("This can't be done right now. Please try again later.")
    else:
        detail = _("This is being worked on by another request. Please try again in a moment.")
    return Answer(409, "contended", detail, _random(*retry_range(refusal, ttl)))


def retry_range(refusal: Refusal, ttl: float | None) -> tuple[int, int]:
    """Return the earliest and the latest Retry-After that make sense, in seconds.

    Most leases are released long before they end. So the best guess is that a lock is held for as
    long again as it was held so far, but never beyond its lease. A pause, and a lock that is kept
    after its release, last until their end: the clients then return in the seconds after it.
    """
    left = max(0, math.ceil(refusal.remaining or 0))
    if refusal.reason and left:
        return min(left, LONGEST - SOON), min(left + SOON, LONGEST)
    guess = max(SOON, math.ceil(refusal.held_for or 0))
    latest = max(1, min(guess, left or int(ttl or SOON), LONGEST))
    return (latest + 1) // 2 if latest > SOON else 1, latest


def _unavailable() -> Answer:
    """Return a 503: nothing was done, or the work under the lock is undone."""
    detail = _("This can't be done safely right now. Please try again in a moment.")
    return Answer(503, "unavailable", detail, _random(1, SOON))


def _unfinished() -> Answer:
    """Return a 503 without Retry-After: part of the work may have been done."""
    return Answer(503, "unfinished", _("This was not finished, and may have been done in part."))


def invalid(reason: Exception) -> Answer:
    """Return a 400. As in Django's own, the client sees the reason only if DEBUG is on."""
    detail = str(reason) if settings.DEBUG else _("A value in this request is not valid.")
    return Answer(400, "invalid", detail)


def _random(earliest: int, latest: int) -> int:
    """Return a random Retry-After: clients refused together must not return together."""
    return random.randint(earliest, latest)  # noqa: S311 - no secret
