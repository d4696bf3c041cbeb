"""Requests that locked views, and the admin, refuse; and the views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from django_distlock import distributed_lock
from tests.bad_input.table import STORES, Answered, Row
from tests.support.admin_pages import BOTH, FORCE_RELEASE, LIST, log_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

COLLECTED = "collected"


def collect(request: HttpRequest, customer_id: str = "") -> HttpResponse:
    """Stand for a view, which reads the body."""
    return HttpResponse(f"{COLLECTED} {request.POST.get('amount')}")


urlpatterns: list[Any] = []
for alias in STORES:
    urlpatterns += [
        path(
            f"{alias}/str/<customer_id>/",
            distributed_lock("<customer_id>x", backend=alias)(collect),
        ),
        path(
            f"{alias}/int/<customer_id>/",
            distributed_lock("<int:customer_id>x", backend=alias)(collect),
        ),
        path(
            f"{alias}/slug/<customer_id>/",
            distributed_lock("<slug:customer_id>x", backend=alias)(collect),
        ),
        path(
            f"{alias}/named/",
            distributed_lock(lambda request: request.GET.get("name", ""), backend=alias)(collect),
        ),
    ]


def refused(response: Any) -> None:
    """Raise the answer."""
    if response.status_code != 200:
        raise Answered(response.status_code, response.content.decode())


def get(url: str) -> Callable[[str], None]:
    """Return a call that visits a view."""
    return lambda alias: refused(Client().get(f"/{alias}/{url}"))


def post(body: bytes, content_type: str) -> Callable[[str], None]:
    """Return a call that sends a body to a view."""
    return lambda alias: refused(
        Client().generic("POST", f"/{alias}/str/1234/", body, content_type)
    )


def in_admin(url: str, *permissions: str, **data: Any) -> Callable[[str], None]:
    """Return a call that opens a page of the admin, or sends it a form."""

    def visit(alias: str) -> None:
        User.objects.all().delete()
        client = log_in(*permissions)
        refused(client.post(url, data) if data else client.get(url))

    return visit


LONG = "x" * 255
VIEWS = [
    *(
        Row(f"GET {url:.40}", get(url), 400, "Bad Request")
        for url in (
            f"str/{LONG}/",
            f"str/{quote('é' * 50)}/",
            "int/seven/",
            "int/%D9%A1/",
            "int/%201/",
            f"int/{'9' * 5000}/",
            "slug/a%20b/",
            "slug/a.b/",
            "named/",
            f"named/?name={LONG}x",
            "named/?name=a%00",
            "named/?name=a%0Ab",
        )
    ),
    Row("form without a boundary", post(b"amount=5", "multipart/form-data"), 400, "Bad Request"),
    Row(
        "form that ends early",
        post(b"--x\r\n", "multipart/form-data; boundary=\0"),
        400,
        "Bad Request",
    ),
]
ADMIN = [
    Row("list without permission", in_admin(LIST), 403, ""),
    Row("list with another permission", in_admin(LIST, "force_release_lock"), 403, ""),
    Row(
        "force-release without permission",
        in_admin(FORCE_RELEASE, "view_lock", selected="1:report", confirmed="yes"),
        403,
        "",
    ),
    Row("force-release of no token", in_admin(FORCE_RELEASE, *BOTH, selected="report"), 400, ""),
    Row("force-release of a word", in_admin(FORCE_RELEASE, *BOTH, selected="x:report"), 400, ""),
    Row("force-release of a NUL", in_admin(FORCE_RELEASE, *BOTH, selected="1:\0"), 400, ""),
    Row("form to add a lock", in_admin(f"{LIST}add/", *BOTH), 403, ""),
]
