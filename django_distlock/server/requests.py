"""The requests of clients, and their answers."""

import math
from collections.abc import Callable
from typing import Final

from . import operator_requests
from .errors import InvalidRequest, Refused, RequestError
from .locks import Lock, LockDescription, LockSnapshot, Session
from .operator_requests import describe_lock
from .pauses import PauseSnapshot
from .protocol import Message, error_message
from .request_fields import (
    LARGEST_TOKEN,
    LONGEST_KEEP,
    holder_of,
    lease_from,
    number_of,
    owner_of,
    semaphore_of,
    token_of,
    ttl_from,
    whole_of,
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
        semaphore := semaphore_of(request),
        owner_of(request),
        ttl := ttl_from(request.get("ttl"), service.limits.max_ttl),
        holder_of(request),
        _bound_session(service, request),
        whole_of(request, "attempt", 0, LARGEST_TOKEN, default=0),
    )
    return _refused(service, semaphore) if lock is None else _granted(service, lock, ttl)


def _refused(service: Service, semaphore: str) -> Message:
    """Return an answer that tells what is in the way."""
    table = service.table
    answer: Message = {"token": None, "now": table.microseconds()}
    match table.refusal(semaphore):
        case LockDescription() as lock:
            answer["lock"] = describe_lock(lock)
        case PauseSnapshot() as pause:
            answer["pause"] = pause.as_list()
    return answer


def _granted(service: Service, lock: Lock, ttl: float) -> Message:
    expires_at = service.table.microseconds() + round(ttl * 1_000_000)
    return {"token": lock.token, "acquired_at": lock.acquired_at, "expires_at": expires_at}


def _renew(service: Service, request: Message) -> Message:
    leases = request.get("leases")
    if type(leases) is not list:
        raise InvalidRequest("leases is a list.")
    session = _bound_session(service, request)
    at = service.table.microseconds()
    return {"expires_at": [_renew_one(service, lease, session, at) for lease in leases]}


def _renew_one(
    service: Service, lease: object, session: Session | None, at: int
) -> int | Message | None:
    """Return the lease's new expiry; None if it is lost; an error that concerns it alone."""
    try:
        return _renewed_until(service, lease_from(lease), session, at)
    except RequestError as error:
        return error_message(error.code, str(error))


def _renewed_until(
    service: Service, lease: LockSnapshot, session: Session | None, at: int
) -> int | None:
    """Renew the lease, or let its holder reclaim it while nothing is granted.

    Return its new expiry; None if it is lost. Refused if it is held, or may be, but can't be
    renewed.
    """
    table, longest, ttl = service.table, service.limits.max_ttl, lease.remaining
    if ttl > longest:  # it was granted by a server with a longer --max-ttl
        held = table.is_held_by(lease.semaphore, lease.owner)
        if held or (lease.token and table.grace):
            raise Refused(
                f"Its ttl is {ttl:.10g} seconds, and so longer than the server's --max-ttl, "
                f"which is {longest:.10g}: lower the one, or raise the other."
            )
        return None
    held = table.renew(lease.semaphore, lease.owner, ttl, session, at)
    if not held and lease.token:
        held = table.reclaim(lease, session)
    return at + round(ttl * 1_000_000) if held else None


def _release(service: Service, request: Message) -> Message:
    table = service.table
    semaphore, owner = semaphore_of(request), owner_of(request)
    keep = number_of(request, "keep", LONGEST_KEEP)
    if table.grace and (remaining := number_of(request, "left", LONGEST_KEEP)):
        token = token_of(request)
        if token:
            # Changes nothing if the table has the lease: its token is the same then.
            table.reclaim(LockSnapshot(semaphore, owner, token, "", token, remaining))
    attempt = whole_of(request, "attempt", 0, LARGEST_TOKEN, default=LARGEST_TOKEN)
    return {"released": int(table.release(semaphore, owner, keep, attempt))}


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
    return {"left": None if remaining == math.inf else round(remaining, 6)}


def _leave(service: Service, request: Message) -> Message:
    service.table.leave(semaphore_of(request), owner_of(request))
    return {}


def _ping(service: Service, request: Message) -> Message:
    return {}


ACTIONS: Final[dict[str, Callable[[Service, Message], Message]]] = {
    "acquire": _acquire,
    "renew": _renew,
    "release": _release,
    "join": _join,
    "leave": _leave,
    "ping": _ping,
    **operator_requests.ACTIONS,
}


def _bound_session(service: Service, request: Message) -> Session | None:
    """Return the session with which the lease is to end, if `bound` names a process."""
    bound = request.get("bound")
    return None if bound is None else service.processes.find(bound).session
