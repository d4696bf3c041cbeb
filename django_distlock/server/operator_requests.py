"""The requests for operators: to list locks, release them by force, and pause grants."""

import heapq
from collections.abc import Callable
from typing import Any, Final

from django_distlock.semaphores.validation import MAX_LENGTH

from .errors import InvalidRequest
from .listings import PAGE
from .locks import LockDescription
from .page_search import PageSearch
from .protocol import Message
from .request_fields import (
    LARGEST_TOKEN,
    LONGEST_PAUSE,
    LONGEST_REASON,
    LONGEST_SEARCH,
    LONGEST_WINDOW,
    number_of,
    optional_seconds_of,
    semaphore_of,
    text_of,
    token_of,
    whole_of,
)
from .service import Service


def describe_lock(lock: LockDescription) -> list[Any]:
    """Return what an answer has of a lock."""
    return [
        lock.semaphore,
        lock.token,
        lock.holder,
        lock.acquired_at,
        round(lock.remaining, 6),
        lock.renewed_at or None,
        lock.kept,
        lock.waiting,
    ]


def _held(service: Service, request: Message) -> Message:
    """List some of the locks: the first by name, up to a `limit`, or all, page by page.

    Pages are in no order: sorting all locks would keep other clients waiting.
    """
    table, cursor, limit = service.table, request.get("cursor"), request.get("limit")
    prefix = _prefix_of(request)
    if limit is not None:
        cursor = None  # never return the client's own value: it may be no JSON
        names = heapq.nsmallest(int(number_of(request, "limit", PAGE)), table.names(prefix))
    else:
        left = table.names(prefix) if cursor is None else service.listings.take(cursor)
        names = left[-PAGE:]
        del left[-PAGE:]
        cursor = service.listings.add(left) if left else None
    return {"locks": _locks(service, names), "cursor": cursor, "now": table.microseconds()}


def _page(service: Service, request: Message) -> Message:
    """Look at some of the locks; with the last of them, answer with the page that is asked for."""
    table, cursor = service.table, request.get("cursor")
    number = whole_of(request, "page", 1, LARGEST_TOKEN)
    limit = whole_of(request, "limit", 0, PAGE)
    if cursor is None:
        window = whole_of(request, "window", 1, LONGEST_WINDOW)
        text = text_of(request, "search", LONGEST_SEARCH, shortest=0, any_character=True)
        search = PageSearch(table, _prefix_of(request), text, window)
    else:
        search = service.searches.take(cursor)
    if search.look_on():
        return {"cursor": service.searches.add(search)}
    return {
        "locks": [describe_lock(lock) for lock in search.page(number, limit)],
        "found": len(search),
        "is_capped": search.is_capped,
        "cursor": None,
        "now": table.microseconds(),
    }


def _find(service: Service, request: Message) -> Message:
    locks = _locks(service, [semaphore_of(request)])
    return {"lock": locks[0] if locks else None, "now": service.table.microseconds()}


def _locks(service: Service, names: list[str]) -> list[list[Any]]:
    return [describe_lock(lock) for lock in service.table.describe(names)]


def _waiters(service: Service, request: Message) -> Message:
    waiting = service.table.waiting(semaphore_of(request))[:PAGE]
    return {"waiters": [[waiter.holder, waiter.since] for waiter in waiting]}


def _force_release(service: Service, request: Message) -> Message:
    token = token_of(request)
    if token is None:
        raise InvalidRequest("token is that of the lease to release.")
    return {"released": int(service.table.force_release(semaphore_of(request), token))}


def _pause(service: Service, request: Message) -> Message:
    pause = service.table.pause(
        _prefix_of(request),
        optional_seconds_of(request, "seconds", LONGEST_PAUSE),
        text_of(request, "reason", LONGEST_REASON, shortest=0),
        text_of(request, "by", LONGEST_REASON, shortest=0),
    )
    now = service.table.microseconds()
    service.save_pauses()
    return {"pause": pause.as_list(), "now": now}


def _resume(service: Service, request: Message) -> Message:
    resumed = service.table.resume(_prefix_of(request))
    if resumed:
        service.save_pauses()
    return {"resumed": int(resumed)}


def _pauses(service: Service, request: Message) -> Message:
    table = service.table
    pauses = table.pauses_in_force()
    return {"pauses": [each.as_list() for each in pauses], "now": table.microseconds()}


def _status(service: Service, request: Message) -> Message:
    return service.status()


def _prefix_of(request: Message) -> str:
    return text_of(request, "prefix", MAX_LENGTH, shortest=0)


ACTIONS: Final[dict[str, Callable[[Service, Message], Message]]] = {
    "held": _held,
    "page": _page,
    "find": _find,
    "waiters": _waiters,
    "force_release": _force_release,
    "pause": _pause,
    "resume": _resume,
    "pauses": _pauses,
    "status": _status,
}
