"""Locks in the operations of Django Ninja."""

from __future__ import annotations

import asyncio
from types import MethodType
from typing import TYPE_CHECKING, Annotated, Any, cast

import pytest
from django.http import HttpRequest, HttpResponse  # noqa: TC002 - evaluated by Ninja
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from ninja import NinjaAPI, Query, Router, Schema
from ninja.decorators import decorate_view
from ninja.operation import PathView
from ninja.pagination import paginate
from ninja.security import HttpBearer

from django_distlock import LockBackendUnavailable, LockNotAcquired, acquire_lock, distributed_lock
from tests.support.visits import SOON

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls(__name__), pytest.mark.usefixtures("scripted")]


class Token(HttpBearer):
    """A token that allows its bearer to collect."""

    def authenticate(self, request: HttpRequest, token: str) -> bool:
        """Compare the token."""
        return token == "collector"


class Payment(Schema):
    """A payment to collect."""

    amount: int


class Collected(Schema):
    """The customer and the amount."""

    customer_id: int
    amount: int


api = NinjaAPI(auth=Token())
router, decorated_router = Router(), Router()
lock = distributed_lock("<customer_id>collectPayment")


@api.post("/collect/{customer_id}/", response=Collected)
@lock
def collect(request: HttpRequest, customer_id: int, payment: Payment) -> dict[str, int]:
    """Collect, with arguments of several kinds; their annotations are strings in this module."""
    return {"customer_id": customer_id, "amount": payment.amount}


@api.get("/collect/{customer_id}/", response=Collected)
@lock
def show(
    request: HttpRequest, customer_id: int, amount: Annotated[int, Query(gt=0)] = 5
) -> dict[str, int]:
    """Answer to another method of the same path."""
    return {"customer_id": customer_id, "amount": amount}


@api.post("/text/{customer_id}/")
@lock
def collect_text(request: HttpRequest, customer_id: str) -> dict[str, str]:
    """Collect from a customer whose name may be too long."""
    return {"customer_id": customer_id}


@api.get("/pages/{customer_id}/", response=list[int])
@lock
@paginate
def pages(request: HttpRequest, customer_id: int) -> list[int]:
    """List payments; the pagination takes arguments that the function lacks."""
    return [customer_id]


@api.get("/outside/{customer_id}/", response=Collected)
@decorate_view(lock)
def collect_outside(request: HttpRequest, customer_id: int) -> dict[str, int]:
    """Collect with the lock around authentication: strangers reach the lock."""
    return {"customer_id": customer_id, "amount": 5}


@router.post("/{customer_id}/", response=Collected)
@lock
def collect_by_router(request: HttpRequest, customer_id: int, payment: Payment) -> Any:
    """Collect by a router's operation."""
    return {"customer_id": customer_id, "amount": payment.amount}


@decorated_router.post("/{customer_id}/", response=Collected)
def collect_by_decorated_router(request: HttpRequest, customer_id: int, payment: Payment) -> Any:
    """Collect by an operation of a router that locks all of them."""
    return {"customer_id": customer_id, "amount": payment.amount}


@api.get("/overlook/{customer_id}/", response=Collected)
@lock
def help_another(request: HttpRequest, customer_id: int) -> dict[str, int]:
    """Answer GET, and help POST."""
    return {"customer_id": customer_id, "amount": 5}


@api.post("/overlook/{customer_id}/", response=Collected)
def overlook(request: HttpRequest, customer_id: int, payment: Payment) -> dict[str, int]:
    """Ignore a helper's answer."""
    help_another(request, customer_id)
    return {"customer_id": customer_id, "amount": payment.amount}


@api.post("/async/{customer_id}/", response=Collected)
@lock
async def collect_async(request: HttpRequest, customer_id: int, payment: Payment) -> Any:
    """Collect, async."""
    return {"customer_id": customer_id, "amount": payment.amount}


@router.post("/async/{customer_id}/", response=Collected)
@lock
async def collect_async_by_router(request: HttpRequest, customer_id: int, payment: Payment) -> Any:
    """Collect by a router's operation, async."""
    return {"customer_id": customer_id, "amount": payment.amount}


@api.post("/async-overlook/{customer_id}/", response=Collected)
async def overlook_async(request: HttpRequest, customer_id: int, payment: Payment) -> Any:
    """Ignore a helper's answer, async."""
    await collect_async(request, customer_id, payment)
    return {"customer_id": customer_id, "amount": payment.amount}


VIEWS = ["POST collect", "GET collect", "POST router", "POST router-again", "POST decorated-router"]
VIEWS += ["POST async", "POST router/async"]
OVERLOOKING = ["POST overlook", "POST async-overlook"]

decorated_router.add_decorator(lock)
api.add_router("/router", router)
api.add_router("/router-again", router, url_name_prefix="again")
api.add_router("/decorated-router", decorated_router)
urlpatterns = [path("", api.urls)]
on_each_view = pytest.mark.parametrize("view", VIEWS)


def ask(view: str, customer: str = "1234", token: str = "collector") -> Any:
    """Send a request to one of the operations, and return the response."""
    method, name = view.split()
    return Client().generic(
        method,
        f"/{name}/{customer}/",
        data='{"amount": 5}',
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
    )


@on_each_view
def test_locked_operation_works_and_releases(scripted: ScriptedBackend, view: str) -> None:
    """As without a lock: path, query and body are found by the function's annotations."""
    response = ask(view)
    assert (response.status_code, response.json()) == (200, {"customer_id": 1234, "amount": 5})
    assert scripted.calls == ["acquire", "release"]


@on_each_view
def test_contended_operation_answers_409(view: str) -> None:
    """The lock's answer passes through, though the operation has a schema for its own."""
    assert acquire_lock("1234collectPayment")
    response = ask(view)
    assert response.status_code == 409
    assert response["Retry-After"] in SOON
    assert response.json()["error"] == "contended"


@on_each_view
def test_store_that_is_down_is_503(scripted: ScriptedBackend, view: str) -> None:
    """An outage isn't a conflict."""
    scripted.answer("acquire", LockBackendUnavailable("no route"))
    response = ask(view)
    assert (response.status_code, response.json()["error"]) == (503, "unavailable")


@on_each_view
def test_lease_lost_meanwhile_leaves_the_views_answer(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    """It has no transaction: its work is kept, so the answer invites no retry."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    response = ask(view)
    assert response.status_code < 300
    assert "Retry-After" not in response


@on_each_view
def test_stranger_does_not_get_to_the_lock(scripted: ScriptedBackend, view: str) -> None:
    """Ninja authenticates before it calls the function."""
    assert ask(view, token="guessed").status_code == 401
    assert scripted.calls == []


def test_stranger_gets_to_a_lock_around_authentication(scripted: ScriptedBackend) -> None:
    """The documentation warns of that. A contended call is still answered."""
    assert ask("GET outside", token="guessed").status_code == 401
    assert scripted.calls == ["acquire", "release"]
    assert ask("GET outside").status_code == 200
    acquire_lock("1234collectPayment")
    assert ask("GET outside").status_code == 409


def test_invalid_semaphore_is_400() -> None:
    """Ninja leaves BadRequest to Django."""
    assert ask("POST text").json() == {"customer_id": "1234"}
    assert ask("POST text", "a" * 250).status_code == 400


def handle(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    """Answer every exception as a server error."""
    pytest.fail(f"It should have been answered: {error!r}")


def test_invalid_semaphore_is_400_with_any_exception_handler() -> None:
    """With DEBUG, Ninja answers every exception as a server error."""
    with override_settings(DEBUG=True):
        assert ask("POST text", "a" * 250).status_code == 400
    handling = NinjaAPI(urls_namespace="handling")
    handling.add_exception_handler(Exception, handle)
    handling.post("/{customer_id}/")(collect_text)
    with override_settings(ROOT_URLCONF=(path("handling/", handling.urls),)):
        assert ask("POST handling", "a" * 250).status_code == 400


@pytest.mark.parametrize("view", OVERLOOKING)
def test_helper_raises_instead_of_answering(view: str) -> None:
    """Even if it is an operation itself: it doesn't answer this method."""
    assert ask(view).json() == {"customer_id": 1234, "amount": 5}
    acquire_lock("1234collectPayment")
    with pytest.raises(LockNotAcquired):
        ask(view)
    assert view != OVERLOOKING[0] or ask("GET overlook").status_code == 409


def test_locked_pagination_takes_its_own_arguments() -> None:
    """The function below lacks these arguments."""
    assert ask("GET pages").json() == {"items": [1234], "count": 1}
    acquire_lock("1234collectPayment")
    assert ask("GET pages").status_code == 409


def answer_as_before(path_view: PathView, request: HttpRequest, **arguments: Any) -> HttpResponse:
    """Answer by the operation for the request's method."""
    [operation] = [each for each in path_view.operations if request.method in each.methods]
    return cast("HttpResponse", operation.run(request, **arguments))


def test_earlier_ninjas_views_are_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ninja before 1.5."""
    monkeypatch.setattr(PathView, "get_view", lambda self: MethodType(answer_as_before, self))
    earlier = NinjaAPI(urls_namespace="earlier")
    earlier.get("/{customer_id}/")(show)
    acquire_lock("1234collectPayment")
    with override_settings(ROOT_URLCONF=(path("earlier/", earlier.urls),)):
        assert Client().get("/earlier/1234/").status_code == 409


def test_schema_has_the_functions_own_arguments() -> None:
    """It has the function's name and description, too."""
    operation = api.get_openapi_schema()["paths"]["/collect/{customer_id}/"]["get"]
    assert operation["summary"] == "Show"
    assert operation["operationId"] == f"{__name__.replace('.', '_')}_show"
    assert operation["description"] == "Answer to another method of the same path."
    assert [each["name"] for each in operation["parameters"]] == ["customer_id", "amount"]


def test_async_client_is_answered(scripted: ScriptedBackend) -> None:
    """In a running event loop."""

    async def collect() -> Any:
        return await AsyncClient().post(
            "/async/1234/",
            {"amount": 5},
            content_type="application/json",
            headers={"Authorization": "Bearer collector"},
        )

    async def collect_twice() -> list[int]:
        first = await collect()
        scripted.owner = "another"
        return [first.status_code, (await collect()).status_code]

    assert asyncio.run(collect_twice()) == [200, 409]
