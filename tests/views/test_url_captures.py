"""The system check of templates that name what no URL captures."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse  # noqa: TC002 - evaluated by Ninja
from django.test import override_settings
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from ninja import NinjaAPI
from rest_framework.decorators import action, api_view
from rest_framework.routers import DefaultRouter
from rest_framework.viewsets import ViewSet

from django_distlock import distributed_lock
from django_distlock.views.url_checks import check_captures

if TYPE_CHECKING:
    from django.core import checks

pytestmark = pytest.mark.once

lock = distributed_lock("<int:customer_id>collectPayment")


def answer(request: HttpRequest, customer_id: Any = None, **kwargs: Any) -> HttpResponse:
    """Stand for a view, of which each argument has a default."""
    raise NotImplementedError


def anything(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    """Stand for a view that takes any argument."""
    raise NotImplementedError


def needs_customer(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Stand for a view that needs one."""
    raise NotImplementedError


def not_captured(*urlpatterns: Any) -> list[checks.CheckMessage]:
    """Return the warnings about these URLs."""
    with override_settings(ROOT_URLCONF=urlpatterns):
        return check_captures(app_configs=None)


def with_customer(view: Any) -> Any:
    """Give a view a customer, as a site's own decorator does."""

    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    return wrapped


class OnMethod(View):
    """A method is locked."""

    @lock
    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Answer."""
        raise NotImplementedError


@method_decorator(lock, name="dispatch")
class OnDispatch(View):
    """Everything is locked."""


class Payments(ViewSet):  # type: ignore[misc]
    """A viewset of which one action is locked, and one by a name of another argument."""

    def list(self, request: Any) -> HttpResponse:
        """Answer."""
        raise NotImplementedError

    @distributed_lock("<int:pk>:retrieve")
    def retrieve(self, request: Any, **kwargs: Any) -> HttpResponse:
        """Answer."""
        raise NotImplementedError

    @action(detail=True, methods=["post"])  # type: ignore[untyped-decorator]
    @lock
    def collect(self, request: Any, **kwargs: Any) -> HttpResponse:
        """Answer."""
        raise NotImplementedError


router = DefaultRouter()
router.register("payments", Payments, basename="payment")
api = NinjaAPI(urls_namespace="captures")


@api.post("/collect/")
@lock
def collect(request: HttpRequest, customer_id: int) -> str:
    """Take the customer from the query."""
    raise NotImplementedError


CAPTURING = path("<int:customer_id>/", lock(anything))
EMPTY = path("", lock(anything))


@pytest.mark.parametrize(
    ("pattern", "is_warned"),
    [
        (EMPTY, True),
        (path("<int:pk>/", lock(anything)), True),
        (path("<int:customer_id>/", lock(anything)), False),
        (path("", lock(anything), {"customer_id": 7}), False),
        (path("<int:customer_id>/", include([path("", lock(anything))])), False),
        (path("<int:customer_id>/<int:other>", include([path("<x>", lock(anything))])), False),
        (path("<int:pk>/", include([path("<x>/", lock(anything))])), True),
        (path("", include([path("", lock(anything))]), {"customer_id": 7}), False),
        (re_path("^(?P<customer_id>[0-9]+)/$", lock(anything)), False),
        (re_path("^(?P<pk>[0-9]+)/$", lock(anything)), True),
        (re_path("^([0-9]+)/$", lock(needs_customer)), False),
        (re_path("^([0-9]+)/$", lock(anything)), True),
        (re_path("^([0-9]+)/(?P<pk>[0-9]+)/$", lock(needs_customer)), True),
        (path("", lock(needs_customer)), True),
        (path("", lock(answer)), False),
        (path("", distributed_lock("<request.user.pk>")(anything)), False),
        (path("", distributed_lock("rebuild")(anything)), False),
        (path("", distributed_lock(lambda request: "rebuild")(anything)), False),
        (path("", login_required(lock(anything))), True),
        (path("", with_customer(lock(anything))), False),
        (path("", login_required(with_customer(lock(anything)))), False),
        (path("", lock(with_customer(anything))), True),
        (path("", functools.partial(lock(anything), customer_id=7)), False),
        (path("", OnMethod.as_view()), True),
        (path("<int:customer_id>/", OnMethod.as_view()), False),
        (path("", OnDispatch.as_view()), True),
        (path("<int:customer_id>/", OnDispatch.as_view()), False),
        (path("", api_view(["GET"])(lock(anything))), True),
        (path("<int:customer_id>/", api_view(["GET"])(lock(anything))), False),
        (path("", api.urls), False),
        (object(), False),
    ],
)
def test_template_that_names_an_argument_which_no_url_captures_is_warned_of(
    pattern: Any, is_warned: bool
) -> None:
    """Each request of such a view would fail."""
    assert [message.id for message in not_captured(pattern)] == ["distlock.W016"] * is_warned


def test_action_of_a_viewset_is_judged_by_its_own_routes() -> None:
    """Those of a router capture `pk`."""
    (message,) = not_captured(path("", include(router.urls)))
    assert message.obj == f"{__name__}.Payments.collect"
    assert "Write <int:customer_id> in the pattern; or in the template" in str(message.hint)
    assert "<pk>" in str(message.hint)


def test_one_pattern_that_captures_the_argument_is_enough() -> None:
    """Another one may be for other methods of the same class."""
    view = OnMethod.as_view()
    assert not_captured(path("", view), path("<int:customer_id>/", view)) == []
