"""The same system check: viewsets of REST framework, Django Ninja, and the admin."""

from __future__ import annotations

import uuid
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest
from django.contrib import admin
from django.http import HttpRequest, HttpResponse  # noqa: TC002 - evaluated by Ninja
from django.urls import include, path
from ninja import NinjaAPI, Router
from ninja.decorators import decorate_view
from rest_framework.decorators import action
from rest_framework.routers import SimpleRouter
from rest_framework.viewsets import ViewSet

from django_distlock import distributed_lock

if TYPE_CHECKING:
    from collections.abc import Callable
from tests.app.models import Customer
from tests.support.url_checks import lock, warned

# Viewsets


class Customers(ViewSet):  # type: ignore[misc]
    """A viewset that doesn't describe its keys."""

    @distributed_lock("<pk>:show")
    def retrieve(self, request: Any, pk: str) -> HttpResponse:
        """Answer."""
        raise NotImplementedError

    @action(detail=True)  # type: ignore[untyped-decorator]
    @distributed_lock("<pk>:collect")
    def collect(self, request: Any, pk: str) -> HttpResponse:
        """Answer."""
        raise NotImplementedError


class Described(Customers):
    """A viewset with a regular expression for its keys."""

    lookup_value_regex = "[1-9][0-9]*"


class Converted(Customers):
    """A viewset with a converter for its keys."""

    lookup_value_converter = "int"


class ByName(Customers):
    """A viewset with another name for its keys."""

    lookup_value_regex = "[a-z]+"
    lookup_url_kwarg = "name"


@pytest.mark.parametrize(
    ("viewset", "use_regex_path", "is_warned"),
    [
        (Customers, True, True),
        (Customers, False, True),
        (Described, True, False),
        (Converted, False, False),
    ],
)
def test_viewset_says_what_its_keys_are(
    viewset: type[Any], use_regex_path: bool, is_warned: bool
) -> None:
    """By a regular expression or a converter."""
    router = SimpleRouter(use_regex_path=use_regex_path)
    router.register("customers", viewset, basename="customer")
    names = [f"{viewset.__name__}.{method}" for method in ("collect", "retrieve")]
    assert sorted(warned(path("", include(router.urls)))) == (names if is_warned else [])


def test_regular_expression_of_keys_describes_nothing_else() -> None:
    """Another group of the URL is still any text."""
    router = SimpleRouter()
    router.register("(?P<pk>[^/]+)/names", ByName, basename="name")
    assert sorted(warned(path("", include(router.urls)))) == ["ByName.collect", "ByName.retrieve"]


# Django Ninja


class Colour(str, Enum):  # noqa: UP042 - as sites have them
    """A text with one spelling."""

    RED = "red"


Text = Annotated[str, "of some kind"]


Number = Annotated[int, "of some kind"]


def operation(annotation: Any, decorate: Callable[..., Any] = lock) -> Any:
    """Return an API with a locked operation whose argument has this annotation."""

    def collect(request: HttpRequest, customer_id: Any) -> HttpResponse:
        raise NotImplementedError

    collect.__annotations__["customer_id"] = annotation
    api = NinjaAPI(urls_namespace=f"{uuid.uuid4()}")
    api.get("/{customer_id}/")(decorate(collect))
    return path("", api.urls)


@pytest.mark.parametrize(
    ("annotation", "is_warned"),
    [
        (str, True),
        (Any, True),
        (Text, True),
        (str | int, True),
        (Optional[str], True),  # noqa: UP045 - it has an origin of its own
        (int, False),
        (uuid.UUID, False),
        (Number, False),
        (int | uuid.UUID, False),
        (Colour, False),
    ],
)
def test_operation_has_its_arguments_converted(annotation: Any, is_warned: bool) -> None:
    """Ninja converts them by their annotations."""
    assert bool(warned(operation(annotation))) is is_warned


def test_operation_without_annotations_gets_texts() -> None:
    """So does one that takes any arguments."""

    def bare(request, customer_id):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        raise NotImplementedError

    api = NinjaAPI(urls_namespace="bare")
    api.get("/{customer_id}/")(lock(bare))
    assert len(warned(path("", api.urls))) == 1


def test_lock_outside_of_an_operation_gets_texts() -> None:
    """Ninja hasn't converted them yet."""
    outside = decorate_view(lock)
    assert len(warned(operation(int, outside))) == 1


def test_operation_of_a_router_is_found() -> None:
    """So is one that the router locks."""
    api, router = NinjaAPI(urls_namespace="router"), Router()
    router.add_decorator(lock)

    @router.get("/{customer_id}/")
    def collect(request: HttpRequest, customer_id: str) -> HttpResponse:
        raise NotImplementedError

    api.add_router("/router", router)
    assert len(warned(path("", api.urls))) == 1


# Django's admin


def test_view_of_the_admin_is_found() -> None:
    """Its URLs have an object's id as text."""

    class LockedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
        @distributed_lock("<object_id>:change")
        def change_view(self, request: Any, object_id: str, *rest: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    site = admin.AdminSite("locked")
    site.register(Customer, LockedAdmin)
    (name,) = warned(path("admin/", site.urls))
    assert name.endswith("LockedAdmin.change_view")
