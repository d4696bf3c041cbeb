"""What a locked view answers instead of working."""

from typing import Final

from django.core.exceptions import BadRequest
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _

RETRY_AFTER: Final = 1
"""Seconds after which a client may ask again."""


def contended(request: HttpRequest) -> HttpResponse:
    """Answer 409: somebody else is working on this."""
    detail = _("This is being worked on by another request. Please try again in a moment.")
    return _answer(request, 409, "contended", detail)


def unavailable(request: HttpRequest) -> HttpResponse:
    """Answer 503: nothing was done, since the store is down, or the lease was lost meanwhile."""
    detail = _("This can't be done safely right now. Please try again in a moment.")
    return _answer(request, 503, "unavailable", detail)


def unfinished(request: HttpRequest) -> HttpResponse:
    """Answer 503, but don't ask anybody to try again: part of it may have been done."""
    detail = _("This was not finished, and may have been done in part.")
    response = _answer(request, 503, "unfinished", detail)
    del response["Retry-After"]
    return response


def invalid(request: HttpRequest, reason: Exception) -> HttpResponse:
    """Answer 400 as Django does to a BadRequest: raised, a framework may make a 500 of it."""
    return response_for_exception(request, BadRequest(str(reason)))


def _answer(request: HttpRequest, status: int, error: str, detail: str) -> HttpResponse:
    """Answer in JSON if that is preferred, else by the site's `409.html`, else plainly."""
    response: HttpResponse
    if request.get_preferred_type(["text/html", "text/plain", "application/json"]) == (
        "application/json"
    ):
        response = JsonResponse({"error": error, "detail": detail}, status=status)
    else:
        try:
            page = render_to_string(f"{status}.html", {"detail": detail}, request)
            response = HttpResponse(page, status=status)
        except TemplateDoesNotExist:
            response = HttpResponse(f"{detail}\n", content_type="text/plain", status=status)
    response["Retry-After"] = str(RETRY_AFTER)
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["Accept"])
    return response
