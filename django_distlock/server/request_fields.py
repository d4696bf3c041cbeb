"""The members of a request, checked."""

import math
from functools import lru_cache
from typing import Final

from django_distlock.semaphores.validation import CONTROL_OR_SURROGATE, validate_semaphore

from .errors import InvalidRequest
from .locks import LockSnapshot
from .protocol import Message

LONGEST_OWNER: Final = 200
LONGEST_HOLDER: Final = 1_000
"""Characters."""
LARGEST_TOKEN: Final = 2**63
LONGEST_KEEP: Final = 10 * 365 * 86_400
LONGEST_PAUSE: Final = LONGEST_KEEP
"""Seconds."""
LONGEST_REASON: Final = 255
LONGEST_SEARCH: Final = 1_000
"""Characters."""
LONGEST_WINDOW: Final = 10_000
"""Locks that a page is made from."""
HOLDERS: Final = 1_000
"""How many recent holders share one text for all of their locks."""


def semaphore_of(request: Message) -> str:
    try:
        return validate_semaphore(request.get("semaphore"))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(str(error)) from error


def owner_of(request: Message) -> str:
    return text_of(request, "owner", LONGEST_OWNER)


def holder_of(request: Message) -> str:
    return _shared(text_of(request, "holder", LONGEST_HOLDER, shortest=0))


@lru_cache(HOLDERS)
def _shared(holder: str) -> str:
    """Return one object for equal texts. sys.intern() would keep it forever in Python 3.12."""
    return holder


def text_of(
    request: Message, name: str, longest: int, *, shortest: int = 1, any_character: bool = False
) -> str:
    text = request.get(name, "")
    if type(text) is not str or not shortest <= len(text) <= longest:
        raise InvalidRequest(f"{name} is a text of {shortest} to {longest} characters.")
    if not any_character and (found := CONTROL_OR_SURROGATE.search(text)):
        raise InvalidRequest(
            f"{name} has no control characters or lone surrogates, this one has {found[0]!r}."
        )
    return text


def number_of(request: Message, name: str, highest: float) -> float:
    number = request.get(name, 0)
    if type(number) not in (int, float) or not 0 <= number <= highest:
        raise InvalidRequest(f"{name} is a number from 0 to {highest:g}.")
    return float(number)


def whole_of(
    request: Message, name: str, lowest: int, highest: int, default: int | None = None
) -> int:
    """Return a whole number; it may only be left out if there is a `default`."""
    number = request.get(name, default)
    if type(number) is not int or not lowest <= number <= highest:
        raise InvalidRequest(f"{name} is a whole number from {lowest} to {highest}.")
    return number


def optional_seconds_of(request: Message, name: str, longest: float) -> float:
    """Return a duration, which is more than 0; infinite if none is given."""
    if request.get(name) is None:
        return math.inf
    seconds = number_of(request, name, longest)
    if not seconds:
        raise InvalidRequest(f"{name} is a number above 0, or null.")
    return seconds


def ttl_from(ttl: object, longest: float) -> float:
    if type(ttl) is not int and type(ttl) is not float:
        raise InvalidRequest("ttl is a number of seconds.")
    if not 0.001 <= ttl <= longest:
        raise InvalidRequest(
            f"ttl is from 0.001 to {longest:.10g} seconds, not {ttl!r:.50}. The limit is the "
            "server's --max-ttl."
        )
    return float(ttl)


def token_of(request: Message) -> int | None:
    return token_from(request.get("token"))


def token_from(token: object) -> int | None:
    if token is None:
        return None
    if type(token) is not int or not 0 <= token < LARGEST_TOKEN:
        raise InvalidRequest("token is a whole number from 0 to 2**63 - 1, or null.")
    return token


def lease_from(lease: object) -> LockSnapshot:
    """Return a lease to renew, with its ttl as the remaining time."""
    if type(lease) is not list or len(lease) != 5:
        raise InvalidRequest("A lease is a list: semaphore, owner, ttl, token, holder.")
    semaphore, owner, ttl, token, holder = lease
    members = {"semaphore": semaphore, "owner": owner, "holder": holder}
    token = token_from(token) or 0
    return LockSnapshot(
        semaphore_of(members),
        owner_of(members),
        token,
        holder_of(members),
        token,  # the time of the grant, or a little later
        ttl_from(ttl, LONGEST_KEEP),
    )
