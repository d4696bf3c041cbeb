"""Lock errors in Django Ninja's error format, as docs/integrations/ninja.md shows."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest  # noqa: TC002 - evaluated by Ninja
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from ninja import NinjaAPI
from ninja.decorators import decorate_view

from django_distlock import distributed_lock
from django_distlock.integrations.ninja import answer_lock_errors
from django_distlock.test import override_locks, store_down
from tests.app.models import Counter
from tests.support.databases import committed
from tests.support.documentation import example
from tests.support.lock_answers import (
    assert_contention_is_answered,
    assert_failure_is_answered,
    assert_outage_is_answered,
    write_and_lose,
)
from tests.support.visits import atomic_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpResponse

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.once, pytest.mark.urls(__name__)]
PAGE = "integrations/ninja.md"
documented = example(
    PAGE, "Django Ninja", "Lock part of an operation", "Lock all operations of a router"
)
lock = distributed_lock("<str:customer_id>collectPayment")
api, unset = NinjaAPI(urls_namespace="set up"), NinjaAPI(urls_namespace="not set up")
answer_lock_errors(api)
answer_lock_errors(api)  # does no harm
api.add_router("", documented.router)
api.add_router("", documented.payments_router)


@lock
async def charge(customer_id: str) -> None:
    """Help an operation."""


@api.post("/decorated/{customer_id}/")
@unset.post("/decorated/{customer_id}/")
@lock
def decorated(request: HttpRequest, customer_id: str) -> dict[str, str]:
    """Collect, with a lock."""
    return {"collected": customer_id}


@api.post("/outside/{customer_id}/")
@decorate_view(lock)
def outside(request: HttpRequest, customer_id: str) -> dict[str, str]:
    """Collect, with a lock around all that Ninja does for an operation."""
    return {"collected": customer_id}


@api.post("/async-service/{customer_id}/")
async def async_service(request: HttpRequest, customer_id: str) -> dict[str, str]:
    """Collect by a decorated function."""
    await charge(customer_id)
    return {"collected": customer_id}


@api.post("/async-block/{customer_id}/")
async def async_block(request: HttpRequest, customer_id: str) -> dict[str, str]:
    """Collect in a block."""
    async with distributed_lock(f"{customer_id}collectPayment"):
        return {"collected": customer_id}


@api.post("/keeping/{customer_id}/")
def keeping(request: HttpRequest, customer_id: str, call: str) -> None:
    """Write, then renew or release the lock while its store is down."""
    with distributed_lock(f"{customer_id}collectPayment", backend="memory") as lease:
        Counter.objects.create()
        with store_down("memory"):
            getattr(lease, call)()


@api.post("/losing/{customer_id}/")
def lose(request: HttpRequest, customer_id: str) -> None:
    """Write, and lose the lock to an operator."""
    with distributed_lock(f"{customer_id}collectPayment", backend="memory") as lease:
        write_and_lose(lease)


urlpatterns = [
    path("documented/", documented.api.urls),
    path("api/", api.urls),
    path("unset/", unset.urls),
]
VIEWS = ["documented/collect", "api/refund", "api/charge"]
VIEWS += ["api/decorated", "api/async-service", "api/async-block"]
on_each_view = pytest.mark.parametrize("view", VIEWS)


def sign_in(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """Set a user, as a site's middleware does from a session."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.user = User(username="collector")
        return get_response(request)

    return middleware


@pytest.fixture(autouse=True)
def signed_in() -> Iterator[None]:
    """Run without other middleware, which needs other apps."""
    with override_settings(MIDDLEWARE=[f"{__name__}.sign_in"]):
        yield


def ask(view: str, customer: str = "1234") -> Any:
    """Send a request to one of the operations."""
    return Client().post(f"/{view}/{customer}/")


@on_each_view
def test_contention_is_a_409_in_ninjas_format(scripted: ScriptedBackend, view: str) -> None:
    """Of sync and async operations, decorated or not; the holder is not shown."""
    assert ask(view).status_code == 200
    assert_contention_is_answered(partial(ask, view), scripted)


@on_each_view
def test_store_that_is_down_is_a_503(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture, view: str
) -> None:
    """The client isn't told why, the log is."""
    assert_outage_is_answered(partial(ask, view), scripted, caplog)


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("view", VIEWS[3:])
def test_text_that_is_no_semaphore_is_a_400(view: str, debug: bool) -> None:
    """With DEBUG, Ninja answers what it does not know as a server error."""
    with override_settings(DEBUG=debug):
        response = ask(view, customer="a" * 250)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


@committed
@pytest.mark.parametrize(
    ("call", "atomic"), [("renew", False), ("release", False), ("renew", True)]
)
def test_store_that_is_down_after_the_work_invites_no_client_to_repeat_it(
    caplog: pytest.LogCaptureFixture, call: str, atomic: bool
) -> None:
    """Unless the work is undone. With a transaction a release waits for its end."""
    with override_locks(), atomic_requests(*["default"] * atomic):
        response = Client().post(f"/api/keeping/1234/?call={call}")
    assert_failure_is_answered(response, undone=atomic)
    [line] = [each for each in caplog.messages if each.startswith("A request failed under")]
    assert ("rolled back" in line) == atomic


@committed
@pytest.mark.parametrize("atomic", [True, False])
def test_lost_lease_is_a_503_and_the_work_is_undone_if_it_can_be(atomic: bool) -> None:
    """Without a transaction, the client is not invited to try again."""
    with atomic_requests(*["default"] * atomic):
        response = ask("api/losing")
    assert_failure_is_answered(response, undone=atomic)


@pytest.mark.parametrize("view", ["unset/decorated", "api/outside"])
def test_lock_answers_itself_where_ninja_would_not(scripted: ScriptedBackend, view: str) -> None:
    """An API that is not set up does not know the error, nor does code around an operation."""
    scripted.owner = "somebody"
    response = ask(view)
    assert (response.status_code, response.json()["error"]) == (409, "contended")


def test_async_server_is_answered(scripted: ScriptedBackend) -> None:
    """In its event loop."""
    scripted.owner = "somebody"

    async def collect() -> list[int]:
        client = AsyncClient()
        return [(await client.post(f"/{view}/1234/")).status_code for view in VIEWS]

    assert asyncio.run(collect()) == [409] * len(VIEWS)
