"""Lock errors in the error format of Django REST framework.

    REST_FRAMEWORK = {
        "EXCEPTION_HANDLER": "django_distlock.integrations.rest_framework.exception_handler",
    }

A site that has an exception handler of its own decorates it with @answer_lock_errors.
"""

import functools
from collections.abc import Callable
from typing import Any

from django_distlock.views.answers import Answer, answer_to, is_answered
from django_distlock.views.api_errors import mark_answering
from django_distlock.views.atomic_requests import rolled_back

try:
    from rest_framework import views
    from rest_framework.exceptions import APIException
    from rest_framework.response import Response
except ImportError as error:
    raise ImportError(
        "django_distlock.integrations.rest_framework needs Django REST framework: "
        "pip install djangorestframework"
    ) from error

__all__ = ["LockException", "answer_lock_errors", "exception_handler"]

Handler = Callable[[Exception, dict[str, Any]], Response | None]


class LockException(APIException):  # type: ignore[misc]  # it has no type hints
    """A lock error as an exception of REST framework. The lock error is its `__cause__`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.detail, answer.code)
        self.status_code = answer.status
        self.wait = answer.retry_after
        """Seconds: REST framework's handler makes Retry-After of it."""


def answer_lock_errors(handler: Handler) -> Handler:
    """Decorate your exception handler: it gets lock errors as a `LockException`.

    So they have the format of your other errors. The answer gets the headers of a lock error.
    """

    @functools.wraps(handler)
    def handle(error: Exception, context: dict[str, Any]) -> Response | None:
        if not is_answered(error):
            return handler(error, context)
        answer = answer_to(context["request"], error)
        lock_exception = LockException(answer)
        lock_exception.__cause__ = error
        response = handler(lock_exception, context)
        if response is not None:
            for name, value in answer.headers.items():
                response[name] = value
            rolled_back(response)
        return response

    return mark_answering(handle)


@answer_lock_errors
def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer lock errors with `{"detail": …, "code": …}`, and others as REST framework does."""
    response = views.exception_handler(error, context)
    if response is not None and isinstance(error, LockException):
        response.data["code"] = error.get_codes()
    return response
