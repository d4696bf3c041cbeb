"""Lock errors in the error format of Django Ninja.

api = NinjaAPI()
answer_lock_errors(api)
"""

from functools import partial
from typing import get_args

from django.http import HttpRequest, HttpResponse

from django_distlock.views.answers import AnsweredError, answer_to
from django_distlock.views.api_errors import mark_answering
from django_distlock.views.atomic_requests import rolled_back

try:
    from ninja import NinjaAPI
except ImportError as error:
    raise ImportError(
        "django_distlock.integrations.ninja needs Django Ninja: pip install django-ninja"
    ) from error

__all__ = ["answer_lock_errors"]


def answer_lock_errors(api: NinjaAPI) -> None:
    """Answer lock errors of this API's operations in Ninja's format: `{"detail": …, "code": …}`."""
    for kind in get_args(AnsweredError):
        api.add_exception_handler(kind, partial(_answer, api=api))
    mark_answering(api)


def _answer(request: HttpRequest, error: AnsweredError, *, api: NinjaAPI) -> HttpResponse:
    answer = answer_to(request, error)
    data = {"detail": answer.detail, "code": answer.code}
    response = api.create_response(request, data, status=answer.status)
    for name, value in answer.headers.items():
        response[name] = value
    return rolled_back(response)
