"""A request's body is read before the lock is acquired: a slow client holds nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.http import UnreadablePostError
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from rest_framework.decorators import api_view
from rest_framework.response import Response

from django_distlock import LockNotAcquired
from django_distlock.views.request_bodies import is_arriving
from tests.support.body_views import (
    FORM,
    JSON,
    Arriving,
    BrokenOff,
    a_file,
    arriving,
    by_reading,
    lock,
    send,
    twice_locked,
)
from tests.support.concurrency import run
from tests.support.documentation import example

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls("tests.support.body_views"), pytest.mark.usefixtures("scripted")]


@pytest.mark.parametrize(
    ("url", "kind", "body", "answered"),
    [
        ("body", JSON, b'{"amount": 5}', b'{"amount": 5}'),
        ("form", FORM, b"amount=5", b"5"),
        ("form", MULTIPART_CONTENT, encode_multipart(BOUNDARY, {"amount": "5"}), b"5"),
        ("read", "text/plain", b"some text", b"some text"),
        ("lines", "text/plain", b"some\ntext", b"some\ntext"),
        ("handler", MULTIPART_CONTENT, encode_multipart(BOUNDARY, {"file": a_file()}), b"CONTENT"),
        ("async", JSON, b'{"amount": 5}', b'{"amount": 5}'),
        ("helper", JSON, b'{"amount": 5}', b'{"amount": 5}'),
        ("rest", JSON, b'{"amount": 5}', b"5"),
        ("rest", FORM, b"amount=5", b"5"),
        ("rest", MULTIPART_CONTENT, encode_multipart(BOUNDARY, {"amount": "5"}), b"5"),
        ("ninja", JSON, b'{"amount": 5}', b"5"),
    ],
)
def test_body_is_read_before_the_lock_is_acquired(
    scripted: ScriptedBackend, url: str, kind: str, body: bytes, answered: bytes
) -> None:
    """However the view reads it afterwards."""
    stream = Arriving(body, scripted)
    response = send(url, kind, stream)
    assert (response.status_code, response.content) == (200, answered)
    assert stream.held == {False}
    assert scripted.calls == ["acquire", "release"]


def test_body_is_read_for_every_http_method(scripted: ScriptedBackend) -> None:
    """Django itself parses no body of PUT, and no middleware has read it."""
    stream = Arriving(b"5", scripted)
    assert send("method", "text/plain", stream, method="PUT").content == b"5"
    assert stream.held == {False}


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ("DATA_UPLOAD_MAX_MEMORY_SIZE", "text/plain"),
        ("FILE_UPLOAD_MAX_MEMORY_SIZE", MULTIPART_CONTENT),
    ],
)
def test_body_that_is_too_large_for_memory_is_left_to_the_view(
    scripted: ScriptedBackend, settings: Any, setting: str, kind: str
) -> None:
    """The view may read it in pieces, which the lock can't know."""
    setattr(settings, setting, 8)
    fitting, larger = Arriving(b"12345678", scripted), Arriving(b"123456789", scripted)
    assert send("read", kind, fitting).content == b"12345678"
    assert send("read", kind, larger).content == b"123456789"
    assert (fitting.held, larger.held) == ({False}, {True})


LARGE = "What to do about large bodies"


def test_documented_view_receives_large_files_before_the_lock(
    scripted: ScriptedBackend, settings: Any
) -> None:
    """The view of docs/how-to/slow-clients.md."""
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 8
    settings.ROOT_URLCONF = example("how-to/slow-clients.md", LARGE).__name__
    stream = Arriving(encode_multipart(BOUNDARY, {"invoice": a_file()}), scripted)
    response = Client().generic("POST", "/7/invoice/", **arriving(stream, MULTIPART_CONTENT))
    assert response.content == b"file.txt"
    assert stream.held == {False}
    assert scripted.calls == ["acquire", "release"]


def test_documented_decorator_receives_large_forms_for_rest_framework(
    scripted: ScriptedBackend, settings: Any
) -> None:
    """The framework has its own parser."""

    @api_view(["POST"])  # type: ignore[untyped-decorator]
    @example("how-to/slow-clients.md", LARGE).received  # type: ignore[untyped-decorator]
    @lock
    def collect(request: Any, customer_id: str) -> Response:
        return Response(int(request.data["amount"]))

    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 8
    stream = Arriving(encode_multipart(BOUNDARY, {"amount": "5"}), scripted)
    request = RequestFactory().generic("POST", "/", **arriving(stream, MULTIPART_CONTENT))
    assert collect(request, customer_id="1234").data == 5
    assert stream.held == {False}
    assert scripted.calls == ["acquire", "release"]


def test_body_that_is_too_large_for_the_view_is_refused_as_without_the_lock(settings: Any) -> None:
    """Django refuses it without reading it."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 8
    stream = BrokenOff(b"123456789")
    assert send("body", "text/plain", stream).status_code == 400


def test_any_body_is_read_where_django_has_no_limit(
    scripted: ScriptedBackend, settings: Any
) -> None:
    """Like `request.body`."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    stream = Arriving(b"5" * 3_000_000, scripted)
    assert send("body", "text/plain", stream).status_code == 200
    assert stream.held == {False}


@pytest.mark.parametrize("url", ["body", "async", "read"])
def test_client_that_goes_away_takes_no_lock(scripted: ScriptedBackend, url: str) -> None:
    """The error is the same as without a lock."""
    with pytest.raises(UnreadablePostError, match="reset"):
        send(url, "text/plain", BrokenOff(b"12345678"))
    assert scripted.calls == []


def test_refused_semaphore_waits_for_no_body(scripted: ScriptedBackend) -> None:
    """The body isn't needed then."""
    stream = Arriving(b"12345678", scripted)
    assert Client().generic("POST", "/typed/seven/", **arriving(stream)).status_code == 400
    assert stream.held == set()


@pytest.mark.parametrize("length", ["", "0", "nonsense", "-1"])
def test_request_without_a_body_is_not_waited_for(length: str) -> None:
    """Such as a GET, or a request whose length Django can't parse."""
    stream: dict[str, Any] = {"wsgi.input": BrokenOff(), "CONTENT_LENGTH": length}
    assert not is_arriving(RequestFactory().generic("GET", "/", **stream))
    assert not is_arriving(None)


def test_partly_read_body_is_left_alone(scripted: ScriptedBackend) -> None:
    """A middleware may have begun, or a view that calls a locked helper."""
    stream = Arriving(b"12345678", scripted)
    request = RequestFactory().generic("POST", "/", **arriving(stream))
    assert request.read(3) == b"123"
    assert by_reading(request, customer_id="1234").content == b"45678"


def test_contended_request_is_read_once(scripted: ScriptedBackend) -> None:
    """Once, even under two locks."""
    stream = Arriving(b"12345678", scripted)
    request = RequestFactory().generic("POST", "/", **arriving(stream))
    with pytest.raises(LockNotAcquired):
        twice_locked(request, customer_id="1234")
    assert stream.held == {False}
    assert stream.tell() == 8


def test_body_has_arrived_under_asgi() -> None:
    """Django receives it before it calls a view, so nothing is read again."""
    assert not is_arriving(AsyncRequestFactory().post("/", b"12345678", content_type=JSON))


@pytest.mark.parametrize("url", ["body", "async"])
def test_view_has_its_body_under_asgi(url: str) -> None:
    """Like a view without a lock."""

    async def post() -> Any:
        return await AsyncClient().post(f"/{url}/1234/", b"12345678", content_type=JSON)

    assert run(post()).content == b"12345678"
