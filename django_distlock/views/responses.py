"""The responses of a locked view that is not called, or whose lease was lost."""

from django.core.exceptions import BadRequest
from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.utils.log import log_response

from .answers import Answer, invalid
from .resolution import is_api


def respond(request: HttpRequest, answer: Answer) -> HttpResponse:
    """Answer in JSON if the client prefers it, else with the site's page, else in plain text."""
    response: HttpResponse
    if _prefers_json(request):
        response = _json(answer)
    else:
        try:
            page = render_to_string(f"{answer.status}.html", {"detail": answer.detail}, request)
            response = HttpResponse(page, status=answer.status)
        except TemplateDoesNotExist:
            kind = "text/plain; charset=utf-8"
            response = HttpResponse(f"{answer.detail}\n", content_type=kind, status=answer.status)
    return _with_headers(response, answer)


def respond_invalid(request: HttpRequest, reason: Exception) -> HttpResponse:
    """Answer 400 as Django does to a BadRequest. If it were raised, a framework might answer 500.

    The reason is logged.
    """
    answer = invalid(reason)
    if not _prefers_json(request):
        return _with_headers(response_for_exception(request, BadRequest(str(reason))), answer)
    response = _json(answer)
    log_response(
        "%s: %s", str(reason), request.path, response=response, request=request, exception=reason
    )
    return _with_headers(response, answer)


def _prefers_json(request: HttpRequest) -> bool:
    """Tell whether to answer in JSON; if the client has no preference, the view's kind decides."""
    kinds = ["text/html", "text/plain"]
    if is_api(request):
        return request.get_preferred_type(["application/json", *kinds]) not in kinds
    return request.get_preferred_type([*kinds, "application/json"]) == "application/json"


def _json(answer: Answer) -> HttpResponse:
    return JsonResponse({"error": answer.code, "detail": answer.detail}, status=answer.status)


def _with_headers(response: HttpResponse, answer: Answer) -> HttpResponse:
    for name, value in answer.headers.items():
        response[name] = value
    patch_vary_headers(response, ["Accept"])
    return response
