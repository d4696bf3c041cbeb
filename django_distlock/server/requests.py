"""What a client can ask of a lock server, and what it is answered."""

import heapq
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from django_distlock.semaphores.validation import (
    CONTROL_OR_SURROGATE,
    MAX_LENGTH,
    validate_semaphore,
)

from .table import Described, Lock, Party, Refused

if TYPE_CHECKING:
    from .service import Process, Service

LONGEST_OWNER: Final = 200
LONGEST_HOLDER: Final = 1_000
"""Characters."""
LARGEST_TOKEN: Final = 2**62
LONGEST_KEEP: Final = 10 * 365 * 86_400
"""Seconds."""
PAGE: Final = 1_000
"""How many locks are listed at a time: others wait meanwhile."""
LISTINGS: Final = 16
"""How many may be under way at once."""
HOLDERS: Final = 1_000
"""How many holders of late are known again."""
PROCESS: Final = re.compile("[0-9a-f]{32}")

Request = dict[str, Any]
Answer = dict[str, Any]
End = int | None


class Invalid(Exception):
    """The request makes no sense; the connection may go on."""


class UnknownProcess(Exception):
    """The process that is named has no connection on which it is told what it waits for."""


def answer(service: "Service", request: Request) -> Answer:
    """Do what is asked; Invalid, UnknownProcess or Refused if that can't be done."""
    do = request.get("do")
    action = ACTIONS.get(do) if isinstance(do, str) else None
    if action is None:
        raise Invalid(f"do is one of {', '.join(ACTIONS)}.")
    return action(service, request)


def _acquire(service: "Service", request: Request) -> Answer:
    lock = service.table.acquire(
        _semaphore(request),
        _text(request, "owner", LONGEST_OWNER),
        ttl := _ttl(request.get("ttl"), service.limits.max_ttl),
        _holder(request),
        _party(service, request),
    )
    return {"token": None} if lock is None else _granted(service, lock, ttl)


def _granted(service: "Service", lock: Lock, ttl: float) -> Answer:
    ends = service.table.microseconds() + round(ttl * 1_000_000)
    return {"token": lock.token, "acquired_at": lock.acquired_at, "expires_at": ends}


def _renew(service: "Service", request: Request) -> Answer:
    leases = request.get("leases")
    if type(leases) is not list:
        raise Invalid("leases is a list.")
    party = _party(service, request)
    return {"expires_at": [_answer_for(service, lease, party) for lease in leases]}


def _answer_for(service: "Service", lease: object, party: Party | None) -> End | Answer:
    """Return what became of one lease; an error is an answer for it alone."""
    try:
        return _renewed(service, _claim(lease), party)
    except Invalid as error:
        return {"error": "invalid", "text": str(error)}
    except Refused as error:
        return {"error": "refused", "text": str(error)}


def _renewed(service: "Service", claim: Described, party: Party | None) -> End:
    """Renew the lease, or take the holder's word for it while nothing is granted.

    Return its new end; None if it is lost. Refused if it is held, or may be, but can't be renewed.
    """
    table, longest = service.table, service.limits.max_ttl
    if claim.left > longest:  # an earlier server had a longer one
        held = any(lock.owner == claim.owner for lock in table.describe([claim.semaphore]))
        if held or (claim.token and table.grace):
            raise Refused(
                f"Its ttl is {claim.left:.10g} seconds, and so longer than the server's --max-ttl, "
                f"which is {longest:.10g}: lower the one, or raise the other."
            )
        return None
    held = table.renew(claim.semaphore, claim.owner, claim.left, party)
    if not held and claim.token:
        held = table.reclaim(claim, party)
    return table.microseconds() + round(claim.left * 1_000_000) if held else None


def _release(service: "Service", request: Request) -> Answer:
    table = service.table
    semaphore, owner = _semaphore(request), _text(request, "owner", LONGEST_OWNER)
    keep = _number(request, "keep", LONGEST_KEEP)
    if table.grace and (left := _number(request, "left", service.limits.max_ttl)):
        token = _token(request.get("token"))
        if token:
            # Not while it holds the lock already, which then has the same token.
            table.reclaim(Described(semaphore, owner, token, "", token, left))
    return {"released": int(table.release(semaphore, owner, keep))}


def _join(service: "Service", request: Request) -> Answer:
    process = _process(service, request.get("process"))
    number = request.get("number")
    if type(number) is not int or abs(number) >= LARGEST_TOKEN:
        raise Invalid("number is an integer, by which the process knows who waits.")
    left = service.table.join(
        _semaphore(request),
        _text(request, "owner", LONGEST_OWNER),
        _holder(request),
        lambda: process.tell({"offer": number}),
        process.party,
    )
    return {"left": round(left, 6)}


def _leave(service: "Service", request: Request) -> Answer:
    service.table.leave(_semaphore(request), _text(request, "owner", LONGEST_OWNER))
    return {}


def _held(service: "Service", request: Request) -> Answer:
    """List some of the locks: the first by name, up to a `limit`, or all, page by page.

    Pages are in no order: to sort all would keep others waiting.
    """
    table, cursor, limit = service.table, request.get("cursor"), request.get("limit")
    prefix = _text(request, "prefix", MAX_LENGTH, least=0)
    if limit is not None:
        cursor = None  # what came is not to be sent back
        names = heapq.nsmallest(int(_number(request, "limit", PAGE)), table.names(prefix))
    elif cursor is None:
        names, cursor = service.listings.begin(table.names(prefix))
    else:
        names, cursor = service.listings.go_on(cursor)
    locks = [
        [lock.semaphore, lock.token, lock.holder, lock.acquired_at, round(lock.left, 6)]
        for lock in table.describe(names)
    ]
    return {"locks": locks, "cursor": cursor, "now": table.microseconds()}


class Listings:
    """The semaphores that are still to be listed to somebody, by cursor."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._left: dict[int, list[str]] = {}

    def begin(self, names: list[str]) -> tuple[list[str], int | None]:
        """Return some, and the cursor for the others: none if these are all."""
        page = names[-PAGE:]
        del names[-PAGE:]
        if not names:
            return page, None
        cursor = next(self._numbers)
        self._left[cursor] = names
        if len(self._left) > LISTINGS:
            del self._left[next(iter(self._left))]
        return page, cursor

    def go_on(self, cursor: object) -> tuple[list[str], int | None]:
        """Return the next ones. Who leaves off is forgotten when others list."""
        names = self._left.pop(cursor, None) if type(cursor) is int else None
        if names is None:
            raise Refused("This listing was given up, as there were many others: begin anew.")
        return self.begin(names)


def _force_release(service: "Service", request: Request) -> Answer:
    token = _token(request.get("token"))
    if token is None:
        raise Invalid("token is that of the grant to take away.")
    return {"released": int(service.table.force_release(_semaphore(request), token))}


def _ping(service: "Service", request: Request) -> Answer:
    return {}


def _status(service: "Service", request: Request) -> Answer:
    return service.status()


ACTIONS: Final[dict[str, Callable[["Service", Request], Answer]]] = {
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


def _semaphore(request: Request) -> str:
    try:
        return validate_semaphore(request.get("semaphore"))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise Invalid(str(error)) from error


def _text(request: Request, name: str, longest: int, *, least: int = 1) -> str:
    text = request.get(name, "")
    if type(text) is not str or not least <= len(text) <= longest:
        raise Invalid(f"{name} is a text of {least} to {longest} characters.")
    if found := CONTROL_OR_SURROGATE.search(text):
        raise Invalid(
            f"{name} has no control characters or lone surrogates, this one has {found[0]!r}."
        )
    return text


def _holder(request: Request) -> str:
    """Return who that is, for people."""
    return _the_same(_text(request, "holder", LONGEST_HOLDER, least=0))


@lru_cache(HOLDERS)
def _the_same(holder: str) -> str:
    """Return one text for all locks that he holds. sys.intern() keeps it forever in Python 3.12."""
    return holder


def _number(request: Request, name: str, most: float) -> float:
    number = request.get(name, 0)
    if type(number) not in (int, float) or not 0 <= number <= most:
        raise Invalid(f"{name} is a number from 0 to {most:g}.")
    return float(number)


def _ttl(ttl: object, longest: float) -> float:
    if type(ttl) is not int and type(ttl) is not float:
        raise Invalid("ttl is a number of seconds.")
    if not 0.001 <= ttl <= longest:
        raise Invalid(
            f"ttl is from 0.001 to {longest:.10g} seconds, not {ttl!r:.50}. The server's --max-ttl "
            "says how long."
        )
    return float(ttl)


def _token(token: object) -> int | None:
    if token is None:
        return None
    if type(token) is not int or not 0 < token < LARGEST_TOKEN:
        raise Invalid("token is an integer of 62 bits, or null.")
    return token


def _claim(lease: object) -> Described:
    """Return the lease that is to be renewed, with the ttl in the place of what is left."""
    if type(lease) is not list or len(lease) != 5:
        raise Invalid("A lease is a list: semaphore, owner, ttl, token, holder.")
    semaphore, owner, ttl, token, holder = lease
    fields = {"semaphore": semaphore, "owner": owner, "holder": holder}
    token = _token(token) or 0
    return Described(
        _semaphore(fields),
        _text(fields, "owner", LONGEST_OWNER),
        token,
        _holder(fields),
        token,  # the time of the grant, or a little later
        _ttl(ttl, LONGEST_KEEP),
    )


def _party(service: "Service", request: Request) -> Party | None:
    """Return with whom a lease is to end."""
    bound = request.get("bound")
    return None if bound is None else _process(service, bound).party


def _process(service: "Service", name: object) -> "Process":
    process = service.processes.get(name) if type(name) is str else None
    if process is None:
        raise UnknownProcess("This process has no connection on which it listens.")
    return process
