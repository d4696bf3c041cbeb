"""The responses of a locked view that is not called, or whose lease was lost."""

import math
import random
from typing import Final

from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.utils.log import log_response
from django.utils.translation import gettext as _

from django_distlock.records import Refusal

from .resolution import is_api

SOON: Final = 3
"""Upper limit of Retry-After in seconds, where nothing suggests a longer wait."""
LONGEST: Final = 60
"""Upper limit of Retry-After in seconds, whatever is known."""


def contended(request: HttpRequest, refusal: Refusal, ttl: float | None) -> HttpResponse:
    """Answer 409: another request holds the lock, or it is paused; its own ttl would be this.

    The client is told nothing of the refusal but Retry-After.
    """
    if refusal.reason:
        detail = _("This can't be done right now. Please try again later.")
    else:
        detail = _("This is being worked on by another request. Please try again in a moment.")
    return _retried(_answer(request, 409, "contended", detail), *retry_range(refusal, ttl))


def retry_range(refusal: Refusal, ttl: float | None) -> tuple[int, int]:
    """Return the earliest and the latest Retry-After that make sense, in seconds.

    Most leases are released long before they end. So the best guess is that a lock is held for as
    long again as it was held so far, but never beyond its lease. A pause, and a lock that is kept
    after its release, last until their end: the clients then return in the seconds after it.
    """
    left = max(0, math.ceil(refusal.remaining or 0))
    if refusal.reason and left:
        return min(left, LONGEST - SOON), min(left + SOON, LONGEST)
    guess = max(SOON, math.ceil(refusal.held_for or 0))
    latest = max(1, min(guess, left or int(ttl or SOON), LONGEST))
    return (latest + 1) // 2 if latest > SOON else 1, latest


def unavailable(request: HttpRequest) -> HttpResponse:
    """Answer 503: the store is down, or the lease was lost and the work undone."""
    detail = _("This can't be done safely right now. Please try again in a moment.")
    return _retried(_answer(request, 503, "unavailable", detail), 1, SOON)


def unfinished(request: HttpRequest) -> HttpResponse:
    """Answer 503 without Retry-After: part of the work may have been done."""
    detail = _("This was not finished, and may have been done in part.")
    return _answer(request, 503, "unfinished", detail)


def invalid(request: HttpRequest, reason: Exception) -> HttpResponse:
    """Answer 400 as Django does to a BadRequest. If it were raised, a framework might answer 500.

    The reason is logged. As in Django's own answer, the client sees it only if DEBUG is on.
    """
    if not _prefers_json(request):
        return _uncached(response_for_exception(request, BadRequest(str(reason))))
    detail = str(reason) if settings.DEBUG else _("A value in this request is not valid.")
    response = _json(400, "invalid", detail)
    log_response(
        "%s: %s", str(reason), request.path, response=response, request=request, exception=reason
    )
    return _uncached(response)


def _answer(request: HttpRequest, status: int, error: str, detail: str) -> HttpResponse:
    """Answer in JSON if the client prefers it, else with the site's page, else in plain text."""
    response: HttpResponse
    if _prefers_json(request):
        response = _json(status, error, detail)
    else:
        try:
            page = render_to_string(f"{status}.html", {"detail": detail}, request)
            response = HttpResponse(page, status=status)
        except TemplateDoesNotExist:
            kind = "text/plain; charset=utf-8"
            response = HttpResponse(f"{detail}\n", content_type=kind, status=status)
    return _uncached(response)


def _prefers_json(request: HttpRequest) -> bool:
    """Tell whether to answer in JSON; if the client has no preference, the view's kind decides."""
    kinds = ["text/html", "text/plain"]
    if is_api(request):
        return request.get_preferred_type(["application/json", *kinds]) not in kinds
    return request.get_preferred_type([*kinds, "application/json"]) == "application/json"


def _json(status: int, error: str, detail: str) -> HttpResponse:
    return JsonResponse({"error": error, "detail": detail}, status=status)


def _retried(response: HttpResponse, earliest: int, latest: int) -> HttpResponse:
    """Set Retry-After to a random number: clients refused together must not return together."""
    response["Retry-After"] = str(random.randint(earliest, latest))  # noqa: S311 - no secret
    return response


def _uncached(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["Accept"])
    return response
