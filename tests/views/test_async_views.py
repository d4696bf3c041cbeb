"""Async views under the lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotAcquired,
    acquire_lock,
    distributed_lock,
)
from tests.support.concurrency import run
from tests.support.lazy_users import LazyUser
from tests.support.visits import SOON

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls(__name__), pytest.mark.usefixtures("no_database")]

collect_payment = distributed_lock("<customer>collectPayment")


DOWN = LockBackendUnavailable("no route")


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
    """Help a view whose caller would ignore a 409."""
    return HttpResponse("charged")


async def collect_by_helper(request: HttpRequest, customer: str) -> HttpResponse:
    """Collect through a locked helper."""
    await charge(request, customer)
    return HttpResponse("collected")


async def collect_for_user(request: HttpRequest, customer: str) -> HttpResponse:
    """Collect from the user who is logged in."""
    request.user = LazyUser(customer)  # type: ignore[assignment]
    return await by_user(request)


@distributed_lock("<request.user.pk>collectPayment", http=True)
async def by_user(request: HttpRequest) -> HttpResponse:
    """Collect."""
    return HttpResponse("collected")


urlpatterns = [
    path("collect/<customer>/", collect),
    path("method/<customer>/", CollectOnMethod.as_view()),
    path("dispatch/<customer>/", CollectOnDispatch.as_view()),
    path("or-202/<customer>/", collect_or_202),
    path("helper/<customer>/", collect_by_helper),
    path("user/<customer>/", collect_for_user),
]


VIEWS = ["collect", "method", "dispatch"]


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
    """Like a sync view."""
    assert acquire_lock("1234collectPayment")
    response = visit(f"/{view}/1234/")
    assert response.status_code == 409
    assert response["Retry-After"] in SOON


def test_on_conflict_may_be_async() -> None:
    """Its answer is awaited."""
    assert acquire_lock("1234collectPayment")
    response = visit("/or-202/1234/")
    assert (response.status_code, response.content) == (202, b"1234 is busy")


def test_helper_raises_instead_of_answering() -> None:
    """Like a sync view."""
    assert acquire_lock("1234collectPayment")
    with pytest.raises(LockNotAcquired, match="'1234collectPayment'"):
        visit("/helper/1234/")


@pytest.mark.parametrize("view", VIEWS)
def test_store_that_is_down_is_503(
    scripted: ScriptedBackend, view: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The view's work is not done without the lock."""
    scripted.answer("acquire", DOWN)
    assert visit(f"/{view}/1234/").status_code == 503
    assert "was not carried out" in caplog.text


def test_store_that_is_down_is_a_helpers_error(scripted: ScriptedBackend) -> None:
    """Its caller must handle it."""
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
    """It has no transaction: its work is kept, so the answer invites no retry."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    response = visit(f"/{view}/1234/")
    assert response.status_code == 200
    assert "Retry-After" not in response
    assert "was lost before its view ended" in caplog.text


def test_lost_lease_is_a_helpers_error(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller must handle it."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    with pytest.raises(LockLost):
        visit("/helper/1234/")


def test_semaphore_that_gets_too_long_is_400() -> None:
    """As for a sync view."""
    assert visit(f"/collect/{'a' * 250}/").status_code == 400


def test_async_view_called_by_hand_raises() -> None:
    """Without a resolved URL it doesn't answer."""

    async def main() -> None:
        request = AsyncRequestFactory().get("/")
        with pytest.raises(LockNotAcquired):
            await collect(request, customer="1234")

    assert acquire_lock("1234collectPayment")
    run(main())
