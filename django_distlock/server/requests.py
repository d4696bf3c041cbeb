"""The requests of clients, and their answers."""

import heapq
from collections.abc import Callable
from typing import Final

from django_distlock.semaphores.validation import MAX_LENGTH

from .errors import InvalidRequest, Refused, RequestError
from .listings import PAGE
from .locks import Lock, LockSnapshot, Session
from .protocol import Message, error_message
from .request_fields import (
    LARGEST_TOKEN,
    LONGEST_KEEP,
    holder_of,
    lease_from,
    number_of,
    owner_of,
    semaphore_of,
    text_of,
    token_of,
    ttl_from,
)
from .service import Service


def answer(service: Service, request: Message) -> Message:
    """Carry out the request and return its answer; RequestError if it can't be carried out."""
    do = request.get("do")
    action = ACTIONS.get(do) if isinstance(do, str) else None
    if action is None:
        raise InvalidRequest(f"do is one of {', '.join(ACTIONS)}.")
    return action(service, request)


def _acquire(service: Service, request: Message) -> Message:
    lock = service.table.acquire(
        semaphore_of(request),
        owner_of(request),
        ttl := ttl_from(request.get("ttl"), service.limits.max_ttl),
        holder_of(request),
        _bound_session(service, request),
    )
    return {"token": None} if lock is None else _granted(service, lock, ttl)


def _granted(service: Service, lock: Lock, ttl: float) -> Message:
    expires_at = service.table.microseconds() + round(ttl * 1_000_000)
    return {"token": lock.token, "acquired_at": lock.acquired_at, "expires_at": expires_at}


def _renew(service: Service, request: Message) -> Message:
    leases = request.get("leases")
    if type(leases) is not list:
        raise InvalidRequest("leases is a list.")
    session = _bound_session(service, request)
    return {"expires_at": [_renew_one(service, lease, session) for lease in leases]}


def _renew_one(service: Service, lease: object, session: Session | None) -> int | Message | None:
    """Return the lease's new expiry; None if it is lost; an error that concerns it alone."""
    try:
        return _renewed_until(service, lease_from(lease), session)
    except RequestError as error:
        return error_message(error.code, str(error))


def _renewed_until(service: Service, lease: LockSnapshot, session: Session | None) -> int | None:
    """Renew the lease, or let its holder reclaim it while nothing is granted.

    Return its new expiry; None if it is lost. Refused if it is held, or may be, but can't be
    renewed.
    """
    table, longest, ttl = service.table, service.limits.max_ttl, lease.remaining
    if ttl > longest:  # it was granted by a server with a longer --max-ttl
        held = any(lock.owner == lease.owner for lock in table.describe([lease.semaphore]))
        if held or (lease.token and table.grace):
            raise Refused(
                f"Its ttl is {ttl:.10g} seconds, and so longer than the server's --max-ttl, "
                f"which is {longest:.10g}: lower the one, or raise the other."
            )
        return None
    held = table.renew(lease.semaphore, lease.owner, ttl, session)
    if not held and lease.token:
        held = table.reclaim(lease, session)
    return table.microseconds() + round(ttl * 1_000_000) if held else None


def _release(service: Service, request: Message) -> Message:
    table = service.table
    semaphore, owner = semaphore_of(request), owner_of(request)
    keep = number_of(request, "keep", LONGEST_KEEP)
    if table.grace and (remaining := number_of(request, "left", service.limits.max_ttl)):
        token = token_of(request)
        if token:
            # Changes nothing if the table has the lease: its token is the same then.
            table.reclaim(LockSnapshot(semaphore, owner, token, "", token, remaining))
    return {"released": int(table.release(semaphore, owner, keep))}


def _join(service: Service, request: Message) -> Message:
    process = service.processes.find(request.get("process"))
    number = request.get("number")
    if type(number) is not int or abs(number) >= LARGEST_TOKEN:
        raise InvalidRequest("number is an integer, by which the process knows the waiter.")
    remaining = service.table.join(
        semaphore_of(request),
        owner_of(request),
        holder_of(request),
        lambda: process.send({"offer": number}),
        process.session,
    )
    return {"left": round(remaining, 6)}


def _leave(service: Service, request: Message) -> Message:
    service.table.leave(semaphore_of(request), owner_of(request))
    return {}


def _held(service: Service, request: Message) -> Message:
    """List some of the locks: the first by name, up to a `limit`, or all, page by page.

    Pages are in no order: sorting all locks would keep other clients waiting.
    """
    table, cursor, limit = service.table, request.get("cursor"), request.get("limit")
    prefix = text_of(request, "prefix", MAX_LENGTH, shortest=0)
    if limit is not None:
        cursor = None  # never return the client's own value: it may be no JSON
        names = heapq.nsmallest(int(number_of(request, "limit", PAGE)), table.names(prefix))
    elif cursor is None:
        names, cursor = service.listings.begin(table.names(prefix))
    else:
        names, cursor = service.listings.next_page(cursor)
    locks = [
        [lock.semaphore, lock.token, lock.holder, lock.acquired_at, round(lock.remaining, 6)]
        for lock in table.describe(names)
    ]
    return {"locks": locks, "cursor": cursor, "now": table.microseconds()}


def _force_release(service: Service, request: Message) -> Message:
    token = token_of(request)
    if token is None:
        raise InvalidRequest("token is that of the lease to release.")
    return {"released": int(service.table.force_release(semaphore_of(request), token))}


def _ping(service: Service, request: Message) -> Message:
    return {}


def _status(service: Service, request: Message) -> Message:
    return service.status()


ACTIONS: Final[dict[str, Callable[[Service, Message], Message]]] = {
    "acquire": _acquire,
    "renew": _renew,
    "release": _release,
    "join": _join,
    "leave": _leave,
    "held": _held,
    "force_release": _force_release,
    "ping": _ping,
    "status": _status,
}


def _bound_session(service: Service, request: Message) -> Session | None:
    """Return the session with which the lease is to end, if `bound` names a process."""
    bound = request.get("bound")
    return None if bound is None else service.processes.find(bound).session
