"""Find out whether a call is Django's call of a view, directly or through another framework."""

import functools
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, MethodType
from typing import Any, Final

from django.http import HttpRequest, HttpResponseBase

from django_distlock.semaphores.signatures import bound_for_a_call

TASK_DECORATORS: Final = {
    "celery": "@shared_task or @app.task",
    "django.tasks": "@task",
    "django_tasks": "@task",
    "dramatiq": "@dramatiq.actor",
    "huey": "@huey.task()",
    "procrastinate": "@app.task",
}
"""The decorator that makes a task, by the module of the task's type."""

TASK_METHODS: Final = {"delay": "@job", "enqueue": "@job", "call_local": "@on_commit_task()"}
"""The decorator that makes a task of a function, by a method that it adds to the function."""


def task_decorator(function: object) -> str | None:
    """Return the decorator that made this a task; None if it is no task.

    Only the type is inspected, without isinstance(): reading any attribute of Celery's proxy, even
    __class__, would create its task too early.
    """
    kind = type(function)
    if kind is FunctionType:
        # These add methods to the function: RQ, and Huey where it enqueues after a commit.
        for method, decorator in TASK_METHODS.items():
            if callable(vars(function).get(method)):
                return decorator
        return None
    modules = [f"{base.__module__}." for base in kind.__mro__]
    for library, decorator in TASK_DECORATORS.items():
        if any(module.startswith(f"{library}.") for module in modules):
            return decorator
    return None


def find_request(args: tuple[Any, ...], kwargs: dict[str, Any]) -> HttpRequest | None:
    """Return the request that a view, or a method of a view's class, is called with.

    Django REST framework's request has Django's inside.
    """
    for argument in (*args[:2], kwargs.get("request")):
        if (request := _django_request(argument)) is not None:
            return request
    return None


def without_self(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a view, or of a method of a view's class, from the request on."""
    return args[1:] if args and _django_request(args[0]) is None else args


def _django_request(argument: Any) -> HttpRequest | None:
    # In a way that doesn't evaluate a lazy object such as request.user.
    kind: type = type(argument)
    request: Any = argument
    if not issubclass(kind, HttpRequest):
        request = getattr(argument, "__dict__", {}).get("_request")
    return request if isinstance(request, HttpRequest) else None


def is_resolved(
    request: HttpRequest, locked: Callable[..., HttpResponseBase], instance: object
) -> bool:
    """Tell whether Django resolved this function for the request, or the instance's view class.

    Only then its return value is the answer to the request. A helper that is passed the request
    raises, so that its caller can't overlook the conflict.
    """
    match = request.resolver_match
    if match is None or match.func is locked:
        return match is not None
    if bound := bound_for_a_call(locked):
        instance = getattr(bound.func, "__self__", instance)
    return any(
        layer is locked or any(isinstance(instance, kind) for kind in view_classes(layer))
        for layer in _layers(match.func, request)
    )


def _layers(view: Any, request: HttpRequest) -> Iterator[Any]:
    """Yield the view and the functions that it is found to call for the request."""
    while view is not None:
        yield view
        for hidden in (*rest_functions(view), *_ninja_functions(view, request)):
            yield from _layers(hidden, request)
        view = wrapped(view)


def wrapped(view: Any) -> Any:
    """Return the function that a call of this view calls; None if that can't be found."""
    if isinstance(view, MethodType):
        return view.__func__
    if isinstance(view, functools.partial):
        return view.func
    if isinstance(view, FunctionType) or hasattr(view, "__wrapped__"):
        return getattr(view, "__wrapped__", None)
    call = type(view).__call__
    return call if isinstance(call, FunctionType) else None


def view_classes(view: Any) -> Iterable[type]:
    """Yield the class whose `as_view()` returned this; REST framework's viewsets name it `cls`."""
    found = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if isinstance(found, type):
        yield found


def rest_functions(view: Any) -> Iterator[Any]:
    """Yield the functions that REST framework's `api_view` turned into the methods of a class.

    No other method's closure is inspected: it may contain helpers.
    """
    for view_class in view_classes(view):
        for handler in vars(view_class).values():
            if isinstance(handler, FunctionType) and handler.__qualname__.startswith("api_view."):
                yield from (cell.cell_contents for cell in handler.__closure__ or ())


def is_api(request: HttpRequest) -> bool:
    """Tell whether Django resolved the request to a view of REST framework or Django Ninja."""
    match = request.resolver_match
    return match is not None and any(
        ninja_operations(layer) or any(map(_is_rest_class, view_classes(layer)))
        for layer in _layers(match.func, request)
    )


def _is_rest_class(view_class: type) -> bool:
    """Tell whether it is a view of REST framework, which need not be installed."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in view_class.__mro__}
    return "rest_framework.views.APIView" in names


def ninja_operations(view: Any) -> Iterable[Any]:
    """Return the operations of a path of Django Ninja, which has one view for all HTTP methods."""
    path_view = _owner(view)
    return path_view.operations if type(path_view).__name__ == "PathView" else ()


def _ninja_functions(view: Any, request: HttpRequest) -> Iterator[Any]:
    """Yield the functions that Django Ninja calls for the request."""
    for operation in ninja_operations(view):
        if request.method in operation.methods:
            yield operation.view_func
            yield operation.run  # decorate_view() wraps this


def ninja_apis(request: HttpRequest, function: Callable[..., Any]) -> Iterator[Any]:
    """Yield the API of Django Ninja whose operation for the request calls this function."""
    match = request.resolver_match
    for layer in _layers(match.func, request) if match else ():
        for operation in ninja_operations(layer):
            if request.method in operation.methods and any(
                inner is function for inner in _layers(operation.view_func, request)
            ):
                yield operation.api


def rest_views(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """Yield the view of REST framework that made the request among these arguments."""
    for argument in (*args[:2], kwargs.get("request")):
        context = getattr(argument, "__dict__", {}).get("parser_context")
        if isinstance(context, dict) and "view" in context:
            yield context["view"]


def _owner(view: Any) -> Any:
    """Return the `self` of a method, or of the method in which a function was defined."""
    if isinstance(view, FunctionType) and "self" in (names := view.__code__.co_freevars):
        return (view.__closure__ or ())[names.index("self")].cell_contents
    return getattr(view, "__self__", None)
