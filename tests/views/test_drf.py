"""Locks in the views of Django REST framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.urls import include, path
from django.utils.decorators import method_decorator
from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.permissions import BasePermission
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from django_distlock import LockBackendUnavailable, LockNotAcquired, acquire_lock, distributed_lock
from tests.support.visits import SOON

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted_store import ScriptedBackend

pytestmark = [pytest.mark.urls(__name__), pytest.mark.usefixtures("scripted")]
lock = distributed_lock("<pk>collectPayment")


class IsCollector(BasePermission):  # type: ignore[misc]
    """A permission for requests with the header X-Collector."""

    def has_permission(self, request: Any, view: APIView) -> bool:
        """Ask the request."""
        return bool(request.headers["X-Collector"] == "yes")


class OnMethod(APIView):  # type: ignore[misc]
    """A view with a locked method."""

    permission_classes = [IsCollector]

    @lock
    def post(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response({"collected": pk})


@method_decorator(lock, name="post")
class ByMethodDecorator(APIView):  # type: ignore[misc]
    """The same, decorated on the class."""

    permission_classes = [IsCollector]

    def post(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response({"collected": pk})


@method_decorator(lock, name="dispatch")
class OnDispatch(APIView):  # type: ignore[misc]
    """The whole view is locked, including permissions: strangers reach the lock."""

    permission_classes = [IsCollector]

    def post(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response({"collected": pk})


@api_view(["POST"])  # type: ignore[untyped-decorator]
@permission_classes([IsCollector])  # type: ignore[untyped-decorator]
@lock
def collect(request: Any, pk: str) -> Response:
    """Collect, with the framework around the lock."""
    return Response({"collected": pk})


@lock
@api_view(["POST"])  # type: ignore[untyped-decorator]
@permission_classes([IsCollector])  # type: ignore[untyped-decorator]
def collect_locked_first(request: Any, pk: str) -> Response:
    """Collect, with the lock around the framework: strangers reach the lock."""
    return Response({"collected": pk})


class Customers(ViewSet):  # type: ignore[misc]
    """A viewset with locked methods."""

    permission_classes = [IsCollector]

    @lock
    def update(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response({"collected": pk})

    @method_decorator(lock)
    def partial_update(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response({"collected": pk})

    @action(detail=True, methods=["post"])  # type: ignore[untyped-decorator]
    @lock
    def collect(self, request: Any, pk: str) -> Response:
        """Collect by an action of the viewset."""
        return Response({"collected": pk})

    @action(detail=True, methods=["post"])  # type: ignore[untyped-decorator]
    @method_decorator(lock)
    def collect_by_method_decorator(self, request: Any, pk: str) -> Response:
        """Collect by another action."""
        return Response({"collected": pk})

    @lock
    @action(detail=True, methods=["post"])  # type: ignore[untyped-decorator]
    def collect_locked_first(self, request: Any, pk: str) -> Response:
        """Collect by an action with the lock above, which is the same here."""
        return Response({"collected": pk})


@lock
def charge(request: Any, pk: str) -> Response:
    """Help a view whose caller would ignore a 409."""
    return Response({"charged": pk})


class Overlooking(ViewSet):  # type: ignore[misc]
    """A view that calls a helper."""

    def update(self, request: Any, pk: str) -> Response:
        """Ignore the helper's answer."""
        charge(request, pk)
        return Response({"collected": pk})


@api_view(["POST"])  # type: ignore[untyped-decorator]
def overlook(request: Any, pk: str) -> Response:
    """Ignore the helper's answer."""
    charge(request, pk)
    return Response({"collected": pk})


class Answering(APIView):  # type: ignore[misc]
    """A view with its own answer to contention."""

    @distributed_lock(
        "<pk>collectPayment",
        on_conflict=lambda request, pk: Response({"busy": pk}, status=202),
    )
    def post(self, request: Any, pk: str) -> Response:
        """Collect."""
        return Response({"collected": pk})


router = SimpleRouter()
router.register("customers", Customers, basename="customer")
router.register("overlooking", Overlooking, basename="overlooking")

urlpatterns = [
    path("method/<pk>/", OnMethod.as_view()),
    path("method-decorator/<pk>/", ByMethodDecorator.as_view()),
    path("dispatch/<pk>/", OnDispatch.as_view()),
    path("function/<pk>/", collect),
    path("function-locked-first/<pk>/", collect_locked_first),
    path("overlook/<pk>/", overlook),
    path("answering/<pk>/", Answering.as_view()),
    path("", include(router.urls)),
]

INSIDE = [
    "POST /method/{}/",
    "POST /method-decorator/{}/",
    "POST /function/{}/",
    "PUT /customers/{}/",
    "PATCH /customers/{}/",
    "POST /customers/{}/collect/",
    "POST /customers/{}/collect_by_method_decorator/",
    "POST /customers/{}/collect_locked_first/",
]
OUTSIDE = ["POST /dispatch/{}/", "POST /function-locked-first/{}/"]
on_each_view = pytest.mark.parametrize("view", INSIDE + OUTSIDE)


@pytest.fixture
def ask() -> Callable[..., Any]:
    """Return a function that sends a request for a customer to one of the views."""
    client = APIClient()

    def send(view: str, pk: str = "1234", collector: str = "yes", **arguments: Any) -> Any:
        method, url = view.split()
        headers = {"X-Collector": collector, "Accept": "application/json"}
        return client.generic(method, url.format(pk), headers=headers, **arguments)

    return send


@on_each_view
def test_locked_view_works_and_releases(
    ask: Callable[..., Any], scripted: ScriptedBackend, view: str
) -> None:
    """As without a lock."""
    response = ask(view)
    assert (response.status_code, response.json()) == (200, {"collected": "1234"})
    assert scripted.calls == ["acquire", "release"]


@on_each_view
def test_contended_view_answers_409(ask: Callable[..., Any], view: str) -> None:
    """Like any Django view."""
    assert acquire_lock("1234collectPayment")
    response = ask(view)
    assert response.status_code == 409
    assert response["Retry-After"] in SOON
    assert response.json()["error"] == "contended"


@on_each_view
def test_store_that_is_down_is_503(
    ask: Callable[..., Any], scripted: ScriptedBackend, view: str
) -> None:
    """An outage isn't a conflict."""
    scripted.answer("acquire", LockBackendUnavailable("no route"))
    response = ask(view)
    assert (response.status_code, response.json()["error"]) == (503, "unavailable")


@on_each_view
def test_lease_lost_meanwhile_leaves_the_views_answer(
    ask: Callable[..., Any],
    scripted: ScriptedBackend,
    monkeypatch: pytest.MonkeyPatch,
    view: str,
) -> None:
    """It has no transaction: its work is kept, so the answer invites no retry."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    response = ask(view)
    assert response.status_code < 300
    assert "Retry-After" not in response


@on_each_view
def test_invalid_semaphore_is_400(
    ask: Callable[..., Any], scripted: ScriptedBackend, view: str
) -> None:
    """The framework leaves BadRequest to Django."""
    assert ask(view, "a" * 250).status_code == 400
    assert scripted.calls == []


def handle(error: Exception, context: Any) -> Response:
    """Answer every exception as a server error."""
    pytest.fail(f"It should have been answered: {error!r}")


def test_invalid_semaphore_is_400_with_any_exception_handler(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site's handler may answer every exception as a server error."""
    monkeypatch.setattr(APIView, "get_exception_handler", lambda view: handle)
    assert ask("POST /method/{}/", "a" * 250).status_code == 400


@pytest.mark.parametrize("view", INSIDE)
def test_stranger_does_not_get_to_the_lock(
    ask: Callable[..., Any], scripted: ScriptedBackend, view: str
) -> None:
    """The framework asks for permission before it calls the method or function."""
    assert ask(view, collector="no").status_code == 403
    assert scripted.calls == []


@pytest.mark.parametrize("view", OUTSIDE)
def test_stranger_gets_to_a_lock_around_the_permissions(
    ask: Callable[..., Any], scripted: ScriptedBackend, view: str
) -> None:
    """The documentation warns of that."""
    assert ask(view, collector="no").status_code == 403
    assert scripted.calls == ["acquire", "release"]


@pytest.mark.parametrize("view", ["PUT /overlooking/{}/", "POST /overlook/{}/"])
def test_helper_raises_instead_of_answering(ask: Callable[..., Any], view: str) -> None:
    """In a viewset and in a function."""
    assert ask(view).json() == {"collected": "1234"}
    acquire_lock("1234collectPayment")
    with pytest.raises(LockNotAcquired):
        ask(view)


def test_on_conflict_may_answer_as_the_framework_does(ask: Callable[..., Any]) -> None:
    """Its answer is rendered like any other."""
    assert ask("POST /answering/{}/").json() == {"collected": "1234"}
    acquire_lock("1234collectPayment")
    response = ask("POST /answering/{}/")
    assert (response.status_code, response.json()) == (202, {"busy": "1234"})
