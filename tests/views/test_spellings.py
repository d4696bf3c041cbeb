"""One thing has one lock, however a URL spells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from ninja import NinjaAPI
from rest_framework.decorators import action, api_view
from rest_framework.routers import SimpleRouter
from rest_framework.viewsets import ViewSet

from django_distlock import acquire_lock, distributed_lock, lock_backends
from django_distlock.semaphores.templates import SemaphoreTemplate
from tests.app.models import Customer
from tests.support.databases import committed, on_each_database
from tests.support.documentation import example
from tests.support.holders import holding

if TYPE_CHECKING:
    from collections.abc import Iterator

SPELLINGS = ["7", "07", "%207", "%EF%BC%97", "+7", "0_7", "7%20"]
"""Python's int(), and so the ORM, takes each for 7."""
IDENTITY = "12345678-9abc-def0-1234-56789abcdef0"

lock = distributed_lock("<int:customer_id>collectPayment")


def find(customer_id: Any) -> str:
    """Find the customer by the ORM, and return the locks held at that moment."""
    assert int(customer_id) == 7
    return ",".join(each.semaphore for each in lock_backends["default"].held())


@lock
def function(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect."""
    return HttpResponse(find(customer_id))


class OnMethod(View):
    """One method is locked."""

    @lock
    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return HttpResponse(find(customer_id))


@method_decorator(lock, name="dispatch")
class OnDispatch(View):
    """Every method is locked."""

    def get(self, request: HttpRequest, customer_id: str) -> HttpResponse:
        """Collect."""
        return HttpResponse(find(customer_id))


@lock
async def async_function(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect, async."""
    return HttpResponse(find(customer_id))


@api_view(["GET"])  # type: ignore[untyped-decorator]
@lock
def rest_function(request: Any, customer_id: str) -> HttpResponse:
    """Collect."""
    return HttpResponse(find(customer_id))


class Customers(ViewSet):  # type: ignore[misc]
    """A viewset that doesn't describe its keys."""

    @distributed_lock("<int:pk>collectPayment")
    def retrieve(self, request: Any, pk: str) -> HttpResponse:
        """Collect."""
        return HttpResponse(find(pk))

    @action(detail=True)  # type: ignore[untyped-decorator]
    @method_decorator(distributed_lock("<int:pk>collectPayment"))
    def collect(self, request: Any, pk: str) -> HttpResponse:
        """Collect."""
        return HttpResponse(find(pk))


api = NinjaAPI(urls_namespace="spellings")


@api.get("/text/{customer_id}/")
@lock
def operation_on_text(request: HttpRequest, customer_id: str) -> HttpResponse:
    """Collect by an id that Ninja leaves as it is."""
    return HttpResponse(find(customer_id))


@api.get("/number/{customer_id}/")
@distributed_lock("<customer_id>collectPayment")
def operation_on_number(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Collect by an id that Ninja converts, whose placeholder needs no type."""
    return HttpResponse(find(customer_id))


@distributed_lock("<uuid:identity>:edit")
def by_uuid(request: HttpRequest, identity: str) -> HttpResponse:
    """Edit."""
    return HttpResponse(",".join(each.semaphore for each in lock_backends["default"].held()))


router = SimpleRouter()
router.register("customers", Customers, basename="customer")
urlpatterns = [
    path("function/<customer_id>/", function),
    re_path("^regex/(?P<customer_id>[^/]+)/$", function),
    re_path("^unnamed/([^/]+)/$", function),
    path("typed/<int:customer_id>/", function),
    path("method/<customer_id>/", OnMethod.as_view()),
    path("dispatch/<customer_id>/", OnDispatch.as_view()),
    path("async/<customer_id>/", async_function),
    path("rest/<customer_id>/", rest_function),
    path("rest/", include(router.urls)),
    path("ninja/", api.urls),
    path("uuid/<identity>/", by_uuid),
]
WAYS = [
    "function/{}/",
    "regex/{}/",
    "unnamed/{}/",
    "typed/{}/",
    "method/{}/",
    "dispatch/{}/",
    "async/{}/",
    "rest/{}/",
    "rest/customers/{}/",
    "rest/customers/{}/collect/",
    "ninja/text/{}/",
    "ninja/number/{}/",
]
on_each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def in_memory() -> Iterator[None]:
    """Keep the locks in memory, and have the views above."""
    memory = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
    with override_settings(ROOT_URLCONF=__name__, DISTLOCK={"default": memory}):
        yield
        store: Any = lock_backends["default"]
        store.clear()


@on_each_way
def test_each_spelling_of_an_id_is_one_lock_or_none(way: str) -> None:
    """Other spellings are refused, by the URLconf, the framework or the lock."""
    answers = {spelling: Client().get("/" + way.format(spelling)) for spelling in SPELLINGS}
    assert answers["7"].status_code == 200
    for spelling, answer in answers.items():
        if answer.status_code == 200:
            assert answer.content == b"7collectPayment", spelling
        else:
            assert answer.status_code in (400, 404, 422), spelling


@on_each_way
def test_no_spelling_gets_a_held_lock(way: str) -> None:
    """Customer 7's lock is held by another owner."""
    assert acquire_lock("7collectPayment")
    statuses = {Client().get("/" + way.format(spelling)).status_code for spelling in SPELLINGS}
    assert 409 in statuses
    assert statuses <= {400, 404, 409, 422}


@pytest.mark.parametrize(
    "spelling",
    [IDENTITY, IDENTITY.upper(), IDENTITY.replace("-", ""), f"{{{IDENTITY}}}", f"urn:{IDENTITY}"],
)
def test_each_spelling_of_a_uuid_is_one_lock(spelling: str) -> None:
    """Each spelling by which a UUIDField is found."""
    assert Client().get(f"/uuid/{spelling}/").content.decode() == f"{IDENTITY}:edit"


def test_text_other_than_a_uuid_is_400() -> None:
    """Like a text that is no number."""
    assert Client().get("/uuid/7/").status_code == 400


@committed
@on_each_database
def test_case_of_a_slug_is_the_columns(alias: str) -> None:
    """A slug's text is kept. Where the column ignores case, a callable can fold it."""
    module = example("how-to/lock-a-view.md", "Lock a view", "Give all spellings of an id one lock")
    Customer.objects.using(alias).create(name="alice")
    found = Customer.objects.using(alias).filter(name="ALICE").count()
    assert found == (1 if alias == "mariadb" else 0)
    slug = SemaphoreTemplate("<slug:name>:edit")
    assert slug.fill(["alice"]) != slug.fill(["ALICE"])
    with (
        override_settings(ROOT_URLCONF=tuple(module.urlpatterns), MIDDLEWARE=[]),
        holding("default", "alice:edit"),
    ):
        assert Client().get("/by-name/ALICE/").status_code == 409
        assert Client().get("/by-slug/ALICE/").status_code == 200
        assert Client().get("/by-slug/alice/").status_code == 409
