"""Lock errors that an API answers in its own format, because the site asked for it.

In Django REST framework an exception handler does that, in Django Ninja the API. Those that answer
lock errors are marked, by django_distlock.integrations.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from django.http import HttpRequest

from .resolution import ninja_apis, rest_views

T = TypeVar("T")

MARK: Final = "answers_lock_errors"


def mark_answering(answering: T) -> T:
    """Mark an exception handler of REST framework, or an API of Ninja, and return it."""
    setattr(answering, MARK, True)
    return answering


def is_marked(answering: object) -> bool:
    """Tell whether it answers lock errors."""
    return getattr(answering, MARK, False)


def is_answered_by_api(
    request: HttpRequest,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> bool:
    """Tell whether lock errors that are raised around this call are answered by its framework."""
    return any(map(is_marked, _answering(request, function, args, kwargs)))


def _answering(
    request: HttpRequest,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[object]:
    for view in rest_views(args, kwargs):
        yield view.get_exception_handler()
    yield from ninja_apis(request, function)
