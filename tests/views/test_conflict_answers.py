"""What a 409 tells its client: when to try again, in a format that it reads, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import include, path
from django.utils.decorators import method_decorator
from ninja import NinjaAPI
from rest_framework.decorators import action, api_view
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from django_distlock import LockBackendUnavailable, distributed_lock
from django_distlock.fields import EPOCH
from django_distlock.records import KEPT, REFUSED, Refusal

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls(__name__), pytest.mark.usefixtures("scripted")]
lock = distributed_lock("<pk>collectPayment")
api = NinjaAPI(urls_namespace="conflicts")


@lock
def page(request: HttpRequest, pk: str) -> HttpResponse:
    """Answer as a site with pages does."""
    return HttpResponse()


class OnMethod(APIView):  # type: ignore[misc]
    """A view of REST framework with a locked method."""

    authentication_classes = ()

    @lock
    def get(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response()


@method_decorator(lock, name="dispatch")
class OnDispatch(APIView):  # type: ignore[misc]
    """A view of REST framework that is locked as a whole."""

    authentication_classes = ()

    def get(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response()


@api_view()  # type: ignore[untyped-decorator]
@lock
def function(request: Any, pk: str) -> Response:
    """Answer by REST framework."""
    return Response()


class Customers(ViewSet):  # type: ignore[misc]
    """A viewset with a locked action."""

    @action(detail=True)  # type: ignore[untyped-decorator]
    @lock
    def collect(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response()


@api.get("/{pk}/")
@lock
def operation(request: HttpRequest, pk: str) -> None:
    """Answer by Django Ninja."""


@distributed_lock("<pk>collectPayment", http=False)
def charge(request: Any, pk: str) -> None:
    """Help a view, which does not expect a refusal."""


def overlook(request: HttpRequest, pk: str) -> HttpResponse:
    """Call the helper."""
    charge(request, pk)
    return HttpResponse()


@api_view()  # type: ignore[untyped-decorator]
def overlook_in_function(request: Any, pk: str) -> Response:
    """Call the helper."""
    charge(request, pk)
    return Response()


@api.get("/overlook/{pk}/")
def overlook_in_operation(request: HttpRequest, pk: str) -> None:
    """Call the helper."""
    charge(request, pk)


@api.get("/async/{pk}/")
@lock
async def async_operation(request: HttpRequest, pk: str) -> None:
    """Answer by Django Ninja, in async code."""


router = SimpleRouter()
router.register("customers", Customers, basename="customer")
urlpatterns = [
    path("page/<pk>/", page),
    path("method/<pk>/", OnMethod.as_view()),
    path("dispatch/<pk>/", OnDispatch.as_view()),
    path("function/<pk>/", function),
    path("overlook/<pk>/", overlook),
    path("overlook-in-function/<pk>/", overlook_in_function),
    path("ninja/", api.urls),
    path("", include(router.urls)),
]
PAGE = "/page/1234/"
APIS = [
    "/method/1234/",
    "/dispatch/1234/",
    "/function/1234/",
    "/customers/1234/collect/",
    "/ninja/1234/",
]
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

# When to try again


def told(held_for: float, left: float | None, reason: str = "") -> Refusal:
    """Return a refusal that tells of a lock that has been held so long, and may be so long yet."""
    seen_at = EPOCH + timedelta(seconds=held_for)
    end = None if left is None else seen_at + timedelta(seconds=left)
    return Refusal("somebody", EPOCH, end, seen_at, reason)


def paused(left: float | None) -> Refusal:
    """Return the refusal of a pause that ends then."""
    end = None if left is None else EPOCH + timedelta(seconds=left)
    return Refusal(expires_at=end, seen_at=EPOCH, reason="paused: deploy")


def refuse(scripted: ScriptedBackend, refusal: Refusal) -> None:
    """Refuse from now on."""
    scripted.owner, scripted.refusal = "somebody else", refusal


@pytest.mark.parametrize(
    ("refusal", "earliest", "latest"),
    [
        (REFUSED, 1, 3),  # nothing is known
        (told(0.2, 60), 1, 3),  # most leases are released long before their end
        (told(20, 60), 10, 20),  # held for long: it may take as long again
        (told(20, 15.2), 8, 16),  # but not beyond its lease, rounded up
        (told(900, 58), 29, 58),
        (told(900, 580), 30, 60),  # bounded
        (told(900, None), 30, 60),
        (told(5, 0.2), 1, 1),
        (told(5, -1), 3, 5),  # its end has passed meanwhile: nothing is known of the next one
        (told(1, 40.5, KEPT), 41, 44),  # kept until its end, for sure
        (paused(0.5), 1, 4),  # after the pause, not all in the same second
        (paused(600), 57, 60),
        (paused(None), 1, 3),
    ],
)
def test_retry_after_is_made_of_what_is_known(
    client: Client, scripted: ScriptedBackend, refusal: Refusal, earliest: int, latest: int
) -> None:
    """Clients that were refused together don't return together."""
    refuse(scripted, refusal)
    answers = {int(client.get(PAGE)["Retry-After"]) for _ in range(60)}
    assert answers <= set(range(earliest, latest + 1))
    assert len(answers) > (latest - earliest) / 3


# In which format


@pytest.mark.parametrize("url", [*APIS, "/ninja/async/1234/"])
@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON),
        ("*/*", JSON),
        (JSON, JSON),
        ("text/html", TEXT),
        ("text/html, */*;q=0.1", TEXT),
    ],
)
def test_api_answers_in_json_unless_a_page_is_preferred(
    client: Client, scripted: ScriptedBackend, url: str, accept: str, kind: str
) -> None:
    """As REST framework and Ninja do themselves."""
    refuse(scripted, REFUSED)
    response = client.get(url, headers={"accept": accept} if accept else {})
    assert (response.status_code, response["Content-Type"]) == (409, kind)
    assert "Accept" in response["Vary"].split(", ")


@pytest.mark.parametrize("url", APIS)
def test_api_answers_in_json_when_the_store_is_down_or_a_value_is_wrong(
    client: Client, scripted: ScriptedBackend, url: str
) -> None:
    """Like a conflict."""
    scripted.answer("acquire", LockBackendUnavailable("down"))
    assert client.get(url).json()["error"] == "unavailable"
    answer = client.get(url.replace("1234", "a" * 250))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid")


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "image/png"])
def test_site_with_pages_answers_in_text(
    client: Client, scripted: ScriptedBackend, accept: str
) -> None:
    """Unless JSON is preferred."""
    refuse(scripted, REFUSED)
    assert client.get(PAGE, headers={"accept": accept})["Content-Type"] == TEXT
    assert client.get(PAGE, headers={"accept": JSON})["Content-Type"] == JSON


def test_view_that_django_did_not_resolve_answers_in_text(scripted: ScriptedBackend) -> None:
    """There is no way to see that it is an API's."""
    refuse(scripted, REFUSED)
    view = distributed_lock("1234collectPayment", http=True)(lambda request: HttpResponse())
    assert view(RequestFactory().get("/"))["Content-Type"] == TEXT


# And nothing else

SECRET = "sentinel"
SITES_PAGE = "<b>{{ detail }}{{ error }}{{ refusal }}{{ holder }}</b>"


@pytest.mark.once
@pytest.mark.parametrize("url", [PAGE, *APIS])
@pytest.mark.parametrize("accept", [JSON, "text/html"])
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("template", [None, SITES_PAGE])
@pytest.mark.parametrize("reason", ["", f"paused: {SECRET}"])
def test_client_is_not_told_who_holds_the_lock(
    client: Client,
    scripted: ScriptedBackend,
    url: str,
    accept: str,
    debug: bool,
    template: str | None,
    reason: str,
) -> None:
    """Nor the label, the reason of a pause, the owner, the store, or a time but Retry-After."""
    refusal = Refusal(f"{SECRET} ({SECRET} pid 4711 {SECRET})", EPOCH, EPOCH, EPOCH, reason)
    refuse(scripted, refusal)
    scripted.owner = f"{SECRET}-owner"
    pages = {"409.html": template} if template else {}
    loaders = [("django.template.loaders.locmem.Loader", pages)]
    engine = "django.template.backends.django.DjangoTemplates"
    with override_settings(
        DEBUG=debug, TEMPLATES=[{"BACKEND": engine, "OPTIONS": {"loaders": loaders}}]
    ):
        response = client.get(url, headers={"accept": accept})
    assert response.status_code == 409
    answer = f"{response.headers}{response.content.decode()}{response.reason_phrase}"
    for untold in (SECRET, "4711", "1970", "paused"):
        assert untold not in answer
    assert set(response.headers) <= {
        *("Content-Type", "Retry-After", "Cache-Control", "Vary", "Content-Length"),
        *("Allow", "X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy"),
        "Cross-Origin-Opener-Policy",
    }


@pytest.mark.once
@pytest.mark.parametrize("accept", [JSON, "text/html"])
@pytest.mark.parametrize(
    "url", ["/overlook/1234/", "/overlook-in-function/1234/", "/ninja/overlook/1234/"]
)
def test_error_page_of_a_view_does_not_say_it_either(
    scripted: ScriptedBackend, url: str, accept: str
) -> None:
    """The text of LockNotAcquired is for the log. Under DEBUG, Django shows all that there is."""
    refuse(scripted, Refusal(SECRET, EPOCH, EPOCH, EPOCH))
    client = Client(raise_request_exception=False)
    response = client.get(url, headers={"accept": accept})
    assert response.status_code == 500
    assert SECRET not in f"{response.headers}{response.content.decode()}"
