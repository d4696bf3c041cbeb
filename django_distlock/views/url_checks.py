"""System checks of locked views' templates, over the URLconf."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.core import checks
from django.urls import get_resolver

from django_distlock.locks.arguments import EXAMPLE
from django_distlock.semaphores.templates import SemaphoreTemplate

from .decorator import distributed_lock
from .resolution import view_classes
from .url_routes import Called, Route, calls, name_of, walk


def check_placeholders(**kwargs: Any) -> list[checks.CheckMessage]:
    """Warn of each untyped placeholder that the URLconf fills with raw text.

    Behind `path("<customer_id>/…")` the texts `7`, `07` and `+7` find the same row, but make
    different semaphores.

    Report each view below a `@distributed_lock` without parentheses, too: it isn't locked, but
    taken for a callable that makes semaphores.

    Errors in the URLconf itself are left to Django's own checks.
    """
    found: dict[tuple[str, ...], checks.CheckMessage] = {}
    with suppress(Exception):
        for route, view in walk(get_resolver().url_patterns, Route()):
            with suppress(Exception):  # a view is any callable, and may raise anything
                for called in calls(view):
                    if isinstance(called.function, distributed_lock):
                        found.setdefault((called.name,), _missing_parentheses(called))
                for key in _untyped(route, view):
                    found.setdefault(key, _warning(route, *key))
    return [*found.values()]


def check_captures(**kwargs: Any) -> list[checks.CheckMessage]:
    """Warn of each placeholder that none of a view's URL patterns captures: requests would fail.

    A view that its own decorators may give arguments isn't judged, nor one of Django Ninja.
    """
    missing: dict[tuple[int, str], checks.CheckMessage] = {}
    captured: set[tuple[int, str]] = set()
    with suppress(Exception):
        for route, view in walk(get_resolver().url_patterns, Route()):
            with suppress(Exception):
                for called, lock, root in _placeholders(view):
                    key = id(lock), root
                    if called.lacks(route, root):
                        missing.setdefault(key, _not_captured(route, called, lock, root))
                    else:
                        captured.add(key)
    return [message for key, message in missing.items() if key not in captured]


def _placeholders(view: Any) -> Iterator[tuple[Called, Any, str]]:
    """Yield each lock with the names of the arguments that its template needs."""
    for called in calls(view):
        if called.is_validated or called.may_get_more:
            continue
        for lock in called.locks():
            if isinstance(lock.semaphore, str):
                for placeholder in SemaphoreTemplate(lock.semaphore).placeholders:
                    yield called, lock, placeholder.name.partition(".")[0]


def _untyped(route: Route, view: Any) -> Iterator[tuple[str, str, str]]:
    """Yield for each warning: a callable's name, the text of a template, a placeholder in it."""
    route = _without_described(route, view)
    seen = []
    for called in calls(view):
        for lock in called.locks():
            if lock in seen or not isinstance(lock.semaphore, str):
                continue
            texts = called.texts(route)
            for placeholder in SemaphoreTemplate(lock.semaphore).placeholders:
                if not placeholder.converter and placeholder.name in texts:
                    seen.append(lock)
                    yield called.name, lock.semaphore, placeholder.name


def _without_described(route: Route, view: Any) -> Route:
    """Return the route without the key that a viewset restricts by its own `lookup_value_regex`."""
    for view_class in view_classes(view):
        if getattr(view_class, "lookup_value_regex", None):
            viewset: Any = view_class
            lookup = viewset.lookup_url_kwarg or viewset.lookup_field
            return route._replace(names=route.names - {lookup})
    return route


def _missing_parentheses(called: Called) -> checks.CheckMessage:
    name = name_of(called.function.semaphore)
    return checks.Error(
        f"{name} is not locked, but replaced by a distributed_lock: its parentheses are missing.",
        hint=f"Write {EXAMPLE}.",
        obj=called.name,
        id="distlock.E005",
    )


def _warning(route: Route, name: str, text: str, placeholder: str) -> checks.CheckMessage:
    return checks.Warning(
        f"ROOT_URLCONF: the pattern {route.text!r} fills <{placeholder}> of the semaphore {text!r} "
        "with raw text: two spellings of the same thing, such as '7' and '07', are two locks.",
        hint=f"Type the placeholder: <int:{placeholder}>, <uuid:{placeholder}> or "
        f"<slug:{placeholder}>; or use a converter such as int or uuid in the URL. "
        f"<str:{placeholder}> declares that each text is a thing of its own.",
        obj=name,
        id="distlock.W006",
    )


def _not_captured(route: Route, called: Called, lock: Any, name: str) -> checks.CheckMessage:
    return checks.Warning(
        f"ROOT_URLCONF: the pattern {route.text!r} captures no <{name}>, which the semaphore "
        f"{lock.semaphore!r} names: each request fails.",
        hint=f"Write <int:{name}> in the pattern; or in the template, the name that it captures: "
        f"{', '.join(f'<{each}>' for each in sorted(route.captured)) or 'it captures none'}.",
        obj=called.name,
        id="distlock.W016",
    )
