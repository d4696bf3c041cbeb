"""Lock errors in REST framework's error format, as docs/integrations/rest-framework.md shows."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections, transaction
from django.test import Client, modify_settings, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from rest_framework import exceptions
from rest_framework.decorators import api_view
from rest_framework.response import Response
from rest_framework.views import APIView

from django_distlock import (
    LockNotAcquired,
    distributed_lock,
)
from django_distlock.fields import EPOCH
from django_distlock.integrations.rest_framework import answer_lock_errors
from django_distlock.records import Refusal
from tests.app.models import Counter
from tests.support.databases import committed
from tests.support.documentation import example
from tests.support.lock_answers import (
    assert_contention_is_answered,
    assert_failure_is_answered,
    assert_outage_is_answered,
    write_and_lose,
)
from tests.support.visits import SOON, atomic_requests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.once, pytest.mark.urls(__name__)]
PAGE, TITLE = "integrations/rest-framework.md", "Django REST framework"
SETTINGS = example(PAGE, "Answer in REST framework's format").REST_FRAMEWORK
OWN = {"EXCEPTION_HANDLER": f"{__name__}.documented"}
part = example(PAGE, TITLE, "Lock part of a view")
documented = example(PAGE, "Keep an exception handler of your own").handle
lock = distributed_lock("<str:customer_id>collectPayment")


@lock
def charge(customer_id: str) -> None:
    """Help a view."""


class ByService(APIView):  # type: ignore[misc]
    """A view that calls a decorated function."""

    def post(self, request: Any, customer_id: str) -> Response:
        """Collect."""
        charge(customer_id)
        return Response({"collected": customer_id})


class Decorated(APIView):  # type: ignore[misc]
    """A view with a decorated method."""

    authentication_classes = ()

    @lock
    def post(self, request: Any, customer_id: str) -> Response:
        """Collect."""
        return Response({"collected": customer_id})


@api_view(["POST"])  # type: ignore[untyped-decorator]
@lock
def function(request: Any, customer_id: str) -> Response:
    """Collect."""
    return Response({"collected": customer_id})


@method_decorator(lock, name="dispatch")
class Outside(APIView):  # type: ignore[misc]
    """A view with a lock around all that the framework does."""


class Losing(APIView):  # type: ignore[misc]
    """A view that loses its lock after it has written."""

    authentication_classes = ()

    def post(self, request: Any, customer_id: str) -> Response:
        """Write, and lose the lock to an operator."""
        with distributed_lock(f"{customer_id}collectPayment", backend="memory") as lease:
            write_and_lose(lease)
        return Response()


class Refusing(APIView):  # type: ignore[misc]
    """A view that fails without locks."""

    def post(self, request: Any, customer_id: str) -> Response:
        """Fail."""
        if customer_id == "1":
            raise exceptions.PermissionDenied
        raise RuntimeError


urlpatterns = [
    path("block/<customer_id>/", part.CollectPayment.as_view()),
    path("service/<customer_id>/", ByService.as_view()),
    path("decorated/<customer_id>/", Decorated.as_view()),
    path("function/<customer_id>/", function),
    path("outside/<customer_id>/", Outside.as_view()),
    path("losing/<customer_id>/", Losing.as_view()),
    path("refusing/<customer_id>/", Refusing.as_view()),
]
VIEWS = ["block", "service", "decorated", "function"]
on_each_view = pytest.mark.parametrize("view", VIEWS)


@pytest.fixture(autouse=True)
def set_up() -> Iterator[None]:
    """Configure REST framework as the page says."""
    with override_settings(REST_FRAMEWORK=SETTINGS, MIDDLEWARE=[]):
        yield


def ask(view: str, accept: str = "*/*", customer: str = "1234") -> Any:
    """Send a request to one of the views."""
    return Client().post(f"/{view}/{customer}/", headers={"Accept": accept})


@on_each_view
def test_contention_is_a_409_in_the_frameworks_format(scripted: ScriptedBackend, view: str) -> None:
    """Also if the view itself is decorated; the holder is not shown."""
    assert ask(view).json() == {"collected": "1234"}
    assert_contention_is_answered(partial(ask, view), scripted)


@on_each_view
@pytest.mark.parametrize(
    ("reason", "detail"), [("", "This is being"), ("paused: deploy", "This can")]
)
def test_answer_is_made_of_what_the_store_told(
    scripted: ScriptedBackend, view: str, reason: str, detail: str
) -> None:
    """As for a decorated view of Django: of the time for which the lock is held, or paused yet."""
    seen_at = EPOCH + timedelta(seconds=20)
    end = seen_at + timedelta(seconds=15)
    scripted.owner = "somebody"
    scripted.refusal = Refusal("holder", EPOCH, end, seen_at, reason)
    response = ask(view)
    assert int(response["Retry-After"]) in (range(15, 19) if reason else range(8, 16))
    assert response.json()["detail"].startswith(detail)


@pytest.mark.parametrize("view", ["decorated", "function"])
def test_lease_that_is_lost_at_the_end_leaves_a_decorated_views_answer(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    """Its work is kept, so the answer must not say that it was undone."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    assert ask(view).json() == {"collected": "1234"}


@on_each_view
def test_answer_is_rendered_as_the_client_wishes(scripted: ScriptedBackend, view: str) -> None:
    """Here by the browsable API."""
    scripted.owner = "somebody"
    with modify_settings(INSTALLED_APPS={"append": "rest_framework"}):
        response = ask(view, "text/html")
    assert response["Content-Type"].startswith("text/html")
    assert "Django REST framework" in response.content.decode()
    assert "HTTP 409 Conflict" in response.content.decode()


@on_each_view
def test_store_that_is_down_is_a_503(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture, view: str
) -> None:
    """The client isn't told why, the log is."""
    assert_outage_is_answered(partial(ask, view), scripted, caplog)


@pytest.mark.usefixtures("scripted")
@on_each_view
def test_text_that_is_no_semaphore_is_a_400(view: str) -> None:
    """Elsewhere it would be a ValueError, so a server error."""
    response = ask(view, customer="a" * 250)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


@committed
@pytest.mark.parametrize("atomic", [True, False])
def test_lost_lease_is_a_503_and_the_work_is_undone_if_it_can_be(atomic: bool) -> None:
    """Without a transaction, the client is not invited to try again."""
    with atomic_requests(*["default"] * atomic):
        response = ask("losing")
    assert_failure_is_answered(response, undone=atomic)
    assert not connections["default"].in_atomic_block


@committed
def test_other_transactions_around_the_view_are_rolled_back(scripted: ScriptedBackend) -> None:
    """Not only those of ATOMIC_REQUESTS, which REST framework itself rolls back."""
    scripted.owner = "somebody"
    with transaction.atomic():
        Counter.objects.create()
        assert ask("decorated").status_code == 409
    assert not Counter.objects.exists()


def test_other_errors_are_the_frameworks() -> None:
    """Handled or not."""
    assert ask("refusing", customer="1").json() == {
        "detail": "You do not have permission to perform this action."
    }
    with pytest.raises(RuntimeError):
        ask("refusing")


@on_each_view
def test_sites_own_handler_gives_lock_errors_its_format(
    scripted: ScriptedBackend, view: str
) -> None:
    """The documented one."""
    scripted.owner = "somebody"
    with override_settings(REST_FRAMEWORK=OWN):
        response = ask(view)
    [error] = response.json()["errors"]
    assert response.status_code == 409
    assert error["detail"].startswith("This is being worked on")
    assert response["Retry-After"] in SOON


def test_handler_gets_the_lock_error_as_the_cause() -> None:
    """With its code, for formats that have codes."""
    seen: list[Any] = []

    @answer_lock_errors
    def handler(exc: Exception, context: dict[str, Any]) -> None:
        """Handle nothing, so that the error is raised again."""
        seen.append(exc)

    error = LockNotAcquired()
    assert handler(error, {"request": None}) is None
    assert (seen[0].get_codes(), seen[0].__cause__) == ("contended", error)


@pytest.mark.parametrize("handler", [{}, {"EXCEPTION_HANDLER": f"{__name__}.catch_all"}])
@pytest.mark.parametrize("view", ["decorated", "function"])
def test_handler_that_knows_no_locks_is_not_asked_for_a_decorated_views_answer(
    scripted: ScriptedBackend, view: str, handler: dict[str, str]
) -> None:
    """It might make a server error of it."""
    scripted.owner = "somebody"
    with override_settings(REST_FRAMEWORK=handler):
        assert ask(view).json()["error"] == "contended"


def test_lock_around_the_framework_answers_itself(scripted: ScriptedBackend) -> None:
    """No exception handler is asked for what is raised there."""
    scripted.owner = "somebody"
    assert ask("outside").json()["error"] == "contended"


def catch_all(exc: Exception, context: dict[str, Any]) -> Response:
    """Answer every exception as a server error."""
    pytest.fail(f"It should have been answered: {exc!r}")
