"""System checks of the locks of views and tasks: their stores, and their times."""

import math
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

from django.core import checks
from django.urls import get_resolver

from django_distlock.backends.base import BaseLockBackend
from django_distlock.checks.processes import Limit, request_limits
from django_distlock.checks.stores import RENEWALS
from django_distlock.conf import lock_backends
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.locks.arguments import BackendTtl
from django_distlock.semaphores.templates import like_f_strings

from .url_routes import Route, calls, walk

CELERY_LIMITS: Final = ("soft_time_limit", "time_limit")
"""The limits of a task of Celery; it fills in those of the settings for all tasks."""


class Subject(NamedTuple):
    """A lock of a view or task, with the limits of the worker that calls it."""

    name: str
    lock: Any
    limits: Iterable[Limit]

    def argument(self, name: str) -> Any:
        """Return an argument of the lock."""
        return self.lock.arguments[name]


def check_locks(**kwargs: Any) -> list[checks.CheckMessage]:
    """Report locks whose store or ttl can't be, and those that outwait their worker."""
    messages: list[checks.CheckMessage] = []
    seen: set[int] = set()
    for find in (locks_of_views, locks_of_tasks):
        with suppress(Exception):  # Django and Celery report their own mistakes
            for subject in find():
                if id(subject.lock) not in seen:
                    seen.add(id(subject.lock))
                    messages += [*_check_store(subject), *_check_timeout(subject)]
    return messages


def check_templates(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Warn of templates of any decorated callable that look like f-strings without their `f`."""
    with suppress(Exception):  # so that the views are imported
        get_resolver().url_patterns  # noqa: B018
    for (name, text), found in [*like_f_strings.items()]:
        argument = re.split(r"[\[(!:]", found.strip("{}"))[0]
        yield checks.Warning(
            f"The semaphore {text!r} looks like an f-string, but {found} is not filled in: all "
            "calls share one lock.",
            hint=f"Write <{argument}>, the name of an argument of the call. If the braces are "
            f"meant literally, write @distributed_lock(lambda *args, **kwargs: {text!r}).",
            obj=name,
            id="distlock.W017",
        )


def locks_of_views() -> Iterator[Subject]:
    limits = request_limits()
    for _, view in walk(get_resolver().url_patterns, Route()):
        with suppress(Exception):  # a view is any callable, and may raise anything
            for called in calls(view):
                for lock in called.locks():
                    yield Subject(called.name, lock, limits)


def locks_of_tasks() -> Iterator[Subject]:
    """Yield the locks of Celery's tasks, if the site has imported Celery and them."""
    celery = sys.modules.get("celery")
    if celery is None:
        return
    for name, task in celery.current_app.tasks.items():
        limits = [
            Limit(f"{option} of {name}", float(seconds))
            for option in CELERY_LIMITS
            if (seconds := getattr(task, option, None))
        ]
        for lock in getattr(task.run, "distributed_locks", ()):
            yield Subject(name, lock, limits)


def _check_store(subject: Subject) -> Iterator[checks.CheckMessage]:
    """Report a store that isn't configured, or doesn't take the lock's ttl."""
    ttl, alias = subject.argument("ttl"), subject.argument("backend")
    try:
        store = lock_backends[alias]
    except LockBackendUnavailable:
        return
    except InvalidLockBackend as error:
        if alias not in lock_backends:  # else check_lock_backends() reports it
            hint = f'Write {alias!r}: {{"BACKEND": "…", "OPTIONS": {{…}}}} in DISTLOCK.'
            yield _refused(subject, str(error), hint)
        return
    if isinstance(ttl, BackendTtl):
        return
    if ttl is not None or subject.argument("max_hold") is None:
        try:
            store.validate_ttl(ttl)
        except (TypeError, ValueError) as error:
            hint = f"Write another ttl in distributed_lock(…), or none: then it is {store.ttl}."
            yield _refused(subject, f"DISTLOCK[{alias!r}]: {error}", hint)
            return
    if ttl is not None and subject.argument("renew"):
        yield from _check_ttl(subject, store, ttl)


def _check_ttl(subject: Subject, store: BaseLockBackend, ttl: float) -> Iterator[checks.Warning]:
    timeout = store.store_timeout
    if timeout is not None and ttl < RENEWALS * timeout:
        yield checks.Warning(
            f"DISTLOCK[{store.alias!r}]: store_timeout is {timeout:g} seconds, but ttl={ttl:g}: "
            "after a renewal that isn't answered there is no time for another one, and the lease "
            "is lost.",
            hint=f"Write ttl={math.ceil(RENEWALS * timeout)} or more in distributed_lock(…).",
            obj=subject.name,
            id="distlock.W014",
        )


def _check_timeout(subject: Subject) -> Iterator[checks.Warning]:
    """Warn if the worker is ended before the wait for the lock is."""
    timeout = subject.argument("timeout")
    seconds = math.inf if timeout is None else timeout
    for limit in subject.limits:
        if seconds >= limit.seconds:
            yield checks.Warning(
                f"{limit.setting}: a worker is ended after {limit.seconds:g} seconds, but waits "
                f"for its lock with timeout={timeout}.",
                hint=f"Write timeout={limit.seconds / 2:g} or less in distributed_lock(…), so "
                "that time is left for the work.",
                obj=subject.name,
                id="distlock.W015",
            )


def _refused(subject: Subject, text: str, hint: str) -> checks.Error:
    return checks.Error(text, hint=hint, obj=subject.name, id="distlock.E011")
