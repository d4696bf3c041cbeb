"""Views that read their request's body, and bodies that arrive slowly."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI, Schema
from rest_framework.response import Response
from rest_framework.views import APIView

from django_distlock import distributed_lock

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
lock = distributed_lock("<customer_id>collectPayment")


class Arriving(BytesIO):
    """A body on its way. It records whether the lock was held while it was read."""

    def __init__(self, body: bytes, scripted: ScriptedBackend) -> None:
        super().__init__(body)
        self.scripted = scripted
        self.held: set[bool] = set()

    def read(self, *size: Any) -> bytes:
        """Return what has arrived."""
        self.held.add(self.scripted.owner != "")
        return super().read(*size)


class BrokenOff(BytesIO):
    """A body that never arrives."""

    def read(self, *size: Any) -> bytes:
        """Raise, as the client is gone."""
        raise OSError("Connection reset by peer")


@lock
def by_body(request: HttpRequest, customer_id: str) -> HttpResponse:
    return HttpResponse(request.body)


@distributed_lock("<int:customer_id>collectPayment")
def by_number(request: HttpRequest, customer_id: str) -> HttpResponse:
    raise NotImplementedError


@lock
def by_form(request: HttpRequest, customer_id: str) -> HttpResponse:
    return HttpResponse(request.POST["amount"])


@lock
def by_reading(request: HttpRequest, customer_id: str) -> HttpResponse:
    return HttpResponse(b"".join(iter(lambda: request.read(3), b"")))


@lock
def by_lines(request: HttpRequest, customer_id: str) -> HttpResponse:
    return HttpResponse(b"".join(request))


class Shouting(MemoryFileUploadHandler):
    """A view's own upload handler."""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        """Change the data."""
        return super().receive_data_chunk(raw_data.upper(), start)


@lock
def by_upload_handler(request: HttpRequest, customer_id: str) -> HttpResponse:
    request.upload_handlers = [Shouting(request)]
    return HttpResponse(request.FILES["file"].read())  # type: ignore[union-attr]


class ByMethod(View):
    @lock
    def put(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        return HttpResponse(request.body)


@lock
async def by_body_async(request: HttpRequest, customer_id: str) -> HttpResponse:
    return HttpResponse(request.body)


@lock
def help_with(request: HttpRequest, customer_id: str) -> HttpResponse:
    return HttpResponse(request.body)


def by_helper(request: HttpRequest, customer_id: str) -> HttpResponse:
    return help_with(request, customer_id)


@lock
@lock
def twice_locked(request: HttpRequest, customer_id: str) -> HttpResponse:
    raise NotImplementedError


class Rest(APIView):  # type: ignore[misc]
    @lock
    def post(self, request: Any, customer_id: str) -> Response:
        return Response(int(request.data["amount"]))


class Payment(Schema):
    amount: int


api = NinjaAPI()


@api.post("/{customer_id}/")
@lock
def by_ninja(request: HttpRequest, customer_id: str, payment: Payment) -> int:
    return payment.amount


urlpatterns = [
    path("body/<customer_id>/", by_body),
    path("typed/<customer_id>/", by_number),
    path("form/<customer_id>/", by_form),
    path("read/<customer_id>/", by_reading),
    path("lines/<customer_id>/", by_lines),
    path("handler/<customer_id>/", csrf_exempt(by_upload_handler)),
    path("method/<customer_id>/", ByMethod.as_view()),
    path("async/<customer_id>/", by_body_async),
    path("helper/<customer_id>/", by_helper),
    path("rest/<customer_id>/", Rest.as_view()),
    path("ninja/", api.urls),
]


def a_file() -> BytesIO:
    """Return the arguments for a form with a file."""
    file = BytesIO(b"content")
    file.name = "file.txt"
    return file


def arriving(stream: BytesIO, kind: str = JSON) -> dict[str, Any]:
    """Return the request's environment for a body from the stream."""
    length = str(len(stream.getvalue()))
    return {"wsgi.input": stream, "CONTENT_LENGTH": length, "CONTENT_TYPE": kind}


def send(url: str, kind: str, stream: BytesIO, method: str = "POST") -> Any:
    """Send a request whose body comes from the stream."""
    return Client().generic(method, f"/{url}/1234/", **arriving(stream, kind))
