"""Validation of the arguments of acquire_lock() and distributed_lock()."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, ParamSpec

from asgiref.sync import iscoroutinefunction

from django_distlock.arguments import (
    LONGEST,
    SHORTEST_TTL,
    plain,
    show,
    type_of,
    validate_alias,
    validate_bool,
    validate_holds,
    validate_label,
    validate_seconds,
    validate_timeout,
)
from django_distlock.semaphores.signatures import seen_signature

P = ParamSpec("P")

IN_A_CALL: Final = re.compile(r"<((?:\w+:)?[^\W\d]\w*(?:\.[^\W\d]\w*)*)>")
"""A placeholder that is filled with an argument of a decorated call."""

EXAMPLE: Final = '@distributed_lock("<customer_id>collectPayment")'

AS_TTL: Final = "how long the lease lasts is ttl= here"
AS_TIMEOUT: Final = "how long to wait is timeout= here (0: not at all, None: as long as it takes)"
REDIS_TIMEOUT: Final = "what redis-py calls timeout is ttl= here"
AS_SEMAPHORE: Final = "the lock's name, the semaphore, is the first argument here"
OTHERS: Final = {
    **dict.fromkeys(("blocking", "blocking_timeout"), f"{AS_TIMEOUT}; {REDIS_TIMEOUT}"),
    "sleep": f"a waiter is woken, or tries again after pauses that it chooses; {REDIS_TIMEOUT}",
    "thread_local": "release_lock() releases what this thread or task acquired; another thread or "
    "task releases it by its Lease",
    **dict.fromkeys(("wait", "wait_timeout", "max_wait", "acquire_timeout"), AS_TIMEOUT),
    **dict.fromkeys(
        ("ex", "expire", "expires", "expiry", "lease", "lease_time", "lock_timeout"), AS_TTL
    ),
    "auto_release_time": AS_TTL,
    **dict.fromkeys(
        ("auto_renew", "auto_renewal"), "whether it is renewed is renew= here (True, unless given)"
    ),
    **dict.fromkeys(("key", "name", "lock_id", "lock_name"), AS_SEMAPHORE),
    "using": "where locks are kept is backend= here, an alias in DISTLOCK",
    "side_effect": "what to do when a call is contended is on_conflict= of distributed_lock()",
}
"""What replaces an argument of redis-py, python-redis-lock, Pottery and similar libraries."""


class BackendTtl(Enum):
    """Sentinel: use the backend's default ttl."""

    DEFAULT = "the backend's"

    def __repr__(self) -> str:
        return "<the backend's>"


def check_arguments(
    timeout: float | None,
    ttl: float | BackendTtl | None,
    renew: bool,
    label: str,
    backend: str,
    reentrant: bool,
    min_hold: float | None,
    max_hold: float | None,
) -> None:
    """Raise for values that no store accepts. The lock's own store may have narrower bounds."""
    validate_timeout(timeout)
    if not (ttl is None or isinstance(ttl, BackendTtl)):
        validate_seconds("ttl", ttl, SHORTEST_TTL, LONGEST, "None means until released")
    validate_bool("renew", renew)
    validate_label(label)
    validate_alias(backend)
    validate_bool("reentrant", reentrant)
    validate_holds(min_hold, max_hold)


def refuse_template(semaphore: object) -> None:
    """Raise TypeError for a template outside a decorated call: all calls would share one lock."""
    if isinstance(semaphore, str) and IN_A_CALL.search(text := plain(semaphore)):
        filled = IN_A_CALL.sub(lambda found: f"{{{found[1].rpartition(':')[2]}}}", text)
        raise TypeError(
            f"{show(text)} is a template, but only a decorated call fills one in. Give the "
            f"semaphore itself, for instance as an f-string: f{show(filled)}."
        )


def requires_semaphore(init: Callable[P, None]) -> Callable[P, None]:
    """Raise a helpful TypeError if the semaphore is missing; type checkers see the signature."""

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        if len(args) == 1 and "semaphore" not in kwargs:
            raise TypeError(f"distributed_lock() needs a semaphore. Write {EXAMPLE}.")
        init(*args, **kwargs)

    return checked


def validate_source(semaphore: object) -> None:
    """Raise TypeError unless this is a semaphore, a template, or a callable that makes semaphores.

    A function that can't make one is probably the function to lock: the parentheses are missing.
    """
    if isinstance(semaphore, str):
        return
    if not callable(semaphore):
        raise TypeError(
            "A semaphore is a str, or a callable that makes one of a call's arguments, not "
            f"{type_of(semaphore)}. Write {EXAMPLE}."
        )
    if _never_returns_str(semaphore):
        raise TypeError(
            f"{semaphore!r} returns no str, so it can't make a semaphore. To lock it, write "
            f"{EXAMPLE}."
        )


def _never_returns_str(function: Callable[..., Any]) -> bool:
    """Tell whether the callable's kind or annotation shows that it returns no str."""
    if inspect.isclass(function):
        return not issubclass(function, str)
    kinds = (iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(function) for is_kind in kinds):
        return True
    try:
        returned = seen_signature(function).return_annotation
        if not inspect.isclass(returned) or returned in (Any, inspect.Signature.empty):
            return returned is None
        return not (issubclass(returned, str) or issubclass(str, returned))
    except (TypeError, ValueError):  # many builtins have no signature
        return False


def refuse_unknown(function: Callable[..., Any], unknown: Iterable[str]) -> None:
    """Raise TypeError for unknown arguments, with a hint at the right ones."""
    known = ", ".join([*inspect.signature(function).parameters][:-1])
    for name in unknown:
        raise TypeError(
            f"{function.__name__}() got an unexpected keyword argument {name!r}: "
            f"{OTHERS.get(name) or f'it takes {known}'}."
        )
