"""Responses whose content is generated while they are sent."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_distlock import Lease, distributed_lock
from tests.support.concurrency import run, until
from tests.support.leases import internals
from tests.support.tasks import others_ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls(__name__), pytest.mark.usefixtures("no_database")]

collect_payment = distributed_lock("<customer>collectPayment")


@collect_payment
def stream(request: HttpRequest, customer: str) -> StreamingHttpResponse:
    """Generate the content while it is sent."""
    return StreamingHttpResponse(iter(["one", "two"]))


async def chunks() -> AsyncIterator[str]:
    """Yield content."""
    for chunk in ("one", "two"):
        yield chunk


@collect_payment
async def astream(request: HttpRequest, customer: str) -> StreamingHttpResponse:
    """Generate the content while it is sent, async."""
    return StreamingHttpResponse(chunks())


@collect_payment
def send_file(request: HttpRequest, customer: str) -> FileResponse:
    """Send a file."""
    return FileResponse(iter([b"one"]))


urlpatterns = [
    path("stream/<customer>/", stream),
    path("astream/<customer>/", astream),
    path("file/<customer>/", send_file),
]


def test_streaming_response_keeps_the_lock_until_it_is_closed(scripted: ScriptedBackend) -> None:
    """Its content is generated under the lock."""
    response = Client().get("/stream/1234/")
    assert scripted.owner != ""
    assert b"".join(response.streaming_content) == b"onetwo"  # type: ignore[attr-defined]
    response.close()
    assert scripted.owner == ""
    assert scripted.calls == ["acquire", "release"]


@pytest.mark.parametrize("view", ["stream", "astream"])
def test_streaming_response_keeps_the_lock_under_asgi(scripted: ScriptedBackend, view: str) -> None:
    """Also if the content is async."""

    async def main() -> bytes:
        response = await AsyncClient().get(f"/{view}/1234/")
        assert scripted.owner != ""
        found = b""
        if view == "astream":
            async for chunk in response.streaming_content:  # type: ignore[attr-defined]
                found += chunk
        else:
            found = b"".join(response.streaming_content)  # type: ignore[attr-defined]
        await sync_to_async(response.close)()
        await others_ended()
        return found

    assert run(main()) == b"onetwo"
    assert scripted.owner == ""


def failing_chunks() -> Iterator[str]:
    """Yield content, and fail."""
    yield "one"
    raise ZeroDivisionError


async def failing_async_chunks() -> AsyncIterator[str]:
    """Yield content, and fail, async."""
    yield "one"
    raise ZeroDivisionError


class FailingChunks:
    """Async content that can't be closed, and fails."""

    def __aiter__(self) -> FailingChunks:
        return self

    async def __anext__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
@pytest.mark.parametrize("content", [failing_chunks, failing_async_chunks, FailingChunks])
def test_content_that_fails_releases(scripted: ScriptedBackend, content: Callable[[], Any]) -> None:
    """Under ASGI, Django doesn't close such a response."""

    async def consume(response: StreamingHttpResponse) -> None:
        with pytest.raises(ZeroDivisionError):
            async for _ in response:
                assert scripted.owner != ""
        await others_ended()

    @distributed_lock("report")
    def make() -> StreamingHttpResponse:
        return StreamingHttpResponse(content())

    response = make()
    run(consume(response))
    assert scripted.owner == ""
    response.close()
    assert scripted.calls == ["acquire", "release"]


def test_content_is_closed_under_the_lock(scripted: ScriptedBackend) -> None:
    """When the client disconnects, the content is closed before the lock is released."""
    holders = []

    def content() -> Iterator[str]:
        try:
            yield from ("one", "two")
        finally:
            holders.append(scripted.owner)

    @distributed_lock("report")
    def make() -> StreamingHttpResponse:
        return StreamingHttpResponse(content())

    response = make()
    assert next(iter(response)) == b"one"
    held = scripted.owner
    response.close()
    assert holders == [held]
    assert scripted.owner == ""


def test_async_content_is_closed_under_the_lock(scripted: ScriptedBackend) -> None:
    """When the client has disconnected, and the response is garbage."""
    holders = []
    closed = asyncio.Event()

    async def content() -> AsyncIterator[str]:
        try:
            yield "one"
        finally:
            await asyncio.sleep(0)
            holders.append(scripted.owner)
            closed.set()

    @distributed_lock("report")
    async def make() -> StreamingHttpResponse:
        return StreamingHttpResponse(content())

    async def main() -> str:
        response: Any = await make()
        held = scripted.owner
        async with aclosing(aiter(response)) as sent:
            assert await anext(sent) == b"one"
        del response, sent  # the generators inside are closed when they are collected
        gc.collect()
        await asyncio.wait_for(closed.wait(), 60)
        await others_ended()
        return held

    held = run(main())
    assert holders == [held]
    assert scripted.owner == ""


def test_response_of_a_file_releases_at_once(scripted: ScriptedBackend) -> None:
    """Its content existed before."""
    response = Client().get("/file/1234/")
    assert scripted.owner == ""
    response.close()


def test_streaming_response_is_bounded_by_max_hold(
    scripted: ScriptedBackend,
    acquired: list[Lease],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that doesn't read it all keeps nobody waiting; the loss of the lock is logged."""

    @distributed_lock("report", max_hold=0.3)
    def make() -> StreamingHttpResponse:
        return StreamingHttpResponse(iter(["one"]))

    response = make()
    [lease] = acquired
    assert lease.remaining <= 0.3
    until(lambda: not lease.held)
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    response.close()
    assert not internals(lease).released
    until(lambda: "was lost: its max_hold has passed" in caplog.text)
    assert "The lease on 'report', of" in caplog.text


def test_streaming_response_whose_lease_was_released_keeps_nothing(
    scripted: ScriptedBackend, acquired: list[Lease]
) -> None:
    """The lease may be released before the return, or while the content is sent."""

    @distributed_lock("report")
    def make(*, early: bool) -> StreamingHttpResponse:
        if early:
            acquired[-1].release()
        return StreamingHttpResponse(iter(["one"]))

    make(early=True).close()
    response = make(early=False)
    acquired[-1].release()
    response.close()
    assert scripted.calls == ["acquire", "release"] * 2


class MovedContent(StreamingHttpResponse):
    """Keeps its content in another attribute, as a later version of Django may."""

    is_async = False

    @property
    def streaming_content(self) -> Any:
        """Return the content."""
        return self.moved

    @streaming_content.setter
    def streaming_content(self, content: Any) -> None:
        self.moved = content

    def close(self) -> None:
        """Close the content, too."""
        self.moved.close()
        super().close()


def test_streaming_response_needs_no_private_attribute(scripted: ScriptedBackend) -> None:
    """Without Django's private attribute, the public one is used."""

    @distributed_lock("report")
    def make() -> Any:
        return MovedContent(iter(["one", "two"]))

    response = make()
    assert scripted.owner != ""
    assert list(response.streaming_content) == ["one", "two"]
    response.close()
    assert scripted.calls == ["acquire", "release"]


def test_async_streaming_response_needs_no_private_attribute(scripted: ScriptedBackend) -> None:
    """See the sync test."""

    @distributed_lock("report")
    async def make() -> Any:
        return MovedContent(chunks())

    async def main() -> list[str]:
        response = await make()
        found = [chunk async for chunk in response.streaming_content]
        assert scripted.owner != ""
        response.close()
        await others_ended()
        return found

    assert run(main()) == ["one", "two"]
    assert scripted.owner == ""
