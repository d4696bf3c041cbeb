"""A client that leaves while a locked response is streamed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path

from django_distlock import distributed_lock
from tests.support.concurrency import run
from tests.support.tasks import others_ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls(__name__), pytest.mark.usefixtures("no_database")]

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "path": "/export/",
    "query_string": b"",
    "headers": [],
}


async def endless_chunks() -> AsyncIterator[str]:
    """Yield content once, and then wait for ever."""
    yield "one"
    await asyncio.Event().wait()


@distributed_lock("export")
async def export(request: HttpRequest) -> StreamingHttpResponse:
    """Stream content."""
    return StreamingHttpResponse(endless_chunks())


urlpatterns = [path("export/", export)]


class Client:
    """An ASGI server's connection to a client that reads one chunk."""

    def __init__(self) -> None:
        self.request: list[dict[str, Any]] = [{"type": "http.request", "body": b""}]
        self.got_chunk = asyncio.Event()
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """Return the request, then wait until the client leaves."""
        if self.request:
            return self.request.pop()
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        """Note that a chunk was sent."""
        if message.get("body"):
            self.got_chunk.set()


@pytest.mark.parametrize(
    "by",
    [
        "disconnect",
        pytest.param(
            "cancellation",
            marks=pytest.mark.skipif(
                django.VERSION < (6, 1),
                reason="Django before 6.1 goes on with the response in a task of its own",
            ),
        ),
    ],
)
def test_client_that_leaves_releases_the_lock(scripted: ScriptedBackend, by: str) -> None:
    """Also while the content waits for its next chunk, and if the server cancels the task."""

    async def main() -> None:
        client = Client()
        task = asyncio.create_task(ASGIHandler()(SCOPE, client.receive, client.send))
        await asyncio.wait_for(client.got_chunk.wait(), 60)
        assert scripted.owner != ""
        if by == "disconnect":
            client.leaves.set()
        else:
            task.cancel()
        await asyncio.wait_for(asyncio.wait([task]), 60)
        await others_ended()
        assert task.cancelled() is (by == "cancellation")

    run(main())
    assert scripted.owner == ""
