"""Wrong arguments of what operators ask of a store."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy

from django_distlock import lock_backends
from django_distlock.exceptions import LockNotSupported
from django_distlock.records import LockQuery
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.bad_input.table import LISTING, PAUSING, STORES, Row, shown
from tests.support.entries import LONG, NAME
from tests.support.holders import acquire

if TYPE_CHECKING:
    from collections.abc import Callable

LAZY: Any = gettext_lazy("export")


def of_store(action: Callable[[Any], Any]) -> Callable[[str], Any]:
    """Return a call that does this to a store."""
    return lambda alias: action(lock_backends[alias])


def listed(method: str, *arguments: Any, **named: Any) -> Callable[[str], Any]:
    """Return a call that reads the whole answer of a method."""
    return of_store(lambda store: [*getattr(store, method)(*arguments, **named)])


def looked_up(method: str, value: Any) -> Callable[[str], Any]:
    """Return a call of a method with one argument."""
    return of_store(lambda store: getattr(store, method)(value))


def asked(**query: Any) -> Callable[[str], Any]:
    """Return a call that asks for a page."""
    return of_store(lambda store: store.page(LockQuery(**query)))


def forced(semaphore: Any, token: Any, by: Any = "") -> Callable[[str], Any]:
    """Return a call that releases a lock by force."""
    return of_store(lambda store: store.force_release(semaphore, token, by=by))


def paused(prefix: Any, seconds: Any = None, **texts: Any) -> Callable[[str], Any]:
    """Return a call that pauses grants."""
    return of_store(lambda store: store.pause(prefix, seconds, **texts))


def force_release_by(name: Any) -> Callable[[str], Any]:
    """Return a call that tells who releases a held lock by force, which is not released then."""

    def act(alias: str) -> Any:
        lease, store = acquire(alias, NAME), lock_backends[alias]
        try:
            return store.force_release(NAME, lease.token or 0, by=name)
        finally:
            assert lease.release(), "it was released by force in spite of the error"

    return act


PREFIXES: list[tuple[Any, type[Exception], str]] = [
    *((value, TypeError, "^prefix: A semaphore is a str, not ") for value in (5, None, b"1", LAZY)),
    *(
        (value, InvalidSemaphore, "^prefix: A semaphore has ")
        for value in ("\0", "a\n", "\ud800", "x" * 256)
    ),
]
AGES: list[tuple[Any, type[Exception], str]] = [
    *(
        (value, TypeError, "^older_than is a timedelta, not ")
        for value in (5, "1d", None, 1.5, LAZY)
    ),
    *(
        (value, ValueError, "^older_than is .*, but must be from 0 to 36500 days")
        for value in (timedelta(seconds=-1), timedelta(days=36_501), timedelta.max, timedelta.min)
    ),
]
QUERIES: list[tuple[str, Any, type[Exception], str]] = [
    *(("page", value, TypeError, "^page is a whole number, not ") for value in ("1", 1.5, None)),
    *(("page", value, ValueError, "^page is .* from 1 to ") for value in (0, -1, 10**30, LONG)),
    *(("limit", value, TypeError, "^limit is a whole number, not") for value in ("5", None, True)),
    *(("limit", value, ValueError, "^limit is .* from 0 to 1000") for value in (-1, 1001, LONG)),
    *(("state", value, TypeError, "^state is a LockState or None, not") for value in ("lost", 5)),
    *(("search", value, TypeError, "^search is a str, not ") for value in (5, None, LAZY)),
    ("search", "x" * 1001, ValueError, "^search has 1001 characters, but may have 1000"),
    *(("prefix", value, error, says) for value, error, says in PREFIXES),
]
ROWS = [
    *(
        Row(f"{method}({value!r:.9})", listed(method, value), error, says, stores)
        for method, stores in (("held", LISTING), ("clear_stale", STORES))
        for value, error, says in PREFIXES
    ),
    *(
        Row(f"held(limit={value!r:.20})", listed("held", limit=value), TypeError, says, LISTING)
        for value in ("x", 1.5, True, [1], LAZY)
        for says in ["^limit is a whole number or None, not "]
    ),
    *(
        Row(f"held(limit={shown(value)})", listed("held", limit=value), ValueError, says, LISTING)
        for value in (-1, -LONG, LONG)
        for says in ["^limit is .*, but must be from 0 .*None lists all"]
    ),
    *(
        Row(f"{method}({value!r})", looked_up(method, value), error, says, LISTING)
        for method in ("find", "waiters")
        for value, error, says in (
            (5, TypeError, "^A semaphore is a str, not int"),
            (None, TypeError, "^A semaphore is a str, not NoneType"),
            ("", InvalidSemaphore, "be empty"),
            ("\0", InvalidSemaphore, "no control characters"),
        )
    ),
    *(
        Row(f"purge_released({value!r:.40})", listed("purge_released", value), error, says)
        for value, error, says in AGES
    ),
    *(
        Row(
            f"{method}(dry_run)",
            listed(method, *given, dry_run="no"),
            TypeError,
            "^dry_run is True",
        )
        for method, given in (("clear_stale", []), ("purge_released", [timedelta(1)]))
    ),
    Row(
        "page() without a query",
        of_store(lambda store: store.page("report")),
        TypeError,
        "takes a LockQuery, not 'report'",
        LISTING,
    ),
    *(
        Row(
            f"page({name}={shown(value)})",
            asked(**{name: value}),
            error,
            says,
            LISTING,
        )
        for name, value, error, says in QUERIES
    ),
    *(
        Row(f"force_release(token={token!r:.20})", forced(NAME, token), TypeError, says, LISTING)
        for token in ("1", None, 1.5, True, LAZY)
        for says in ["^token is a whole number, not "]
    ),
    *(
        Row(
            f"force_release(token={shown(token)})",
            forced(NAME, token),
            ValueError,
            says,
            LISTING,
        )
        for token in (2**63, LONG, -1)
        for says in ["^token is .*, but must be from 0 to "]
    ),
    Row("force_release(5)", forced(5, 1), TypeError, "A semaphore is a str, not int", LISTING),
    Row("force_release('')", forced("", 1), InvalidSemaphore, "be empty", LISTING),
    Row("force_release(by=5)", force_release_by(5), TypeError, "^by is a str, not int", LISTING),
    Row(
        "force_release(by=…) of two lines",
        force_release_by("a\nb"),
        ValueError,
        "^by has no control characters",
        LISTING,
    ),
    Row(
        "force_release(by=…) of a book",
        force_release_by("x" * 256),
        ValueError,
        "^by has 256 characters, but may have 255",
        LISTING,
    ),
    *(
        Row(f"pause({value!r:.9})", paused(value), error, says, PAUSING)
        for value, error, says in PREFIXES
    ),
    *(
        Row(f"pause() for {value!r:.20}", paused("x", value), TypeError, says, PAUSING)
        for value in ("5", True, timedelta(1))
        for says in ["^seconds is a number of seconds or None, not "]
    ),
    *(
        Row(f"pause() for {value!r:.20}", paused("x", value), ValueError, says, PAUSING)
        for value in (0, -1, math.nan, math.inf, 1e300)
        for says in [r"^seconds is .*, but must be from 0.001 .*None pauses until resume\(\)"]
    ),
    *(
        Row(f"pause({text}={value!r:.20})", paused("x", **{text: value}), error, says, PAUSING)
        for text in ("reason", "by")
        for value, error, says in (
            (5, TypeError, " is a str, not int"),
            ("two\nlines", ValueError, " has no control characters or lone surrogates"),
            ("\ud800", ValueError, " has no control characters or lone surrogates"),
            ("x" * 256, ValueError, " has 256 characters, but may have 255"),
        )
    ),
    *(
        Row(f"resume({value!r:.20})", looked_up("resume", value), error, says, PAUSING)
        for value, error, says in PREFIXES
    ),
    *(
        Row(what, call, LockNotSupported, "can't .*The database, Redis", STORES - LISTING)
        for what, call in {
            "held() of a store that can't list": of_store(lambda store: store.held()),
            "find() of a store that can't list": of_store(lambda store: store.find(NAME)),
            "page() of a store that can't list": of_store(lambda store: store.page(LockQuery())),
            "force_release() of a store that can't list": forced(NAME, 1),
            "pause() of a store that can't pause": paused("x"),
            "resume() of a store that can't pause": of_store(lambda store: store.resume("x")),
        }.items()
    ),
    Row(
        "status() of a store that has none",
        of_store(lambda store: store.status()),
        LockNotSupported,
        "has no status, as the lock server has. .*health.check",
        STORES - {"lock_server"},
    ),
    Row(
        "pause() in a cluster",
        paused("x"),
        LockNotSupported,
        "a Redis Cluster can't pause locks: a grant would have to",
        frozenset({"redis_cluster"}),
    ),
]
