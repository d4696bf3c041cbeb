"""Which calls are answered with HTTP: those of what Django resolved, however it is wrapped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.test import Client, RequestFactory, override_settings
from django.urls import ResolverMatch, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from rest_framework.request import Request

from django_distlock import LockNotAcquired, acquire_lock, distributed_lock
from django_distlock.views.resolution import is_resolved, without_self
from django_distlock.views.responses import respond_invalid
from tests.app.models import Counter

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls(__name__), pytest.mark.usefixtures("scripted")]
lock = distributed_lock("<customer_id>collectPayment")


@lock
def collect(request: HttpRequest, customer_id: str, *, by: str = "") -> HttpResponse:
    """Collect a payment."""
    return HttpResponse("collected")


@lock
def charge(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Help a view whose caller would ignore a 409."""
    return HttpResponse("charged")


def undeclared_wrapper(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Wrap a view, copying only `__wrapped__`."""

    @functools.wraps(view, assigned=(), updated=())
    def wrapper(*args: Any, **kwargs: Any) -> HttpResponseBase:
        return view(*args, **kwargs)

    return wrapper


class OnMethod(View):
    """One method is locked."""

    @lock
    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return HttpResponse("collected")


class Unlocked(View):
    """A view to be locked in other ways."""

    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return HttpResponse("collected")


@method_decorator([lock, never_cache], name="dispatch")
class BelowOthers(Unlocked):
    """The lock is above another decorator of Django's."""


@method_decorator([never_cache, lock], name="get")
class AboveOthers(Unlocked):
    """The lock is below another decorator, and on an inherited method."""


class CounterAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A view of the admin is a method of a class that is no view class."""

    @lock
    def collect(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return HttpResponse("collected")


class Feed:
    """A callable object, like Django's feeds."""

    @lock
    def __call__(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return HttpResponse("collected")


counters = CounterAdmin(Counter, admin.site)


class Overlooking(View):
    """A view with helpers in its closure and attributes."""

    helper = staticmethod(charge)

    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Ignore the helper's answer."""
        self.helper(request, customer_id)
        return HttpResponse("collected")


def overlooking() -> Callable[..., HttpResponseBase]:
    """Return views that close over a locked helper, as a class and as a function."""
    helper = lock(charge.__wrapped__)  # type: ignore[attr-defined]

    class Closing(View):
        def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
            helper(request, customer_id)
            return HttpResponse("collected")

    return Closing.as_view()


class Owner:
    """A class with views as a method, and defined in a method."""

    def overlook(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Ignore the helper's answer."""
        charge(request, customer_id)
        return HttpResponse("collected")

    def view(self) -> Callable[..., HttpResponseBase]:
        """Return a view that closes over its owner."""

        def view(request: HttpRequest, customer_id: str) -> HttpResponse:
            return self.overlook(request, customer_id)

        return view


ANSWERED: dict[str, Callable[..., HttpResponseBase]] = {
    "function": collect,
    "csrf_exempt": csrf_exempt(never_cache(collect)),
    "undeclared": undeclared_wrapper(undeclared_wrapper(collect)),
    "partial": functools.partial(collect, by="partial"),
    "partial-wrapped": csrf_exempt(functools.partial(undeclared_wrapper(collect), by="partial")),
    "method": OnMethod.as_view(),
    "method-undeclared": undeclared_wrapper(csrf_exempt(OnMethod.as_view())),
    "method-partial": functools.partial(OnMethod.as_view()),
    "below-others": BelowOthers.as_view(),
    "above-others": AboveOthers.as_view(),
    "admin": admin.site.admin_view(counters.collect),
    "bound": counters.collect,
    "object": Feed(),
}
OVERLOOKED: dict[str, Callable[..., HttpResponseBase]] = {
    "attribute": Overlooking.as_view(),
    "closure": overlooking(),
    "owner": Owner().overlook,
    "owner-closure": Owner().view(),
}
urlpatterns = [
    path(f"{name}/<customer_id>/", view) for name, view in (ANSWERED | OVERLOOKED).items()
]


@pytest.fixture(autouse=True)
def admin_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everybody into the admin."""
    monkeypatch.setattr(admin.site, "has_permission", lambda request: True)


@pytest.mark.parametrize("name", [*ANSWERED])
def test_resolved_view_answers_409(client: Client, scripted: ScriptedBackend, name: str) -> None:
    """Whatever wraps it, if the wrapper has `__wrapped__`."""
    with override_settings(MIDDLEWARE=[]):
        assert client.get(f"/{name}/1234/").content == b"collected"
        assert scripted.owner == ""
        assert acquire_lock("1234collectPayment")
        assert client.get(f"/{name}/1234/").status_code == 409


@pytest.mark.parametrize("name", [*OVERLOOKED])
def test_helper_of_a_view_raises(client: Client, name: str) -> None:
    """Wherever the view finds it."""
    assert client.get(f"/{name}/1234/").content == b"collected"
    acquire_lock("1234collectPayment")
    with pytest.raises(LockNotAcquired):
        client.get(f"/{name}/1234/")


def test_class_as_a_view_is_looked_into_no_further() -> None:
    """It is unknown what its calls lead to."""
    request = RequestFactory().get("/")
    request.resolver_match = ResolverMatch(HttpResponse, (), {})
    assert not is_resolved(request, collect, request)


def test_invalid_semaphore_is_400_of_the_sites_own(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Like Django's answer to BadRequest, with the reason in the log."""
    assert client.get(f"/function/{'a' * 250}/").status_code == 400
    assert "at most 255 characters" in caplog.text
    with override_settings(DEBUG=True):
        response = client.get(f"/function/{'a' * 250}/")
    assert response.status_code == 400
    assert b"at most 255 characters" in response.content


def test_bad_request_can_be_answered_without_raising_it(caplog: pytest.LogCaptureFixture) -> None:
    """Where a view's caller answers every exception as a server error."""
    request = RequestFactory().get("/collect/")
    response = respond_invalid(request, ValueError("too long"))
    assert response.status_code == 400
    assert "too long: /collect/" in caplog.text


def test_on_conflict_gets_the_request_and_its_arguments() -> None:
    """Without a method's `self`; the request may be another framework's."""
    request = RequestFactory().get("/")
    another = Request(request)
    assert without_self((Unlocked(), another, "1234")) == (another, "1234")
    assert without_self((request, "1234")) == (request, "1234")
    assert without_self(()) == ()
