"""System check: locked views whose placeholders are filled with raw text of the URL.

Behind `path("<customer_id>/…")` the texts `7`, `07` and `+7` find the same row, but make different
semaphores.
"""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from django.core import checks
from django.urls import get_resolver
from django.urls.converters import PathConverter, SlugConverter, StringConverter
from django.views import View

from django_distlock.locks.arguments import EXAMPLE
from django_distlock.semaphores.signatures import call_signature
from django_distlock.semaphores.templates import SemaphoreTemplate

from .decorator import distributed_lock
from .resolution import ninja_operations, rest_functions, view_classes, wrapped

UNTYPED: Final = (NoneType, StringConverter, PathConverter, SlugConverter)
"""Converters that pass on the raw text. NoneType stands for a group of re_path()."""


class Route(NamedTuple):
    """A pattern of the URLconf, with the patterns that include it."""

    text: str = ""
    names: frozenset[str] = frozenset()
    """The arguments that it passes on as raw text."""
    has_names: bool = False
    """Whether any group has a name; then Django drops the text of the others."""
    unnamed: int = 0
    """The number of groups, if none has a name."""

    def extended(self, entry: Any) -> "Route":
        """Return the route of an entry of the URLconf that this one includes."""
        pattern = entry.pattern
        groups, converters = pattern.regex.groupindex, pattern.converters
        texts = {name for name in groups if type(converters.get(name)) in UNTYPED}
        fixed = getattr(entry, "default_args", {}) | getattr(entry, "default_kwargs", {})
        return Route(
            text=f"{self.text}{pattern}",
            names=((self.names - groups.keys()) | texts) - fixed.keys(),
            has_names=self.has_names or bool(groups),
            unnamed=self.unnamed + pattern.regex.groups,
        )


class Called(NamedTuple):
    """A view, or a callable that it calls."""

    name: str
    function: Any
    arguments_before: int = 1
    """The number of arguments before those of the URL: the request, and before it `self`."""
    is_validated: bool = False
    """Whether Django Ninja converts the arguments by their annotations."""

    def locks(self) -> Iterable[Any]:
        """Return the locks that it is decorated with."""
        found: Iterable[Any] = getattr(self.function, "distributed_locks", ())
        return found

    def texts(self, route: Route) -> Iterable[str]:
        """Return the names of the arguments that it gets as raw text."""
        if self.is_validated:
            parameters = inspect.signature(self.function).parameters
            return [
                name
                for name in route.names
                if name not in parameters or _is_text(parameters[name].annotation)
            ]
        if route.has_names or not route.unnamed:
            return route.names
        names = [*call_signature(self.function).parameters]
        return names[self.arguments_before :][: route.unnamed]


def check_placeholders(**kwargs: Any) -> list[checks.CheckMessage]:
    """Warn of each untyped placeholder that the URLconf fills with raw text.

    Report each view below a `@distributed_lock` without parentheses, too: it isn't locked, but
    taken for a callable that makes semaphores.

    Errors in the URLconf itself are left to Django's own checks.
    """
    found: dict[tuple[str, ...], checks.CheckMessage] = {}
    with suppress(Exception):
        for route, view in _views(get_resolver().url_patterns, Route()):
            with suppress(Exception):  # a view is any callable, and may raise anything
                for called in _calls(view):
                    if isinstance(called.function, distributed_lock):
                        found.setdefault((called.name,), _missing_parentheses(called))
                for key in _untyped(route, view):
                    found.setdefault(key, _warning(route, *key))
    return [*found.values()]


def _views(entries: Iterable[Any], outer: Route) -> Iterator[tuple[Route, Any]]:
    """Yield each view with its route."""
    for entry in entries:
        route = None
        with suppress(Exception):  # another library's pattern, or none
            route = outer.extended(entry)
        if route is None:
            continue
        if hasattr(entry, "url_patterns"):
            yield from _views(entry.url_patterns, route)
        else:
            yield route, entry.callback


def _untyped(route: Route, view: Any) -> Iterator[tuple[str, str, str]]:
    """Yield for each warning: a callable's name, the text of a template, a placeholder in it."""
    route = _without_described(route, view)
    seen = []
    for called in _calls(view):
        for lock in called.locks():
            if lock in seen or not isinstance(lock.semaphore, str):
                continue
            texts = called.texts(route)
            for placeholder in SemaphoreTemplate(lock.semaphore).placeholders:
                if not placeholder.converter and placeholder.name in texts:
                    seen.append(lock)
                    yield called.name, lock.semaphore, placeholder.name


def _calls(view: Any) -> Iterator[Called]:
    """Yield the view and the callables that it calls, for any HTTP method."""
    while view is not None:
        name = _name(view)
        for operation in ninja_operations(view):
            name = _name(operation.view_func)
            yield Called(name, operation.view_func, is_validated=True)
            yield Called(name, operation.run)  # its arguments are not validated yet
        for function in rest_functions(view):
            yield from _calls(function)
        for view_class in view_classes(view):
            name = f"{view_class.__module__}.{view_class.__name__}"
            actions = getattr(view, "actions", None) or {}  # a viewset's, by HTTP method
            for method in (*View.http_method_names, *actions.values(), "dispatch"):
                yield Called(f"{name}.{method}", getattr(view_class, method, None), 2)
        yield Called(name, view)
        view = wrapped(view)


def _without_described(route: Route, view: Any) -> Route:
    """Return the route without the key that a viewset restricts by its own `lookup_value_regex`."""
    for view_class in view_classes(view):
        if getattr(view_class, "lookup_value_regex", None):
            viewset: Any = view_class
            lookup = viewset.lookup_url_kwarg or viewset.lookup_field
            return route._replace(names=route.names - {lookup})
    return route


def _is_text(annotation: Any) -> bool:
    """Tell whether an argument with this annotation may be any text, as one without is."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_text(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return any(map(_is_text, get_args(annotation)))
    if annotation in (Any, inspect.Parameter.empty):
        return True
    is_class = isinstance(annotation, type)
    return is_class and issubclass(annotation, str) and not issubclass(annotation, Enum)


def _name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _missing_parentheses(called: Called) -> checks.CheckMessage:
    name = _name(called.function.semaphore)
    return checks.Error(
        f"{name} is not locked, but replaced by a distributed_lock: its parentheses are missing.",
        hint=f"Write {EXAMPLE}.",
        obj=called.name,
        id="distlock.E005",
    )


def _warning(route: Route, name: str, text: str, placeholder: str) -> checks.CheckMessage:
    return checks.Warning(
        f"The URL pattern {route.text!r} fills <{placeholder}> of the semaphore {text!r} with raw "
        "text: two spellings of the same thing, such as '7' and '07', are two locks.",
        hint=f"Type the placeholder: <int:{placeholder}>, <uuid:{placeholder}> or "
        f"<slug:{placeholder}>; or use a converter such as int or uuid in the URL. "
        f"<str:{placeholder}> declares that each text is a thing of its own.",
        obj=name,
        id="distlock.W006",
    )
