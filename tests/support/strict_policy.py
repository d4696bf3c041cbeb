"""A site that lets its pages load and do nothing but what is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; connect-src 'self'"
)

NONCE = "5d2e"


def nonce(request: HttpRequest) -> dict[str, str]:
    """Give templates the nonce that a stricter policy asks for, as Django 6.0's processor does."""
    return {"csp_nonce": NONCE}


def strict_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Send a strict Content-Security-Policy with each page. A browser reports what breaks it."""

    def respond(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = STRICT
        return response

    return respond
