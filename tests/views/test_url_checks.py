"""The system check of placeholders that a URL fills."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required
from django.core import checks
from django.http import HttpRequest, HttpResponse  # noqa: TC002 - evaluated by Ninja
from django.test import override_settings
from django.urls import include, path, re_path, register_converter
from django.urls.converters import StringConverter
from django.utils.decorators import method_decorator
from django.views import View
from rest_framework.decorators import api_view
from rest_framework.views import APIView

from django_distlock import distributed_lock
from django_distlock.views.url_checks import check_placeholders
from tests.support.documentation import example
from tests.support.url_checks import lock, warned


class SevenConverter(StringConverter):
    """A converter of the site's own."""

    regex = "seven"


register_converter(SevenConverter, "seven")


def answer(request: HttpRequest, customer_id: Any = None, **kwargs: Any) -> HttpResponse:
    """Stand for a view."""
    raise NotImplementedError


def test_warning_says_what_to_write() -> None:
    """With the URL, the semaphore and the placeholder."""
    urls: Any = (path("collect/<customer_id>/", lock(answer)),)
    with override_settings(ROOT_URLCONF=urls):
        messages = checks.run_checks(tags=[checks.Tags.urls])
    (message,) = [each for each in messages if each.id == "distlock.W006"]
    assert isinstance(message, checks.Warning)
    assert message.obj == f"{__name__}.answer"
    assert "'collect/<customer_id>/' fills <customer_id> of the semaphore" in message.msg
    assert "'<customer_id>collectPayment'" in message.msg
    assert message.hint is not None
    for suggestion in ("<int:customer_id>", "<uuid:", "<slug:", "<str:customer_id>"):
        assert suggestion in message.hint


@pytest.mark.parametrize(
    ("pattern", "is_warned"),
    [
        (path("<customer_id>/", lock(answer)), True),
        (path("<str:customer_id>/", lock(answer)), True),
        (path("<path:customer_id>/", lock(answer)), True),
        (path("<slug:customer_id>/", lock(answer)), True),
        (re_path("^(?P<customer_id>[0-9]+)/$", lock(answer)), True),
        (re_path("^([0-9]+)/$", lock(answer)), True),
        (re_path("^([0-9]+)/$", lock(functools.partial(answer))), True),
        (re_path("^([0-9]+)/(?P<other>x)/$", lock(answer)), False),
        (re_path("^x/$", lock(answer)), False),
        (path("<int:customer_id>/", lock(answer)), False),
        (path("<uuid:customer_id>/", lock(answer)), False),
        (path("<seven:customer_id>/", lock(answer)), False),
        (path("<other>/", lock(answer)), False),
        (path("<customer_id>/", lock(answer), {"customer_id": 7}), False),
        (path("<customer_id>/", include([path("", lock(answer))])), True),
        (path("<customer_id>/", include([path("", lock(answer))]), {"customer_id": 7}), False),
        (path("<customer_id>/", include([path("<int:customer_id>", lock(answer))])), False),
        (path("<int:other>/", include([path("<customer_id>/", lock(answer))])), True),
    ],
)
def test_warning_depends_on_the_url(pattern: Any, is_warned: bool) -> None:
    """Only URL arguments that may be any text are warned of."""
    assert bool(warned(pattern)) is is_warned


@pytest.mark.parametrize(
    ("semaphore", "is_warned"),
    [
        ("<customer_id>:x", True),
        ("<request.user.pk>:<customer_id>", True),
        ("<int:customer_id>:x", False),
        ("<uuid:customer_id>:x", False),
        ("<slug:customer_id>:x", False),
        ("<str:customer_id>:x", False),
        ("<request.user.pk>:x", False),
        ("the same for all", False),
        (lambda request, customer_id: customer_id, False),
    ],
)
def test_warning_depends_on_the_semaphore(semaphore: Any, is_warned: bool) -> None:
    """A placeholder with a type causes no warning, even with the type `str`."""
    assert bool(warned(path("<customer_id>/", distributed_lock(semaphore)(answer)))) is is_warned


def test_each_placeholder_is_warned_of_once() -> None:
    """Even if many URLs and locks use it."""
    view = lock(distributed_lock("<customer_id>:<other>")(answer))
    routes = [path("a/<customer_id>/<other>/", view), path("b/<customer_id>/<other>/", view)]
    assert warned(*routes) == ["answer"] * 3


def test_warnings_begin_with_the_outermost_lock() -> None:
    """For locks on the callable itself, and on its wrappers."""
    inner, outer = distributed_lock("inner"), distributed_lock("outer")
    decorated: Any = login_required(outer(inner(answer)))
    assert decorated.distributed_locks == (outer, inner)


class OnMethods(View):
    """Methods are locked, and one that answers to no HTTP method."""

    @lock
    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Answer."""
        raise NotImplementedError

    @method_decorator(distributed_lock("<customer_id>:edit"))
    def post(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Answer."""
        raise NotImplementedError

    @distributed_lock("<customer_id>:help")
    def help(self, customer_id: str) -> None:
        """Take a customer's number from other methods."""
        raise NotImplementedError


@method_decorator([login_required, lock], name="dispatch")
class OnDispatch(View):
    """Everything is locked."""


class Plain(View):
    """Only its wrapper is locked."""


@api_view(["GET"])  # type: ignore[untyped-decorator]
@lock
def rest_function(request: Any, customer_id: str) -> HttpResponse:
    """Answer."""
    raise NotImplementedError


class RESTOnMethod(APIView):  # type: ignore[misc]
    """A method is locked."""

    @lock
    def get(self, request: Any, customer_id: str) -> HttpResponse:
        """Answer."""
        raise NotImplementedError


@pytest.mark.parametrize(
    ("view", "names"),
    [
        (login_required(lock(answer)), ["answer"]),
        (functools.partial(lock(answer), other=1), ["answer"]),
        (OnMethods.as_view(), ["OnMethods.get", "OnMethods.post"]),
        (OnDispatch.as_view(), ["OnDispatch.dispatch"]),
        (lock(Plain.as_view()), ["Plain"]),
        (rest_function, ["rest_function"]),
        (lock(api_view(["GET"])(answer)), ["answer"]),
        (RESTOnMethod.as_view(), ["RESTOnMethod.get"]),
        (answer, []),
    ],
)
def test_locked_callable_is_found(view: Any, names: list[str]) -> None:
    """Whatever wraps it."""
    assert warned(path("<customer_id>/", view)) == names


def test_unnamed_group_of_a_method_is_behind_the_request() -> None:
    """`self` and the request come before it."""
    assert warned(re_path("^([0-9]+)/$", RESTOnMethod.as_view())) == ["RESTOnMethod.get"]
    assert warned(re_path("^([0-9]+)/$", OnMethods.as_view())) == [
        "OnMethods.get",
        "OnMethods.post",
    ]


# Odd ones


class Odd:
    """A view whose attributes can't be read."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


class LockedCall:
    """An object whose call is locked."""

    @lock
    def __call__(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Answer."""
        raise NotImplementedError


def test_odd_view_hides_no_other() -> None:
    """It is skipped."""
    odd: Any = Odd()
    assert warned(path("odd/<customer_id>/", odd), path("<customer_id>/", lock(answer))) == [
        "answer"
    ]


def test_odd_pattern_hides_no_other() -> None:
    """A pattern of any kind."""
    assert warned(object(), path("<customer_id>/", lock(answer))) == ["answer"]


def test_object_that_is_a_view_is_found() -> None:
    """By its __call__."""
    view: Any = LockedCall()
    assert warned(path("<customer_id>/", view)) == ["LockedCall.__call__"]


@pytest.mark.parametrize("urlconf", ["nowhere.urls", f"{__name__}.nothing", ("no pattern",), 5])
def test_invalid_urlconf_is_left_to_djangos_checks(urlconf: Any) -> None:
    """This check has no messages, and doesn't fail."""
    with override_settings(ROOT_URLCONF=urlconf):
        assert check_placeholders() == []


def test_site_without_a_urlconf_has_no_views() -> None:
    """Such as a site with commands only."""
    with override_settings():
        from django.conf import settings

        del settings.ROOT_URLCONF
        assert check_placeholders() == []


@pytest.mark.parametrize(
    ("page", "headings"),
    [
        ("how-to/lock-a-view.md", ["Lock a view", "Answer a refused request yourself"]),
        ("how-to/lock-a-view.md", ["Lock a view", "Give all spellings of an id one lock"]),
        ("how-to/lock-a-view.md", ["Lock a view", "Lock a class-based view"]),
        ("integrations/rest-framework.md", ["Django REST framework"]),
        ("integrations/ninja.md", ["Django Ninja"]),
    ],
)
def test_documented_views_are_clean(page: str, headings: list[str]) -> None:
    """The documented views cause no warnings."""
    assert warned(*example(page, *headings).urlpatterns) == []


@distributed_lock
def without_parentheses(request: HttpRequest, customer_id: Any) -> Any:
    """Stand for a view."""
    raise NotImplementedError


class WithoutParentheses(View):
    """A view of which one method is to be locked."""

    @distributed_lock
    def post(self, request: HttpRequest) -> Any:
        """Stand for a locked view."""
        raise NotImplementedError


@pytest.mark.parametrize(
    ("view", "name"),
    [
        (without_parentheses, "without_parentheses"),
        (login_required(without_parentheses), "without_parentheses"),  # type: ignore[type-var]
        (WithoutParentheses.as_view(), "WithoutParentheses.post"),
    ],
)
def test_lock_without_parentheses_is_an_error(view: Any, name: str) -> None:
    """Otherwise it would decorate the request."""
    urls: Any = (path("collect/<customer_id>/", view),)
    with override_settings(ROOT_URLCONF=urls):
        messages = checks.run_checks(tags=[checks.Tags.urls])
    (message,) = [each for each in messages if each.id in ("distlock.E005", "distlock.W006")]
    assert (message.id, message.level) == ("distlock.E005", checks.ERROR)
    assert name in message.msg
    assert '@distributed_lock("<customer_id>collectPayment")' in str(message.hint)
