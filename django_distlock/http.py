"""What a locked view answers instead of working."""

import inspect
from collections.abc import Callable
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
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
    """Answer 503: the store is down, or the lease was lost meanwhile."""
    detail = _("This can't be done safely right now. Please try again in a moment.")
    return _answer(request, 503, "unavailable", detail)


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


def find_request(args: tuple[Any, ...], kwargs: dict[str, Any]) -> HttpRequest | None:
    """Return the request that a view, or a method of a view's class, is called with.

    Django REST framework's request has Django's inside.
    """
    for argument in (*args[:2], kwargs.get("request")):
        request = getattr(argument, "_request", argument)
        if isinstance(request, HttpRequest):
            return request
    return None


def is_resolved(
    request: HttpRequest, locked: Callable[..., HttpResponseBase], instance: object
) -> bool:
    """Tell whether Django resolved this for the request, or the view class of the instance.

    Only then its return value is the answer to the request: a helper that happens to get the
    request raises, so that its caller can't overlook the conflict.
    """
    match = request.resolver_match
    if match is None:
        return False
    view_class = getattr(match.func, "view_class", None)
    if view_class is not None and isinstance(instance, view_class):
        return True
    found = inspect.unwrap(match.func, stop=lambda view: view is locked)
    return found is locked
