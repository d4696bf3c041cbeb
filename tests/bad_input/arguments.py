"""Wrong arguments of every way to acquire a lock, with the error that each has."""

from __future__ import annotations

import math
from collections import UserString
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.utils.translation import gettext_lazy

from django_distlock import InvalidLockBackend, acquire_lock, distributed_lock
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.bad_input.table import Row, shown
from tests.support.concurrency import run
from tests.support.entries import LONG, NAME, aacquire

if TYPE_CHECKING:
    from collections.abc import Callable

LAZY: Any = gettext_lazy("export")
DAYS = 86_400


def enter(semaphore: Any, **arguments: Any) -> Any:
    """Enter a block."""
    with distributed_lock(semaphore, **arguments):
        return "entered"


def call(semaphore: Any, **arguments: Any) -> Any:
    """Call a decorated function."""
    return distributed_lock(semaphore, **arguments)(lambda: "called")()


def aacquire_and_wait(*arguments: Any, **named: Any) -> Any:
    return run(aacquire(*arguments, **named))


ENTRIES: dict[str, Callable[..., Any]] = {
    "acquire_lock": acquire_lock,
    "aacquire_lock": aacquire_and_wait,
    "a block": enter,
    "a decorated function": call,
}

NO_TEXTS: list[Any] = [["default"], {}, None, 5, LAZY]
NO_SECONDS = "{} is a number of seconds( or None)?, not "
TIMEOUT = "timeout is .*, but must be from 0 to 315360000 seconds; None waits"
TTL = "ttl is .*, but must be from .* seconds"
HOLD = "{} is .*, but must be from .* seconds"
ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    *(({"timeout": each}, ValueError, TIMEOUT) for each in (-1, math.nan, math.inf, LONG, 1e300)),
    *(
        ({name: value}, TypeError, NO_SECONDS.format(name))
        for name in ("timeout", "ttl", "min_hold", "max_hold")
        for value in ("1", True, b"1", [1], object(), LAZY, timedelta(seconds=1))
    ),
    *(
        ({"ttl": value}, ValueError, TTL)
        for value in (-1, 0, 0.0001, math.nan, math.inf, -math.inf, 10**400, 315360001)
    ),
    *(
        ({name: value}, ValueError, HOLD.format(name))
        for name in ("min_hold", "max_hold")
        for value in (-1.0, math.nan, -math.inf, LONG, 1e300)
    ),
    ({"max_hold": 0}, ValueError, HOLD.format("max_hold")),
    ({"min_hold": 9, "max_hold": 3}, ValueError, "min_hold, 9, can't be more than max_hold, 3"),
    ({"renew": "no"}, TypeError, "^renew is True or False, not 'no'"),
    ({"renew": 0}, TypeError, "^renew is True or False, not 0"),
    ({"renew": None}, TypeError, "^renew is True or False, not None"),
    *(({"reentrant": value}, TypeError, "^reentrant is True or False") for value in ("no", LONG)),
    *(({"label": value}, TypeError, "^label is a str, not ") for value in (5, None, b"why")),
    ({"label": LAZY}, TypeError, r"^label is a str, not a lazy text: write str\(…\)"),
    ({"label": "x" * 201}, ValueError, "^label has 201 characters, but may have 200"),
    ({"label": "x" * 10_000_000}, ValueError, "^label has 10000000 characters"),
    *(
        ({"backend": value}, TypeError, "^backend is a str, an alias in DISTLOCK, not ")
        for value in NO_TEXTS
    ),
    (
        {"backend": "nowhere"},
        InvalidLockBackend,
        r"DISTLOCK\['nowhere'\]: not configured; DISTLOCK has 'default'",
    ),
    *(
        ({name: 1}, TypeError, f"unexpected keyword argument '{name}'.*{remedy}")
        for name, remedy in {
            "blocking_timeout": "timeout=.* ttl=",
            "blocking": "timeout=",
            "sleep": "woken",
            "thread_local": "release_lock",
            "expire": "ttl=",
            "auto_renewal": "renew=",
            "lock_timeout": "ttl=",
            "auto_release_time": "ttl=",
            "lease_time": "ttl=",
            "name": "first argument",
            "key": "first argument",
            "using": "backend=",
            "colour": "it takes .*timeout, ttl, renew, label",
        }.items()
    ),
]
NO_STR = "^A semaphore is a str.*, not "
SEMAPHORES: list[tuple[Any, type[Exception], str]] = [
    *(
        (value, TypeError, NO_STR + type(value).__name__)
        for value in (5, None, b"x", ["x"], UUID(int=1), UserString("x"))
    ),
    (LAZY, TypeError, NO_STR + "a lazy text: write str"),
    ("", InvalidSemaphore, "^A semaphore can't be empty"),
    ("x" * 256, InvalidSemaphore, "at most 255 characters, this one has 256: .*sha256"),
    ("x" * 10_000_000, InvalidSemaphore, "at most 255 characters, this one has 10000000: "),
    *(
        (value, InvalidSemaphore, "^A semaphore has no control characters or lone surrogates")
        for value in ("a\0", "a\n", "\x7f", "\x9f", "\ud800", "a\udfff", "\ud83d")
    ),
]


def with_argument(entry: str, arguments: dict[str, Any]) -> Callable[[str], Any]:
    """Return a call with this argument, of a store if the argument names none."""
    return lambda alias: ENTRIES[entry](NAME, **{"backend": alias, **arguments})


def with_semaphore(entry: str, semaphore: Any) -> Callable[[str], Any]:
    """Return a call with this semaphore."""
    return lambda alias: ENTRIES[entry](semaphore, backend=alias)


def shown_as(given: dict[str, Any]) -> str:
    """Return the arguments as they are written."""
    return ", ".join(f"{name}={shown(value)}" for name, value in given.items())


ROWS = [
    *(
        Row(
            f"{entry}: {shown_as(given)}",
            with_argument(entry, given),
            error,
            says,
        )
        for entry in ENTRIES
        for given, error, says in ARGUMENTS
    ),
    *(
        Row(f"{entry}: semaphore {shown(semaphore)}", with_semaphore(entry, semaphore), error, says)
        for entry in ENTRIES
        for semaphore, error, says in SEMAPHORES
    ),
    *(
        Row(f"{entry}: {what}", with_argument(entry, given), ValueError, says, frozenset(stores))
        for entry in ENTRIES
        for what, given, says, stores in (
            (
                "no ttl",
                {"ttl": None},
                "has no unlimited ttl; give seconds",
                {"memcached", "lock_server", "minimal"},
            ),
            (
                "ttl in parts of seconds",
                {"ttl": 1.5},
                "Memcached counts whole seconds: give 2",
                {"memcached"},
            ),
            ("ttl of a month", {"ttl": 30 * DAYS}, "must be from 1 to 2591998", {"memcached"}),
            ("min_hold of a month", {"min_hold": 30 * DAYS}, "to 2591998 seconds", {"memcached"}),
            (
                "ttl above the server's limit",
                {"ttl": 100_001},
                "ttl is from 0.001 to 100000 seconds, not 100001.* --max-ttl",
                {"lock_server"},
            ),
        )
    ),
]
