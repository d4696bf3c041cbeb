"""Async views and functions under the lock, and responses that are still being made."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.views import View

from django_distlock import (
    Lease,
    LockBackendUnavailable,
    LockLost,
    LockNotAcquired,
    acquire_lock,
    distributed_lock,
    skip,
)
from tests.support.concurrency import run, until
from tests.support.tasks import others_ended
from tests.support.visits import SOON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.support.scripted_store import ScriptedBackend

pytestmark = pytest.mark.urls(__name__)

DOWN = LockBackendUnavailable("no route")
collect_payment = distributed_lock("<customer>collectPayment")


@collect_payment
async def collect(request: HttpRequest, customer: str) -> HttpResponse:
    """Collect."""
    await asyncio.sleep(0)
    return HttpResponse("collected")


class CollectOnMethod(View):
    """One method is locked."""

    @collect_payment
    async def get(self, request: HttpRequest, customer: str) -> HttpResponse:
        """Collect."""
        return HttpResponse("collected")


@method_decorator(collect_payment, name="dispatch")
class CollectOnDispatch(View):
    """Every method is locked."""

    async def get(self, request: HttpRequest, customer: str) -> HttpResponse:
        """Collect."""
        return HttpResponse("collected")


async def busy(request: HttpRequest, customer: str) -> HttpResponse:
    """Answer instead."""
    return HttpResponse(f"{customer} is busy", status=202)


@distributed_lock("<customer>collectPayment", on_conflict=busy)
async def collect_or_202(request: HttpRequest, customer: str) -> HttpResponse:
    """Collect, or answer in the site's own way."""
    return HttpResponse("collected")


@collect_payment
async def charge(request: HttpRequest, customer: str) -> HttpResponse:
    """Help a view; its caller would overlook a 409."""
    return HttpResponse("charged")


async def collect_by_helper(request: HttpRequest, customer: str) -> HttpResponse:
    """Collect through a locked helper."""
    await charge(request, customer)
    return HttpResponse("collected")


class LazyUser:
    """As request.user: it takes a query to know who it is."""

    def __init__(self, customer: str) -> None:
        self._customer = customer

    @property
    def pk(self) -> str:
        """Refuse to be asked in an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._customer
        raise SynchronousOnlyOperation


async def collect_for_user(request: HttpRequest, customer: str) -> HttpResponse:
    """Collect from who is logged in."""
    request.user = LazyUser(customer)  # type: ignore[assignment]
    return await by_user(request)


@distributed_lock("<request.user.pk>collectPayment", http=True)
async def by_user(request: HttpRequest) -> HttpResponse:
    """Collect."""
    return HttpResponse("collected")


@collect_payment
def stream(request: HttpRequest, customer: str) -> StreamingHttpResponse:
    """Make the content while it is sent."""
    return StreamingHttpResponse(iter(["one", "two"]))


async def chunks() -> AsyncIterator[str]:
    """Yield content."""
    for chunk in ("one", "two"):
        yield chunk


@collect_payment
async def astream(request: HttpRequest, customer: str) -> StreamingHttpResponse:
    """Make the content while it is sent, async."""
    return StreamingHttpResponse(chunks())


@collect_payment
def send_file(request: HttpRequest, customer: str) -> FileResponse:
    """Send what is there already."""
    return FileResponse(iter([b"one"]))


urlpatterns = [
    path("collect/<customer>/", collect),
    path("method/<customer>/", CollectOnMethod.as_view()),
    path("dispatch/<customer>/", CollectOnDispatch.as_view()),
    path("or-202/<customer>/", collect_or_202),
    path("helper/<customer>/", collect_by_helper),
    path("user/<customer>/", collect_for_user),
    path("stream/<customer>/", stream),
    path("astream/<customer>/", astream),
    path("file/<customer>/", send_file),
]
VIEWS = ["collect", "method", "dispatch"]


@pytest.fixture(autouse=True)
def no_database(scripted: ScriptedBackend) -> Iterator[None]:
    """Need none: the middleware's apps do, and so does the end of a request with one connected."""
    connections.close_all()  # which earlier tests have left open
    with override_settings(MIDDLEWARE=[]):
        yield


def visit(url: str) -> Any:
    """Request this by an async client."""

    async def ask() -> Any:
        return await AsyncClient().get(url)

    return run(ask())


# Views


@pytest.mark.parametrize("view", [*VIEWS, "or-202", "helper", "user"])
@pytest.mark.parametrize("ask", [visit, lambda url: Client().get(url)], ids=["asgi", "wsgi"])
def test_free_view_works_and_releases(
    scripted: ScriptedBackend, view: str, ask: Callable[[str], Any]
) -> None:
    """Under both kinds of server."""
    response = ask(f"/{view}/1234/")
    assert (response.status_code, response.content) == (200, b"collected")
    assert scripted.owner == ""
    assert scripted.calls == ["acquire", "release"]


@pytest.mark.parametrize("view", [*VIEWS, "user"])
def test_contended_view_answers_409(view: str) -> None:
    """As a sync one does."""
    assert acquire_lock("1234collectPayment")
    response = visit(f"/{view}/1234/")
    assert response.status_code == 409
    assert response["Retry-After"] in SOON


def test_on_conflict_may_be_async() -> None:
    """Its answer is awaited then."""
    assert acquire_lock("1234collectPayment")
    response = visit("/or-202/1234/")
    assert (response.status_code, response.content) == (202, b"1234 is busy")


def test_helper_raises_what_its_caller_would_overlook() -> None:
    """As a sync one does."""
    assert acquire_lock("1234collectPayment")
    with pytest.raises(LockNotAcquired, match="'1234collectPayment'"):
        visit("/helper/1234/")


@pytest.mark.parametrize("view", VIEWS)
def test_store_that_is_down_is_503(
    scripted: ScriptedBackend, view: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is done without the lock."""
    scripted.answer("acquire", DOWN)
    assert visit(f"/{view}/1234/").status_code == 503
    assert "was not called" in caplog.text


def test_store_that_is_down_is_a_helpers_error(scripted: ScriptedBackend) -> None:
    """Which its caller has to know of."""
    scripted.answer("acquire", DOWN)
    with pytest.raises(LockBackendUnavailable):
        visit("/helper/1234/")


@pytest.mark.parametrize("view", VIEWS)
def test_lease_lost_meanwhile_leaves_the_views_answer(
    scripted: ScriptedBackend,
    view: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No transaction is around it: what it did is kept, so nobody is asked to try again."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    response = visit(f"/{view}/1234/")
    assert response.status_code == 200
    assert "Retry-After" not in response
    assert "was lost before its view ended" in caplog.text


def test_lost_lease_is_a_helpers_error(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which its caller has to know of."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    with pytest.raises(LockLost):
        visit("/helper/1234/")


def test_semaphore_that_gets_too_long_is_400() -> None:
    """As for a sync view."""
    assert visit(f"/collect/{'a' * 250}/").status_code == 400


# Functions


async def work(customer: int, *, urgent: bool = False) -> str:
    """Do some work."""
    return f"{customer} {urgent}"


def test_coroutine_function_stays_one(scripted: ScriptedBackend) -> None:
    """And is called inside the lock, not before (peer defect 5)."""
    inside = []

    async def look(customer: int) -> None:
        await asyncio.sleep(0)
        inside.append(scripted.owner)

    locked = collect_payment(work)
    assert iscoroutinefunction(locked)
    assert inspect.signature(locked) == inspect.signature(work, eval_str=True)
    assert (locked.__name__, locked.__doc__) == (work.__name__, work.__doc__)
    assert run(locked(7, urgent=True)) == "7 True"
    run(collect_payment(look)(7))
    assert inside != [""]
    assert scripted.owner == ""


class Worker:
    """An object that is called."""

    async def __call__(self, customer: int) -> str:
        """Do some work."""
        return await work(customer)

    async def unlocked(self, customer: int) -> str:
        """Do some work."""
        return await work(customer)

    @collect_payment
    async def method(self, customer: int) -> str:
        """Do some work."""
        return await work(customer)

    @classmethod
    @collect_payment
    async def of_class(cls, customer: int) -> str:
        """Do some work."""
        return await work(customer)


@pytest.mark.parametrize(
    "locked",
    [
        collect_payment(Worker()),
        collect_payment(Worker().unlocked),
        collect_payment(functools.partial(work, urgent=False)),
        Worker().method,
        Worker.of_class,
        distributed_lock("another", backend="modest")(collect_payment(work)),
    ],
    ids=["object", "bound", "partial", "method", "classmethod", "twice"],
)
def test_whatever_is_async_stays_so(
    scripted: ScriptedBackend, locked: Callable[[int], Awaitable[str]]
) -> None:
    """And is locked."""
    assert acquire_lock("7collectPayment")
    with pytest.raises(LockNotAcquired):
        run(locked(7))  # type: ignore[arg-type]
    scripted.owner = ""
    assert run(locked(7)) == "7 False"  # type: ignore[arg-type]


@contextmanager
def block(customer: int) -> Iterator[None]:
    """Be a block."""
    yield


@asynccontextmanager
async def ablock(customer: int) -> AsyncIterator[None]:
    """Be an async block."""
    yield


async def agenerate() -> AsyncIterator[int]:
    """Generate."""
    yield 1


def test_what_runs_later_is_refused(scripted: ScriptedBackend) -> None:
    """It would run when the lock is released (peer defect 5)."""

    async def returning(customer: int) -> object:
        return agenerate()

    def returning_coroutine(customer: int) -> object:
        return work(customer)

    for later in (
        returning_coroutine,
        lambda customer: (number for number in range(customer)),
        lambda customer: agenerate(),
        block,
        ablock,
    ):
        with pytest.raises(TypeError, match="would run without the lock"):
            collect_payment(later)(7)
        assert scripted.owner == ""
    with pytest.raises(TypeError, match="would run without the lock"):
        run(collect_payment(returning)(7))
    assert scripted.owner == ""


class Customer:
    """What shows more of itself than a log should have."""

    def __repr__(self) -> str:
        raise NotImplementedError

    @method_decorator(distributed_lock("collectPayment"))
    def collect(self) -> object:
        """Leave it to be run later."""
        return work(7)


@pytest.mark.usefixtures("scripted")
def test_message_about_what_runs_later_does_not_show_its_object() -> None:
    """A method's own repr does."""
    with pytest.raises(TypeError, match=r"Customer\.collect returned a coroutine"):
        Customer().collect()


class Generating:
    """An object whose call is a generator."""

    def __call__(self) -> Iterator[int]:
        """Generate."""
        yield 1


def test_object_whose_call_is_a_generator_is_refused() -> None:
    """As a generator function is."""
    with pytest.raises(TypeError, match="is a generator"):
        distributed_lock("report")(Generating())


def test_blocks_and_generators_work_without_the_lock() -> None:
    """They are not refused for being broken."""

    async def enter() -> list[int]:
        async with ablock(7):
            return [number async for number in agenerate()]

    with block(7):
        assert run(enter()) == [*Generating()()]


def test_lazy_argument_is_evaluated_in_a_thread(scripted: ScriptedBackend) -> None:
    """It may need a query."""

    def find() -> LazyUser:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return LazyUser("7")
        raise SynchronousOnlyOperation

    @distributed_lock("<user.pk>collectPayment")
    async def greet(user: Any) -> str:
        return scripted.owner

    assert run(greet(SimpleLazyObject(find)))


@pytest.mark.parametrize(("on_conflict", "outcome"), [(skip, None), (work, "7 False")])
def test_contended_function_does_something_else(
    on_conflict: Callable[..., Awaitable[Any]], outcome: object
) -> None:
    """Sync or async."""
    assert acquire_lock("7collectPayment")
    locked = distributed_lock("<customer>collectPayment", on_conflict=on_conflict)(work)
    assert run(locked(7)) == outcome


def test_contended_function_raises() -> None:
    """Or waits."""
    lease = acquire_lock("7collectPayment")
    assert lease
    with pytest.raises(LockNotAcquired):
        run(collect_payment(work)(7))
    lease.release()
    assert run(distributed_lock("<customer>collectPayment", timeout=60)(work)(7)) == "7 False"


def test_failing_function_releases(scripted: ScriptedBackend) -> None:
    """With its own error."""

    @distributed_lock("report")
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail())
    assert scripted.owner == ""


# Responses whose content is made while they are sent


def test_streaming_response_keeps_the_lock_until_it_is_closed(scripted: ScriptedBackend) -> None:
    """Its content is made under the lock."""
    response = Client().get("/stream/1234/")
    assert scripted.owner != ""
    assert b"".join(response.streaming_content) == b"onetwo"  # type: ignore[attr-defined]
    response.close()
    assert scripted.owner == ""
    assert scripted.calls == ["acquire", "release"]


@pytest.mark.parametrize("view", ["stream", "astream"])
def test_streaming_response_keeps_the_lock_under_asgi(scripted: ScriptedBackend, view: str) -> None:
    """Also if it is made async."""

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
    """By a client that went away; of two locks the inner one goes first."""
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
    """When the client has gone away, and nobody refers to the response any more."""
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
    """It was there before."""
    response = Client().get("/file/1234/")
    assert scripted.owner == ""
    response.close()


def test_streaming_response_is_bounded_by_max_hold(
    scripted: ScriptedBackend,
    acquired: list[Lease],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that doesn't take it all keeps nobody waiting; that the lock was lost is logged."""

    @distributed_lock("report", max_hold=0.3)
    def make() -> StreamingHttpResponse:
        return StreamingHttpResponse(iter(["one"]))

    response = make()
    [lease] = acquired
    assert lease.remaining <= 0.3
    until(lambda: not lease.held)
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    response.close()
    assert not lease.released
    until(lambda: "was lost: its max_hold has passed" in caplog.text)
    assert "The lease on 'report', of" in caplog.text


def test_streaming_response_whose_lease_was_released_keeps_nothing(
    scripted: ScriptedBackend, acquired: list[Lease]
) -> None:
    """Before it is returned, or while it is sent."""

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


def test_async_view_called_by_hand_raises() -> None:
    """No resolver, no answer."""

    async def main() -> None:
        request = AsyncRequestFactory().get("/")
        with pytest.raises(LockNotAcquired):
            await collect(request, customer="1234")

    assert acquire_lock("1234collectPayment")
    run(main())
