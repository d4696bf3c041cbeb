"""System checks of the DISTLOCK setting; each store checks its own options."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from django.core import checks

from django_distlock.backends.base import BaseLockBackend
from django_distlock.conf import lock_backends
from django_distlock.exceptions import (
    InvalidLockBackend,
    LockBackendUnavailable,
    UnencryptedServer,
)
from django_distlock.leases.probe import probe
from django_distlock.redaction.credentials import without_credentials

from .missing_app import missing_app

RENEWALS: Final = 3
"""A ttl of so many times `store_timeout` lets two renewals fail before the lease ends.

The first one is sent after a third of the ttl.
"""


def check_lock_backends(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Yield an error for each store that can't be made, and the messages of the others.

    Without the app and without DISTLOCK, a mere import may not mean to lock: that is a warning.
    """
    if missing := missing_app():
        yield missing
        return
    try:
        aliases = list(lock_backends)
    except InvalidLockBackend as error:
        yield _invalid(error)
        return
    for alias in aliases:
        yield from _safely(alias, partial(_check_store, alias, kwargs))


def check_databases(
    *, databases: Sequence[str] | None = None, **kwargs: Any
) -> Iterator[checks.CheckMessage]:
    """Yield what stores find in these databases, as `check --database` names them."""
    for alias in _aliases():
        yield from _safely(alias, partial(_check_database, alias, databases or ()))


def check_deployment(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Yield an error for each store that grants no locks, and the messages of the others.

    But for databases. check_lock_backends() reports stores that can't be made.
    """
    for alias in _aliases():
        yield from _safely(alias, partial(_check_deployed, alias, (None,)))


def check_deployed_databases(
    *, databases: Sequence[str] | None = None, **kwargs: Any
) -> Iterator[checks.CheckMessage]:
    """Do the same for stores in these databases, as `check --deploy --database` names them."""
    for alias in _aliases():
        yield from _safely(alias, partial(_check_deployed, alias, databases or ()))


def _aliases() -> list[str]:
    try:
        return list(lock_backends)
    except InvalidLockBackend:
        return []


def _safely(
    alias: str, check: Callable[[], Iterable[checks.CheckMessage]]
) -> list[checks.CheckMessage]:
    """Return the messages of a check; if it raises, one that says so."""
    try:
        return [*check()]
    except Exception as error:  # noqa: BLE001 - a third party's store may raise anything
        return [
            checks.Warning(
                f"DISTLOCK[{alias!r}]: its checks failed: {type(error).__name__}: "
                f"{without_credentials(error)}",
                hint="This is a mistake in the store's code, not in your settings: report it to "
                'its authors. Until it is corrected, write SILENCED_SYSTEM_CHECKS = ["distlock.'
                'W019"].',
                id="distlock.W019",
            )
        ]


def _check_store(alias: str, kwargs: dict[str, Any]) -> Iterator[checks.CheckMessage]:
    try:
        store = lock_backends[alias]
    except InvalidLockBackend as error:
        yield _invalid(error)
    except LockBackendUnavailable:
        return  # the store need not run yet
    else:
        yield from _check_ttl(store)
        yield from store.check(**kwargs)


def _check_database(alias: str, databases: Sequence[str]) -> Iterable[checks.CheckMessage]:
    try:
        store = lock_backends[alias]
    except (InvalidLockBackend, LockBackendUnavailable):
        return []
    if store.using not in databases:
        return []
    try:
        return store.check_database()
    except LockBackendUnavailable as error:
        if "--deploy" in sys.argv:
            return []  # check_deployed_databases() reports it
        return [_unreachable(alias, without_credentials(error), store.using)]


def _check_deployed(alias: str, places: Sequence[str | None]) -> Iterable[checks.CheckMessage]:
    using = None
    try:
        store = lock_backends[alias]
        using = store.using
        if using not in places:
            return []
        health = probe(alias)
        return store.check_deployment() if health else [_unreachable(alias, health.detail, using)]
    except InvalidLockBackend:
        return []
    except LockBackendUnavailable as error:  # also a store that is asked when it is made
        reason = without_credentials(error)
        return [_unreachable(alias, reason, using)] if using in places else []


def _invalid(error: InvalidLockBackend) -> checks.Error:
    if isinstance(error, UnencryptedServer):
        return checks.Error(
            str(error),
            hint='Write "tls": True in OPTIONS, or "tls_ca": "/path/to/ca.pem" for an authority '
            "of your own; and start the server with --tls-cert and --tls-key.",
            id="distlock.E006",
        )
    return checks.Error(
        str(error),
        hint='Correct that. A store is written as "jobs": {"BACKEND": "dotted.path.of.a.Backend", '
        '"OPTIONS": {…}}; what no setting means is DISTLOCK = {"default": {"BACKEND": '
        '"django_distlock.backends.database.DatabaseBackend", "OPTIONS": {"using": "default"}}}.',
        id="distlock.E001",
    )


def _check_ttl(store: BaseLockBackend) -> Iterator[checks.CheckMessage]:
    """Warn if the time that a renewal may take leaves none for a second one."""
    ttl, timeout = store.ttl, store.store_timeout
    if ttl is None or timeout is None or ttl >= RENEWALS * timeout:
        return
    longer, shorter = math.ceil(RENEWALS * timeout), math.floor(100 * ttl / RENEWALS) / 100
    yield checks.Warning(
        f"DISTLOCK[{store.alias!r}]: ttl is {ttl:g} and store_timeout {timeout:g} seconds: after "
        "a renewal that isn't answered there is no time for another one, and the lease is lost.",
        hint=f'Write "ttl": {longer} or more in OPTIONS, or "store_timeout": '
        f"{max(0.01, shorter):g} or less.",
        id="distlock.W014",
    )


def _unreachable(alias: str, reason: str, using: str | None) -> checks.Error:
    """Return the error for a store that grants no locks now."""
    name = f"DISTLOCK[{alias!r}]"
    place = "its OPTIONS say" if using is None else f"DATABASES[{using!r}] says"
    return checks.Error(
        f"{name}: no lock can be acquired: {reason.removeprefix(f'{name}: ')}",
        hint=f"Start the store, or correct where {place} that it is. To try again, write in "
        f"manage.py shell: from django_distlock import health; health.check({alias!r})",
        id="distlock.E009",
    )
