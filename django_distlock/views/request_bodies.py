"""Read a request's body before acquiring its lock, so that a slow client can't hold the lock."""

from contextlib import suppress

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, RawPostDataException


def is_arriving(request: HttpRequest | None) -> bool:
    """Tell whether the request has a body that Django keeps in memory.

    A larger one is not read before the lock: the view may read it in chunks. Under ASGI, Django
    has received the whole body before it calls a view.
    """
    return isinstance(request, WSGIRequest) and _fits_in_memory(request)


def read_body(request: HttpRequest | None) -> None:
    """Wait until the body has arrived. The view can still read it in every way of Django's."""
    if request is not None and is_arriving(request):
        with suppress(RawPostDataException):  # a middleware or decorator has begun to read it
            _ = request.body


def _fits_in_memory(request: WSGIRequest) -> bool:
    limits: list[int | None] = [settings.DATA_UPLOAD_MAX_MEMORY_SIZE]
    if request.content_type == "multipart/form-data":
        # Django keeps larger files on disk.
        limits.append(settings.FILE_UPLOAD_MAX_MEMORY_SIZE)
    length = _content_length(request)
    return length > 0 and all(limit is None or length <= limit for limit in limits)


def _content_length(request: WSGIRequest) -> int:
    """Return the length as Django parses it: 0 if it is no number."""
    try:
        return int(request.META.get("CONTENT_LENGTH", 0))
    except ValueError:
        return 0
