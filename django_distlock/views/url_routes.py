"""The URLconf as system checks see it: each view, its route, and the callables that it calls."""

import functools
import inspect
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from django.urls.converters import PathConverter, SlugConverter, StringConverter
from django.views import View

from django_distlock.semaphores.signatures import call_signature

from .resolution import ninja_operations, rest_functions, view_classes, wrapped

UNTYPED: Final = (NoneType, StringConverter, PathConverter, SlugConverter)
"""Converters that pass on the raw text. NoneType stands for a group of re_path()."""

LOCKING: Final = "django_distlock.views.decorator"
"""The module of the functions that `@distributed_lock` makes."""
PASSING_ON: Final = ("django", "django_distlock", "rest_framework")
"""Packages whose decorators pass a view's arguments on as they are."""


class Route(NamedTuple):
    """A pattern of the URLconf, with the patterns that include it."""

    text: str = ""
    names: frozenset[str] = frozenset()
    """The arguments that it passes on as raw text."""
    has_names: bool = False
    """Whether any group has a name; then Django drops the text of the others."""
    unnamed: int = 0
    """The number of groups, if none has a name."""
    captured: frozenset[str] = frozenset()
    """All arguments that it passes on by name."""

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
            captured=self.captured | groups.keys() | fixed.keys(),
        )


class Called(NamedTuple):
    """A view, or a callable that it calls."""

    name: str
    function: Any
    arguments_before: int = 1
    """The number of arguments before those of the URL: the request, and before it `self`."""
    is_validated: bool = False
    """Whether Django Ninja converts the arguments by their annotations, and adds others."""
    may_get_more: bool = False
    """Whether something of the site's own stands above it, which may add arguments."""

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

    def lacks(self, route: Route, name: str) -> bool:
        """Return whether it has no argument of this name, by whichever way."""
        parameters = call_signature(self.function).parameters
        unnamed = 0 if route.has_names else route.unnamed
        positional = [*parameters][: self.arguments_before + unnamed]
        is_optional = name in parameters and parameters[name].default is not inspect.Parameter.empty
        return not (name in route.captured or name in positional or is_optional)


def walk(entries: Iterable[Any], outer: Route) -> Iterator[tuple[Route, Any]]:
    """Yield each view with its route."""
    for entry in entries:
        route = None
        with suppress(Exception):  # another library's pattern, or none
            route = outer.extended(entry)
        if route is None:
            continue
        if hasattr(entry, "url_patterns"):
            yield from walk(entry.url_patterns, route)
        else:
            yield route, entry.callback


def calls(view: Any, *, may_get_more: bool = False) -> Iterator[Called]:
    """Yield the view and the callables that it calls, for any HTTP method."""
    while view is not None:
        name = name_of(view)
        for operation in ninja_operations(view):
            name = name_of(operation.view_func)
            yield Called(name, operation.view_func, is_validated=True)
            yield Called(name, operation.run, may_get_more=True)  # not validated yet
        for function in rest_functions(view):
            yield from calls(function, may_get_more=may_get_more)
        for view_class in view_classes(view):
            name = f"{view_class.__module__}.{view_class.__name__}"
            for method in _methods(view):
                function = getattr(view_class, method, None)
                more = may_get_more or _adds_arguments(function)
                yield Called(f"{name}.{method}", function, 2, may_get_more=more)
        more = may_get_more or _adds_arguments(view)
        yield Called(name, view, may_get_more=more)
        may_get_more = may_get_more or _may_add_arguments(view)
        view = wrapped(view)


def _methods(view: Any) -> Iterable[str]:
    """Return the names of a class's methods that the view may call: a viewset's are its actions."""
    actions = getattr(view, "actions", None) or {}
    return *View.http_method_names, *actions.values(), "dispatch"


def _adds_arguments(function: Any) -> bool:
    """Return whether a decorator above the function's lock may add arguments."""
    while function is not None and not is_locked(function):
        if _may_add_arguments(function):
            return True
        function = wrapped(function)
    return False


def is_locked(function: Any) -> bool:
    """Return whether the outermost decorator of the function is a lock."""
    return getattr(function, "__globals__", {}).get("__name__") == LOCKING


def _may_add_arguments(function: Any) -> bool:
    """Return whether this is a wrapper that isn't known to pass arguments on as they are."""
    if isinstance(function, functools.partial):
        return True
    if not (isinstance(function, FunctionType) and hasattr(function, "__wrapped__")):
        return False
    module = str(function.__globals__.get("__name__"))
    return module.partition(".")[0] not in PASSING_ON


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


def name_of(function: Any) -> str:
    """Return the dotted path of a callable, or of its class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
